"""Which of its inputs a score hangs on: four ways to attribute scores to pixels or features.

All take ``score``, a differentiable function of samples ``[N, ...]`` that returns scores ``[N]`` (or ``[N / m]``), and
the samples; they return attributions like the samples. Where scores depend on other samples of the batch, a sample's
attribution is that of the sum of all scores.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from adversarial.draws import rng
from adversarial.gradients import GuidedBackpropagation
from utils.errors import UserError

Score = Callable[[Tensor], Tensor]

STEPS = 32  # points on the path of integrated gradients, and noisy copies of SmoothGrad
NOISE = 0.15  # SmoothGrad's standard deviation, as a share of the samples' range (Smilkov et al. 2017: 0.1 to 0.2)


def gradient(score: Score, x: Tensor) -> Tensor:
    """∂score_i/∂x_i (Simonyan et al. 2014). Raises UserError where it does not exist or is not finite."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        total = score(x).sum()
        slope = torch.autograd.grad(total, x, allow_unused=True)[0] if total.requires_grad else None
    if slope is None:
        raise UserError("The score has no gradient by its input: keep the network free of detach() and no_grad().")
    if not bool(torch.isfinite(slope).all()):
        raise UserError(
            "The gradient of a score by its input is NaN or infinite here, where the network is not differentiable (a "
            "square root at 0, for one): try --weights raw, an earlier checkpoint, or other samples by --seed."
        )
    return slope


def integrated_gradients(score: Score, x: Tensor) -> Tensor:
    """(x - b) times the mean gradient on the way from b to x (Sundararajan et al. 2017, eq. 3): it sums to
    score(x) - score(b). b is ``baseline(x)``; the mean is that of ``STEPS`` midpoints.
    """
    start = baseline(x)
    shares = (torch.arange(STEPS) + 0.5) / STEPS
    return (x - start) * sum(gradient(score, torch.lerp(start, x, share)) for share in shares.tolist()) / STEPS


def baseline(x: Tensor) -> Tensor:
    """What integrated gradients compare with: black images (-1), or vectors of zeros."""
    return torch.full_like(x, -1.0) if x.ndim == 4 else torch.zeros_like(x)


def smoothgrad(score: Score, x: Tensor) -> Tensor:
    """The mean gradient at ``STEPS`` noisy copies of ``x`` (Smilkov et al. 2017), the same noise every time."""
    scale = NOISE * (x.max() - x.min())
    draw = rng("SmoothGrad")
    noise = (torch.randn(x.shape, generator=draw).to(x) for _ in range(STEPS))
    return sum(gradient(score, x + scale * copy) for copy in noise) / STEPS


def guided(score: Score, x: Tensor) -> Tensor:
    """The gradient by guided backpropagation (Springenberg et al. 2015)."""
    with GuidedBackpropagation():
        return gradient(score, x)


# To add an attribution: write its function and one line here.
ATTRIBUTIONS = {
    "gradient": gradient,
    "integrated gradients": integrated_gradients,
    "SmoothGrad": smoothgrad,
    "guided backpropagation": guided,
}
