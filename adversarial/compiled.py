"""A compiled critic whose gradient by its input can itself be differentiated, as penalties on that gradient need.

The compiler has no double backward. So the compiled function returns the scores and their gradient by the input:
a first derivative within it, a plain output outside, which has a backward pass like any other.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def with_slope(critic: nn.Module) -> Callable[[Tensor, Tensor | None], Tensor]:
    """A compiled forward for ``critic(x, label) -> scores [N]``, one that judges each sample on its own: gradient i of
    the summed scores is then that of score i alone.

    A second derivative reaches the critic's parameters, not ``x``: no rule asks for a penalty's gradient by samples.
    """
    plain = critic.forward

    def scores_and_slope(x: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        def summed(x: Tensor) -> tuple[Tensor, Tensor]:
            scores = plain(x, label)
            return scores.sum(), scores

        slope, scores = torch.func.grad(summed, has_aux=True)(x)
        return scores, slope

    compiled = torch.compile(plain, fullgraph=True), torch.compile(scores_and_slope, fullgraph=True)

    def forward(x: Tensor, label: Tensor | None = None) -> Tensor:
        if not (x.requires_grad and torch.is_grad_enabled()):
            return compiled[0](x, label)
        return _Attached.apply(x, *compiled[1](x.detach(), label))

    return forward


class _Attached(torch.autograd.Function):
    """Scores ``[N]`` whose gradient by ``x`` ``[N, ...]`` is the ``slope`` that is given, times that of each score."""

    @staticmethod
    def forward(x: Tensor, scores: Tensor, slope: Tensor) -> Tensor:
        return scores.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(inputs[2])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor):
        (slope,) = ctx.saved_tensors
        return gradient.reshape(-1, *[1] * (slope.ndim - 1)) * slope, gradient, None
