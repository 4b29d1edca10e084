"""Guided backpropagation and Jacobians, against what textbooks say of them."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional

from adversarial import gradients
from adversarial.gradients import GuidedBackpropagation, guided_relu, jacobian, jvp, spectrum, vjp
from adversarial.penalties import path_lengths

# --- guided backpropagation ------------------------------------------------------------------------------------------


@pytest.fixture
def x():
    torch.manual_seed(0)
    return torch.randn(3, 5, requires_grad=True)


def loss_and_gradient(activation, x, sign):
    loss = sign * activation(x).sum()
    return loss.detach(), torch.autograd.grad(loss, x)[0]


@pytest.mark.parametrize("sign", [-1, 1])
def test_guided_relu_drops_negative_gradients_and_nothing_else(x, sign):
    plain_loss, plain = loss_and_gradient(functional.relu, x, sign)
    guided_loss, guided = loss_and_gradient(guided_relu, x, sign)
    assert guided_loss == plain_loss
    assert torch.equal(plain, sign * (x > 0).float())
    assert torch.equal(guided, plain if sign == 1 else torch.zeros(3, 5))


RELU = {
    "module": nn.ReLU(),
    "module in place": nn.ReLU(inplace=True),
    "functional": functional.relu,
    "functional in place": lambda x: functional.relu(x, inplace=True),
    "torch.relu": torch.relu,
    "torch.relu by keyword": lambda x: torch.relu(input=x),
    "torch.relu_": torch.relu_,
    "functional.relu_": functional.relu_,
    "Tensor.relu": lambda x: x.relu(),
    "Tensor.relu_": lambda x: x.relu_(),
}
LEAKY = {
    "module": nn.LeakyReLU(0.2),
    "module in place": nn.LeakyReLU(0.2, inplace=True),
    "functional": lambda x: functional.leaky_relu(x, 0.2),
    "functional in place": lambda x: functional.leaky_relu(x, 0.2, inplace=True),
    "leaky_relu_": lambda x: functional.leaky_relu_(x, 0.2),
}
SIX = {
    "hardtanh_": lambda x: functional.hardtanh_(x, 0, 6),
    "module": nn.ReLU6(),
    "module in place": nn.ReLU6(inplace=True),
    "functional": functional.relu6,
    "functional in place": lambda x: functional.relu6(x, inplace=True),
}
FORMS = [
    pytest.param(form, derivative, id=f"{family}: {name}")
    for family, forms, derivative in (
        ("ReLU", RELU, lambda x: (x > 0).float()),
        ("leaky ReLU", LEAKY, lambda x: torch.where(x > 0, 1.0, 0.2)),
        ("ReLU6", SIX, lambda x: ((x > 0) & (x < 6)).float()),
    )
    for name, form in forms.items()
]


@pytest.mark.parametrize(("form", "derivative"), FORMS)
def test_every_form_is_guided(x, form, derivative):
    """Gradients of both signs arrive, and of ReLU6 some inputs are above 6; outside the context nothing is changed."""
    arriving = torch.tensor([1.0, -2.0, 4.0, -8.0, 16.0])  # powers of two: their products are exact

    def gradient():
        return torch.autograd.grad((arriving * form(8 * x)).sum(), x)[0]

    plain = 8 * arriving * derivative(8 * x.detach())
    with GuidedBackpropagation():
        guided = gradient()
    assert torch.equal(guided, plain.clamp(min=0))
    assert torch.equal(gradient(), plain)
    assert not torch.equal(guided, plain)


def test_the_tensor_itself_is_guided_where_it_changes_in_place(x):
    """Code that goes on with the tensor, and not with what ``relu_`` returned."""
    with GuidedBackpropagation():
        y = 2 * x
        y.relu_()
    assert not torch.autograd.grad(-y.sum(), x)[0].any()


def test_the_backward_pass_may_follow_outside(x):
    with GuidedBackpropagation():
        y = functional.relu(x).tanh()  # other functions are left alone
    assert not torch.autograd.grad(-y.sum(), x)[0].any()


def test_each_layer_guides():
    """Two layers by hand: 3 → relu → times -1 → relu gives 0, so nothing comes back; with weight 2 all of it does."""
    for weight, want in ((-1.0, 0.0), (2.0, 2.0)):
        x = torch.tensor(3.0, requires_grad=True)
        (gradient,) = torch.autograd.grad(guided_relu(weight * guided_relu(x)), x)
        assert gradient == want


def test_guided_relu_serves_transforms_and_a_second_derivative(x):
    def loss(x):
        return guided_relu(x).square().sum()

    plain = 2 * x.detach().clamp(min=0)
    assert torch.equal(torch.func.grad(loss)(x.detach()), plain)
    assert torch.equal(torch.vmap(torch.func.grad(loss))(x.detach()), plain)
    (first,) = torch.autograd.grad(loss(x), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    assert torch.equal(second, 2 * (x > 0).float())


# --- Jacobians -------------------------------------------------------------------------------------------------------


def n(m):
    """(m₁², m₂³), whose Jacobian is diagonal: (2 m₁, 3 m₂²)."""
    return torch.stack([m[0] ** 2, m[1] ** 3])


def k(m):
    """(m₁² + 3 m₂, m₂² + 2 m₁)."""
    return torch.stack([m[0] ** 2 + 3 * m[1], m[1] ** 2 + 2 * m[0]])


M = torch.tensor([2.0, 3.0])
J = torch.tensor([[4.0, 3.0], [2.0, 6.0]])  # of k at M


def test_weighted_gradient():
    assert vjp(n, M, torch.ones(2)).tolist() == [4, 27]
    assert vjp(n, M, torch.tensor([1.0, 0.5])).tolist() == [4, 13.5]
    assert torch.equal(vjp(k, M, torch.tensor([2.0, -1.0])), torch.tensor([2.0, -1.0]) @ J)


def test_jvp():
    assert torch.equal(jvp(k, M, torch.tensor([2.0, -1.0])), J @ torch.tensor([2.0, -1.0]))


@pytest.mark.parametrize("chunk", [None, 1, 2])
def test_jacobian(chunk):
    assert torch.equal(jacobian(k, M, chunk), J)


@pytest.mark.parametrize("chunk", [None, 2])
@pytest.mark.parametrize(("inputs", "outputs"), [((2, 3), (2, 2)), ((2,), (3, 2)), ((4,), ())])
def test_jacobian_of_any_shape(inputs, outputs, chunk):
    """Rows where outputs are fewer than inputs, columns where they are not: the matrix of a linear map either way."""
    torch.manual_seed(0)
    matrix = torch.randn(*outputs, *inputs)
    found = jacobian(lambda x: (matrix * x).flatten(len(outputs)).sum(-1), torch.randn(inputs), chunk)
    torch.testing.assert_close(found, matrix)


def test_rows_from_one_graph():
    """Each backward pass gives a row; all but the last must keep the graph."""
    m = M.clone().requires_grad_()
    y = k(m)
    rows = [torch.autograd.grad(y[i], m, retain_graph=i == 0)[0] for i in range(2)]
    assert torch.equal(torch.stack(rows), J)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(y[0], m)


def test_a_jacobian_beyond_all_memory_is_refused():
    with pytest.raises(MemoryError, match=r"1048576 by 67108864 numbers takes 262144\.0 GiB, .*jvp") as caught:
        jacobian(lambda x: x[: 2**20], torch.empty(1).expand(2**26))
    assert "\n" not in str(caught.value)


def test_a_spectrum_beyond_all_memory_is_refused(monkeypatch):
    monkeypatch.setattr(gradients.os, "sysconf", lambda name: 16)  # 256 bytes; two columns and a 3 by 3 take 2·10 + 9
    tall = torch.randn(10, 3, dtype=torch.float64)
    spectrum(lambda x: tall @ x, torch.ones(3, dtype=torch.float64), chunk=2)
    with pytest.raises(MemoryError, match="smaller chunk"):
        spectrum(lambda x: tall @ x, torch.ones(3, dtype=torch.float64), chunk=3)


@pytest.mark.parametrize(("shape", "chunk"), itertools.product([(7, 3), (3, 7), (4, 4)], [1, 2, 16]))
def test_spectrum_of_a_linear_map(shape, chunk):
    """Singular values, and directions along which x moves the output by so much, at whichever side is smaller."""
    torch.manual_seed(0)
    matrix = torch.randn(shape, dtype=torch.float64)
    values, directions = spectrum(lambda x: matrix @ x, torch.randn(shape[1], dtype=torch.float64), chunk)
    # Eigenvalues of the square are right to ε = 2e-16 of the largest, their roots to ε / (2 σ_min), about 1e-15 here.
    torch.testing.assert_close(values, torch.linalg.svdvals(matrix), rtol=1e-13, atol=1e-13)
    assert directions.shape == (min(shape), shape[1])
    torch.testing.assert_close(directions @ directions.T, torch.eye(min(shape), dtype=torch.float64))
    torch.testing.assert_close((matrix @ directions.T).norm(dim=0), values)


def test_condition_number():
    diagonal = torch.tensor([3.0, 0.5, 6.0], dtype=torch.float64)
    found = spectrum(lambda x: diagonal * x, torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(found.condition_number, torch.tensor(12.0, dtype=torch.float64))
    torch.testing.assert_close(found.directions[0].abs(), torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))
    assert spectrum(lambda x: torch.stack([x[0], x[0]]), torch.ones(2).double()).condition_number > 1e7  # singular


def test_the_mean_squared_path_length_is_the_sum_of_squared_singular_values():
    """E|Jᵀ y|² = |J|² = Σ σ², over the number of pixels, for y standard normal."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Unflatten(1, (1, 4, 4))).double()
    z = torch.randn(3, dtype=torch.float64)
    values = spectrum(lambda z: layers(z[None])[0], z).values
    many = z.expand(20_000, 3).clone().requires_grad_()
    images = layers(many)
    lengths = path_lengths(images, many, torch.randn_like(images))
    # A squared length is a weighted sum of χ² of 1: its standard error is at most √2 of the mean, over √20,000: 1 %.
    torch.testing.assert_close(lengths.square().mean(), values.square().sum() / 16, rtol=0.04, atol=0)
