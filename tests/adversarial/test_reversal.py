"""Gradient reversal, and the autograd facts that the method rests on."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from adversarial.reversal import GradientReversal, gradient_reversal


def gradient(x, coefficient):
    """The gradient of Σ w·x through a reversal, over w: what is left of a cotangent."""
    x = x.clone().requires_grad_()
    (got,) = torch.autograd.grad((gradient_reversal(x, coefficient) * 3).sum(), x)
    return got / 3


@settings(derandomize=True, deadline=None, max_examples=50)
@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    coefficient=st.floats(-100, 100, allow_nan=False),
    kind=st.sampled_from(["float", "scalar", "per sample", "column"]),
)
def test_identity_forwards_minus_coefficient_backwards(shape, coefficient, kind):
    x = torch.randn(shape, dtype=torch.float64)
    value = torch.full((shape[0],), coefficient, dtype=torch.float64)
    value = {
        "float": coefficient,
        "scalar": value[0],
        "per sample": value,
        "column": value.reshape(-1, *[1] * (len(shape) - 1)),
    }[kind]
    assert torch.equal(gradient_reversal(x, value), x)
    # ×3 and /3 round twice: 2 · 2^-53 relative.
    assert torch.allclose(gradient(x, value), torch.full_like(x, -coefficient), rtol=2**-52, atol=0)


def test_each_sample_has_its_own_coefficient():
    coefficients = torch.tensor([0.0, 1.0, -2.0])
    for shape in ((3,), (3, 2), (3, 2, 4, 4)):
        got = gradient(torch.randn(shape), coefficients)
        assert torch.equal(got.flatten(1).mean(1) if len(shape) > 1 else got, -coefficients)


def test_func_grad_and_vmap():
    x, coefficients = torch.randn(5, 3), torch.arange(5.0)

    def score(sample, coefficient):
        return gradient_reversal(sample, coefficient).square().sum()

    single = torch.func.grad(score)(x[2], coefficients[2])
    assert torch.equal(single, -2.0 * 2 * x[2])
    every = torch.func.vmap(torch.func.grad(score))(x, coefficients)
    assert torch.equal(every, -coefficients[:, None] * 2 * x)
    shared = torch.func.grad(lambda batch: gradient_reversal(batch, coefficients).square().sum())(x)
    assert torch.equal(shared, every)


def test_compiles_as_one_graph_and_a_changed_tensor_does_not_recompile():
    torch._dynamo.reset()
    first, layer = nn.Linear(3, 3), GradientReversal(2.0)
    compiled = torch.compile(nn.Sequential(first, layer, nn.ReLU()), fullgraph=True, backend="aot_eager")
    x = torch.randn(4, 3)
    compiled(x).sum().backward()
    before = first.weight.grad.clone()
    first.weight.grad = None
    with torch._dynamo.config.patch(error_on_recompile=True):
        layer.coefficient.fill_(-6.0)
        compiled(x).sum().backward()
    assert torch.allclose(first.weight.grad, -3 * before)  # float32 rounding of two sums in the same order


def test_bfloat16():
    x = torch.randn(4, 3, dtype=torch.bfloat16)
    assert gradient(x, torch.tensor(0.5)).dtype == torch.bfloat16
    linear = nn.Linear(3, 2)
    with torch.autocast("cpu", torch.bfloat16):
        out = gradient_reversal(linear(torch.randn(4, 3)), torch.ones(4))
        assert out.dtype == torch.bfloat16
        out.float().sum().backward()
    assert torch.equal(linear.bias.grad, torch.tensor([-4.0, -4.0]))


def test_an_in_place_activation_may_follow():
    x = torch.tensor([-1.0, 2.0], requires_grad=True)
    y = torch.relu_(gradient_reversal(x))
    y.sum().backward()
    assert x.tolist() == [-1.0, 2.0]
    assert x.grad.tolist() == [0.0, -1.0]


def test_twice_through_the_reversal_is_the_square():
    """Why penalties are taken with respect to what comes out of the reversal."""
    x = torch.randn(3, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(gradient_reversal(x, 3.0).pow(3).sum(), x, create_graph=True)
    assert torch.allclose(first, -3 * 3 * x**2, rtol=1e-15)
    (second,) = torch.autograd.grad(first.sum(), x)
    assert torch.allclose(second, 9 * 6 * x, rtol=1e-15)  # λ² times the second derivative


def test_layer_has_no_state():
    assert GradientReversal(0.3).state_dict() == {}
    layer = GradientReversal(0.3).to(torch.float64)
    x = torch.ones(2, dtype=torch.float64, requires_grad=True)
    layer(x).sum().backward()
    assert torch.equal(x.grad, -layer.coefficient.expand(2))


# --- the textbook cases


@pytest.mark.parametrize("reverse", [False, True])
def test_sum_of_squares(reverse):
    x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = torch.tensor([4.0, 5.0, 6.0], requires_grad=True)
    s = 6 * (x**2 + y**2 + x + y).sum()
    s = gradient_reversal(s) if reverse else s
    s.backward()
    sign = -1 if reverse else 1
    assert s.item() == 672
    assert x.grad.tolist() == [sign * 18, sign * 30, sign * 42]
    assert y.grad.tolist() == [sign * 54, sign * 66, sign * 78]


@pytest.mark.parametrize("coefficient", [1.0, 0.25])
def test_three_layers_with_a_reversal_before_the_second(coefficient):
    torch.manual_seed(0)
    layers = [nn.Linear(3, 6), nn.Linear(6, 10), nn.Linear(10, 2)]
    plain, reverse = nn.Sequential(*layers), copy.deepcopy(layers)
    reverse = nn.Sequential(reverse[0], GradientReversal(coefficient), *reverse[1:])
    x = torch.randn(4, 3)
    for network in (plain, reverse):
        network(x).square().sum().backward()
    for name in ("weight", "bias"):
        assert torch.equal(getattr(reverse[0], name).grad, -coefficient * getattr(plain[0], name).grad)
        for ours, theirs in ((reverse[2], plain[1]), (reverse[3], plain[2])):
            assert torch.equal(getattr(ours, name).grad, getattr(theirs, name).grad)


def two_networks():
    torch.manual_seed(0)
    return nn.Linear(3, 4), nn.Linear(4, 1), torch.randn(5, 3)


def test_a_detached_step_and_a_frozen_step():
    A, B, x = two_networks()
    made = A(x)
    B(made.detach()).sum().backward()
    assert all(p.grad is None for p in A.parameters())
    before = [p.grad.clone() for p in B.parameters()]
    B.requires_grad_(False)
    B(made).sum().backward()
    assert all(p.grad is not None for p in A.parameters())
    assert all(torch.equal(p.grad, b) for p, b in zip(B.parameters(), before, strict=True))


def test_forgetting_the_detach_is_an_error():
    A, B, x = two_networks()
    made = A(x).tanh()
    B(made).sum().backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        B(made).sum().backward()


def test_two_backward_calls_add_up():
    A, B, x = two_networks()
    B(A(x)).sum().backward()
    once = [p.grad.clone() for p in A.parameters()]
    B(A(x)).sum().backward()
    assert all(torch.equal(p.grad, 2 * g) for p, g in zip(A.parameters(), once, strict=True))
