"""How well generated points or classes cover the modes of the data."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from utils.data.samples import Modes


class Coverage(NamedTuple):
    """How points cover a mixture of Gaussians."""

    modes: int  # modes with at least one high-quality point
    high_quality: float  # share of points within 3 σ of their nearest mode, in [0, 1]
    reverse_kl: float | None  # KL(high-quality points over modes || uniform), in nats; None without any


def coverage(points: Tensor, modes: Modes) -> Coverage:
    """The protocol of PacGAN (Lin et al. 2018, section 4.1) for points ``[N, D]``."""
    # Distances in double precision: far from the origin, float32 would be off by more than σ.
    distance, nearest = torch.cdist(points.double(), modes.centres.double()).min(1)
    good = nearest[distance < 3 * modes.sigma]
    if not len(good):
        return Coverage(0, 0.0, None)
    count = torch.bincount(good, minlength=len(modes.centres)).double()
    return Coverage(int((count > 0).sum()), len(good) / len(points), from_uniform(count))


def from_uniform(count: Tensor) -> float:
    """KL(shares || uniform) in nats, of the counts ``[K]`` of points or images by mode."""
    return math.log(len(count)) - float(torch.special.entr(count / count.sum()).sum())
