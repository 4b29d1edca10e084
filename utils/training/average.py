"""Exponential moving average of a network: parameters and buffers."""

import copy

import torch
from torch import nn


def averaged(module: nn.Module) -> nn.Module:
    """A frozen copy of ``module`` in evaluation mode, for ``update``."""
    return copy.deepcopy(module).requires_grad_(False).eval()


@torch.no_grad()
def update(average: nn.Module, module: nn.Module, decay: float) -> None:
    """Move ``average`` to decay · average + (1 - decay) · module, in place.

    BatchNorm's running statistics are averaged like the weights that they belong to; integer buffers are copied.
    """
    ours = [*average.parameters(), *average.buffers()]
    theirs = [*module.parameters(), *module.buffers()]
    # One fused operation for all of them: a loop over tensors would launch a kernel for each.
    floats = [(a, b) for a, b in zip(ours, theirs, strict=True) if a.is_floating_point()]
    torch._foreach_lerp_([a for a, _ in floats], [b for _, b in floats], 1.0 - decay)
    for a, b in zip(ours, theirs, strict=True):
        if not a.is_floating_point():
            a.copy_(b)
