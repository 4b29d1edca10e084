"""Exponential moving average of a network: its weights and the statistics that belong to them."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def averaged(module: nn.Module) -> nn.Module:
    """A frozen copy of ``module`` in evaluation mode, for ``update``."""
    return copy.deepcopy(module).requires_grad_(False).eval()


@torch.no_grad()
def update(average: nn.Module, module: nn.Module, decay: float) -> None:
    """Move ``average`` to decay · average + (1 - decay) · module, in place.

    BatchNorm's running statistics are averaged like the weights that they belong to. All other buffers are copied: a
    count, a constant, or the unit vectors of spectral norm, whose mean would be too short.
    """
    # One fused operation for all of them: a loop over tensors would launch a kernel for each.
    ours = [*average.parameters(), *_statistics(average)]
    torch._foreach_lerp_(ours, [*module.parameters(), *_statistics(module)], 1.0 - decay)
    copy_other_buffers(average, module)


@torch.no_grad()
def copy_other_buffers(average: nn.Module, module: nn.Module) -> None:
    """Copy the buffers that are not averaged from ``module`` to ``average``."""
    for ours, theirs in zip(_other_buffers(average), _other_buffers(module), strict=True):
        ours.copy_(theirs)


def _statistics(network: nn.Module) -> list[Tensor]:
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    return [x for norm in norms for x in (norm.running_mean, norm.running_var) if x is not None]


def _other_buffers(network: nn.Module) -> list[Tensor]:
    statistics = set(map(id, _statistics(network)))
    return [buffer for buffer in network.buffers() if id(buffer) not in statistics]
