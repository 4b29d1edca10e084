"""The order in which samples are read: a function of the seed and the position, so nothing about it needs saving."""

from functools import lru_cache

import torch
from torch import Tensor

from adversarial.draws import rng


def indices_at(seed: int, n: int, position: int, length: int, order: str = "order") -> Tensor:
    """Indices ``[length]`` at ``position``, ``position + 1``, ... of an endless shuffled reading of ``n`` samples.

    Each epoch is another permutation, and a batch may straddle two epochs, so no sample is ever dropped.
    ``order`` names the random stream: two domains are read in two orders.
    """
    parts = []
    while length > 0:
        epoch, offset = divmod(position, n)
        part = permutation(seed, epoch, n, order)[offset : offset + length]
        parts.append(part)
        position, length = position + len(part), length - len(part)
    return torch.cat(parts) if len(parts) > 1 else parts[0]


@lru_cache(maxsize=4)  # two domains, and two epochs each where a batch straddles them
def permutation(seed: int, epoch: int, n: int, order: str = "order") -> Tensor:
    """The order of ``n`` samples in an epoch: indices ``[n]``."""
    return torch.randperm(n, generator=rng(seed, order, epoch))
