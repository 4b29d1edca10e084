"""Penalties and regularisers, most of them on the critic's gradient with respect to its inputs.

R1 (Mescheder et al. 2018, eq. 9) is γ/2 · E‖∂s/∂x‖² over real samples, R2 the same over fakes. The gradient penalty of
WGAN-GP (Gulrajani et al. 2017, eq. 3) is γ · E(‖∂s/∂x‖ - 1)² between them, DRAGAN's (Kodali et al. 2017, section 2.5)
the same beside real samples. LeCam and consistency look at scores. The path length is the generator's.

Inputs are the samples as the generator side makes them: before any augmentation, behind any reversal. Where a score is
of several samples (packing), they are one input.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adversarial.games import Memory


@dataclass(frozen=True)
class Gamma:
    """Weights γ ≥ 0 of the penalties at one step; 0 switches one off. A step that applies a penalty in the place of k
    has it k times as large (lazy regularisation: Karras et al. 2020, StyleGAN2, appendix B).

    ``clip`` is no weight, but what the critic's parameters are kept within after each of its steps (Arjovsky et al.
    2017, algorithm 1); ``noise`` is the deviation of DRAGAN's points from the reals.
    """

    r1: float = 0.0
    r2: float = 0.0
    gp: float = 0.0
    dragan: float = 0.0
    lecam: float = 0.0
    consistency: float = 0.0
    path: float = 0.0
    clip: float = 0.0
    noise: float = 0.25


NO_PENALTY = Gamma()
PENALTIES = "r1", "r2", "gp", "dragan", "lecam", "consistency", "path"  # what has a weight


def input_gradients(scores: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
    """∂s_i/∂x_i of every sample, itself differentiable: one tensor like each of ``inputs``.

    One backward pass serves all inputs together: for a critic that judges each sample on its own this is exact, for
    one with BatchNorm it is the gradient of the batch's summed scores, as in every common implementation.
    """
    total = torch.stack([score.sum() for score in scores]).sum()
    return list(torch.autograd.grad(total, inputs, create_graph=True))


def zero_centred(input_gradient: Tensor) -> Tensor:
    """‖∂s_i/∂x_i‖² / 2 per input, ``[N, ...]`` to ``[N]``; to be averaged and multiplied by γ."""
    return input_gradient.flatten(1).square().sum(1) / 2


def one_centred(input_gradient: Tensor) -> Tensor:
    """(‖∂s_i/∂x_i‖ - 1)² per input, ``[N, ...]`` to ``[N]``; to be averaged and multiplied by γ."""
    return (torch.linalg.vector_norm(input_gradient.flatten(1), dim=1) - 1).square()


def between(real: Tensor, fake: Tensor, share: Tensor) -> Tensor:
    """Points on the lines from fakes to reals ``[N, ...]``, at ``share`` ``[N]`` in [0, 1] of the way: leaves."""
    share = share.reshape(-1, *[1] * (real.ndim - 1)).to(real.dtype)
    return torch.lerp(fake.detach(), real.detach(), share).requires_grad_()


def around(real: Tensor, noise: Tensor) -> Tensor:
    """Points beside the reals ``[N, ...]``: leaves. The noise is Gaussian, as in the paper's loss; in the authors' code
    it is uniform and as wide as the batch's deviation, by which samples would depend on each other.
    """
    return (real.detach() + noise.to(real.dtype)).requires_grad_()


def lecam(real: Sequence[Tensor], fake: Sequence[Tensor], memory: Memory) -> Tensor:
    """E(s_real - α_F)² + E(s_fake - α_R)²: each side's scores are held near the moving average of the other side's
    (Tseng et al. 2021, eq. 4; their code lets the distance count in one direction only). ``ScoreAverages`` keeps α.
    """
    weight = memory["lecam_weight"].clamp(min=torch.finfo(torch.float32).tiny)  # before the first step α is 0
    terms = [(score - memory["lecam_fake"] / weight).square().mean() for score in real]
    terms += [(score - memory["lecam_real"] / weight).square().mean() for score in fake]
    return sum(terms[1:], terms[0])


def consistency(scores: Sequence[Tensor], changed: Sequence[Tensor]) -> Tensor:
    """E(s(x) - s(T x))² over reals, and over fakes: a critic should not see a mirrored or shifted image as another one
    (bCR: Zhao et al. 2021, eq. 3 and 4, with one λ for both sides).
    """
    terms = [(a - b).square().mean() for a, b in zip(scores, changed, strict=True)]
    return sum(terms[1:], terms[0])


def path_lengths(images: Tensor, w: Tensor, noise: Tensor) -> Tensor:
    """‖J_w^T y‖ per image, J the generator's Jacobian by ``w`` ``[N, D]`` or, for L layers, ``[N, L, D]`` (root mean
    square over layers), y noise like the images: ``[N]``, itself differentiable (Karras et al. 2020, StyleGAN2, eq. 4).
    """
    pixels = images.shape[2:].numel()
    (slope,) = torch.autograd.grad((images * noise).sum() / pixels**0.5, w, create_graph=True)
    return slope.square().sum(-1).reshape(len(w), -1).mean(1).sqrt()


@torch.no_grad()
def clip_weights(critic: nn.Module, limit: float) -> None:
    """Keep every parameter within ±``limit``."""
    for parameter in critic.parameters():
        parameter.clamp_(-limit, limit)
