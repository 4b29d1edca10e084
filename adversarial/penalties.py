"""Penalties on the critic's gradient with respect to its inputs.

R1 (Mescheder et al. 2018, eq. 9) is γ/2 · E‖∂s/∂x‖² over real samples, R2 the same over fakes. The gradient penalty of
WGAN-GP (Gulrajani et al. 2017, eq. 3) is γ · E(‖∂s/∂x‖ - 1)² between them.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Gamma(NamedTuple):
    """Weights γ ≥ 0 of the penalties; 0 switches one off."""

    r1: float = 0.0
    r2: float = 0.0
    gp: float = 0.0


NO_PENALTY = Gamma()


def input_gradients(scores: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
    """∂s_i/∂x_i of every sample, itself differentiable: one tensor like each of ``inputs``.

    One backward pass serves all inputs together: for a critic that judges each sample on its own this is exact, for
    one with BatchNorm it is the gradient of the batch's summed scores, as in every common implementation.
    """
    total = torch.stack([score.sum() for score in scores]).sum()
    return list(torch.autograd.grad(total, inputs, create_graph=True))


def zero_centred(input_gradient: Tensor) -> Tensor:
    """‖∂s_i/∂x_i‖² / 2 per sample, ``[N, ...]`` to ``[N]``; to be averaged and multiplied by γ."""
    return input_gradient.flatten(1).square().sum(1) / 2


def one_centred(input_gradient: Tensor) -> Tensor:
    """(‖∂s_i/∂x_i‖ - 1)² per sample, ``[N, ...]`` to ``[N]``; to be averaged and multiplied by γ."""
    return (torch.linalg.vector_norm(input_gradient.flatten(1), dim=1) - 1).square()


def between(real: Tensor, fake: Tensor, share: Tensor) -> Tensor:
    """Points on the lines from fakes to reals ``[N, ...]``, at ``share`` ``[N]`` in [0, 1] of the way: leaves."""
    share = share.reshape(-1, *[1] * (real.ndim - 1)).to(real.dtype)
    return torch.lerp(fake.detach(), real.detach(), share).requires_grad_()
