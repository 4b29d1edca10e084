"""Which of its inputs a score hangs on: four ways to attribute scores to pixels or features, and Grad-CAM at a layer.

All take ``score``, a differentiable function of samples ``[N, ...]`` that returns scores ``[N]`` (or ``[N / m]``), and
the samples; they return attributions like the samples. Where scores depend on other samples of the batch, a sample's
attribution is that of the sum of all scores.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

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
        return _slope(score(x).sum(), x)


def _slope(total: Tensor, x: Tensor) -> Tensor:
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


# --- at a layer ------------------------------------------------------------------------------------------------------


def grad_cam(score: Score, x: Tensor, layer: nn.Module) -> Tensor:
    """Grad-CAM (Selvaraju et al. 2017, eq. 1 and 2): the sum of a layer's maps, each weighted by the mean of the
    score's gradient by it, in the size of the images ``x``: ``[N, 1, H, W]``. Zeros where these do not pass the layer.

    The paper's ReLU is left out: positive values are its map, and negative ones its counterfactual explanation.
    """
    with torch.enable_grad():
        total, maps = _watched(score, x, [layer])
        if layer not in maps:
            return torch.zeros_like(x[:, :1])
        weights = _slope(total.sum(), maps[layer]).mean((2, 3), keepdim=True)
    where = (weights * maps[layer]).sum(1, keepdim=True).detach()
    where = interpolate(where, size=x.shape[2:], mode="bilinear")
    return where.repeat_interleave(len(x) // len(where), 0)  # a pack of images has one map


def layers_with_maps(score: Score, x: Tensor, network: nn.Module) -> dict[str, nn.Module]:
    """The layers of the ``network`` that give maps ``[N, C, H, W]`` on the way from ``x`` to the score, by name."""
    with torch.no_grad():
        _, maps = _watched(score, x, list(network.modules()))
    return {name: layer for name, layer in network.named_modules() if layer in maps}


def _watched(score: Score, x: Tensor, layers: list[nn.Module]) -> tuple[Tensor, dict[nn.Module, Tensor]]:
    """The scores of ``x``, and the maps that each layer has given last."""
    maps = {}

    def keep(layer: nn.Module, _: tuple, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            maps[layer] = output

    handles = [layer.register_forward_hook(keep) for layer in layers]
    try:
        return score(x.detach().requires_grad_()), maps
    finally:
        for handle in handles:
            handle.remove()
