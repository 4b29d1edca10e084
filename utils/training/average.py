"""Exponential moving average of a network: its weights and the statistics that belong to them."""

import copy
import itertools
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class Pairs(NamedTuple):
    """Tensors of an average beside those of its network: those that are averaged, and those that are copied."""

    averaged: list[tuple[Tensor, Tensor]]
    copied: list[tuple[Tensor, Tensor]]


def averaged(module: nn.Module, shared: bool = False) -> nn.Module:
    """A frozen copy of ``module`` in evaluation mode, for ``update``; ``shared``: one that always is what it is."""
    average = copy.deepcopy(module).requires_grad_(False).eval()
    if shared:
        tensors = (itertools.chain(network.parameters(), network.buffers()) for network in (average, module))
        for ours, theirs in zip(*tensors, strict=True):
            ours.data = theirs.data
    return average


def pairs(average: nn.Module, module: nn.Module) -> Pairs:
    """What ``update`` needs; tensors that ``average`` shares with ``module`` are left out.

    BatchNorm's running statistics are averaged like the weights that they belong to. All other buffers are copied: a
    count, a constant, or the unit vectors of spectral norm, whose mean would be too short.
    """
    kinds = [
        list(zip(kind(average), kind(module), strict=True))
        for kind in (lambda network: [*network.parameters(), *_statistics(network)], _other_buffers)
    ]
    return Pairs(*([(a, b) for a, b in kind if a.data_ptr() != b.data_ptr()] for kind in kinds))


def update(pairs: Pairs, decay: float) -> None:
    """Move the average to decay · average + (1 - decay) · network, in place."""
    # One fused operation for all of them: a loop over tensors would launch a kernel for each.
    if pairs.averaged:
        ours, theirs = zip(*pairs.averaged, strict=True)
        with torch.no_grad():
            torch._foreach_lerp_(ours, theirs, 1.0 - decay)
    copy_buffers(pairs)


def copy_buffers(pairs: Pairs) -> None:
    """Copy the buffers that are not averaged to the average."""
    if pairs.copied:
        ours, theirs = zip(*pairs.copied, strict=True)
        torch._foreach_copy_(ours, theirs)


def _statistics(network: nn.Module) -> list[Tensor]:
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    return [x for norm in norms for x in (norm.running_mean, norm.running_var) if x is not None]


def _other_buffers(network: nn.Module) -> list[Tensor]:
    statistics = set(map(id, _statistics(network)))
    return [buffer for buffer in network.buffers() if id(buffer) not in statistics]
