"""Penalties on critics whose gradients are known."""

import torch
from torch import nn

from adversarial.penalties import input_gradients, zero_centred


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
