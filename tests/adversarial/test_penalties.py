"""Penalties on critics whose gradients are known."""

import torch
from torch import nn

from adversarial.penalties import (
    around,
    between,
    clip_weights,
    consistency,
    input_gradients,
    lecam,
    one_centred,
    path_lengths,
    zero_centred,
)


def test_linear_critic_has_its_weight_as_gradient():
    critic = nn.Linear(6, 1).double()
    x = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    (gradient,) = input_gradients([critic(x.flatten(1)).squeeze(1)], [x])
    weight = critic.weight.detach()
    assert torch.equal(gradient, weight.reshape(1, 2, 3).expand(4, 2, 3))
    penalty = zero_centred(gradient)
    assert penalty.shape == (4,)
    # A sum of six squares, in any order.
    assert torch.allclose(penalty, (weight**2).sum().expand(4) / 2, rtol=1e-14)


def test_penalty_reaches_the_weights():
    """d/dw of |w|²/2 is w."""
    critic = nn.Linear(3, 1, bias=False).double()
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    (gradient,) = input_gradients([critic(x).squeeze(1)], [x])
    zero_centred(gradient).mean().backward()
    assert torch.allclose(critic.weight.grad, critic.weight, rtol=1e-14)


def test_several_inputs_at_once():
    """s = x³ has the gradient 3x², sample by sample, however many inputs share the pass."""
    inputs = [torch.randn(n, 1, dtype=torch.float64, requires_grad=True) for n in (2, 3)]
    gradients = input_gradients([x.pow(3).sum(1) for x in inputs], inputs)
    for x, gradient in zip(inputs, gradients, strict=True):
        assert torch.allclose(gradient, 3 * x**2, rtol=1e-14)


def test_one_centred_is_zero_for_a_critic_of_slope_one():
    slope = torch.tensor([[0.6, 0.8], [3.0, 4.0], [0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(one_centred(slope), torch.tensor([0.0, 16.0, 1.0], dtype=torch.float64))


def test_points_between_and_around_are_leaves():
    real, fake = torch.ones(3, 2, requires_grad=True), torch.zeros(3, 2, requires_grad=True)
    points = between(real, fake, torch.tensor([0.0, 0.5, 1.0]))
    assert points.tolist() == [[0, 0], [0.5, 0.5], [1, 1]]
    beside = around(real, torch.full((3, 2), 0.25))
    assert bool((beside == 1.25).all())
    assert all(x.is_leaf and x.requires_grad for x in (points, beside))


def test_lecam_holds_each_side_to_the_other_sides_average():
    """Averages -1 and 3 (0.5 of the weight): (1 - -1)², (2 - -1)² over reals and (5 - 3)², (0 - 3)² over fakes."""
    memory = {name: torch.tensor(x) for name, x in
              {"lecam_real": 1.5, "lecam_fake": -0.5, "lecam_weight": 0.5}.items()}  # fmt: skip
    value = lecam([torch.tensor([1.0, 2.0])], [torch.tensor([5.0, 0.0])], memory)
    assert value.item() == (4 + 9) / 2 + (4 + 9) / 2


def test_lecam_before_the_first_step_holds_scores_to_zero():
    memory = {name: torch.tensor(0.0) for name in ("lecam_real", "lecam_fake", "lecam_weight")}
    assert lecam([torch.tensor([2.0])], [torch.tensor([-1.0])], memory).item() == 5


def test_consistency():
    a, b = torch.tensor([1.0, 2.0]), torch.tensor([3.0])
    assert consistency([a, b], [a + 1, b - 2]).item() == 1 + 4


def test_path_length_of_a_linear_generator():
    """J is A itself: ‖A^T y‖ for images of one pixel, whatever w is."""
    A = torch.randn(4, 3, dtype=torch.float64)
    w = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    noise = torch.randn(5, 4, 1, 1, dtype=torch.float64)
    lengths = path_lengths((w @ A.T)[:, :, None, None], w, noise)
    torch.testing.assert_close(lengths, (noise.flatten(1) @ A).norm(dim=1))


def test_path_length_over_layers_is_their_root_mean_square():
    A = torch.randn(2, 4, 3, dtype=torch.float64)
    w = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    noise = torch.randn(5, 4, 2, 2, dtype=torch.float64)
    images = torch.einsum("lcd,nld->nc", A, w)[:, :, None, None].expand(-1, -1, 2, 2)
    slopes = torch.einsum("nc,lcd->nld", noise.sum((2, 3)) / 2, A)  # 4 pixels: y / √4
    torch.testing.assert_close(path_lengths(images, w, noise), slopes.square().sum(2).mean(1).sqrt())


def test_clipped_weights():
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[5.0, -0.001], [-7.0, 0.01]]))
    clip_weights(layer, 0.01)
    torch.testing.assert_close(layer.weight.detach(), torch.tensor([[0.01, -0.001], [-0.01, 0.01]]))
    assert layer.weight.requires_grad
