"""Metrics of nearest neighbours, as functions of features ``[N, d]``: fidelity, diversity, memorisation."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

ROWS = 1000  # of a matrix of distances that are computed at once


def precision_and_recall(made: Tensor, real: Tensor, k: int = 3) -> tuple[float, float]:
    """The share of generated samples that lie among the real ones, and of real ones that lie among the generated, in
    [0, 1] (Kynkäänniemi et al. 2019, eq. 1): within the distance of some sample to its k-th neighbour in its own set.
    """
    around_made, around_real = radii(made, k), radii(real, k)
    inside_real, inside_made = 0, torch.zeros(len(real), dtype=torch.bool)
    for rows, radius in zip(made.split(ROWS), around_made.split(ROWS), strict=True):
        distance = distances(rows, real)
        inside_real += int((distance < around_real).any(1).sum())
        inside_made |= (distance < radius[:, None]).any(0)
    return inside_real / len(made), float(inside_made.double().mean())


def density_and_coverage(made: Tensor, real: Tensor, k: int = 5) -> tuple[float, float]:
    """How densely generated samples lie among the real ones (1 is as densely as these), and the share of real ones
    with a generated sample among their k nearest, in [0, 1] (Naeem et al. 2020, eq. 3 and 4).
    """
    around, inside, covered = radii(real, k), 0, torch.zeros(len(real), dtype=torch.bool)
    for rows in made.split(ROWS):
        near = distances(rows, real) < around
        inside += int(near.sum())
        covered |= near.any(0)
    return inside / (k * len(made)), float(covered.double().mean())


def radii(x: Tensor, k: int) -> Tensor:
    """The distance ``[N]`` of each sample to its k-th nearest other one; to the farthest if there are fewer."""
    k = min(k, len(x) - 1)
    return torch.cat([distances(rows, x).kthvalue(k + 1).values for rows in x.split(ROWS)])  # the first is itself


def nearest(x: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """The distance ``[N]`` of each sample to the nearest of ``others``, and which that is."""
    found = [distances(rows, others).min(1) for rows in x.split(ROWS)]
    return torch.cat([part.values for part in found]), torch.cat([part.indices for part in found])


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances ``[N, M]``.

    By a matrix product in double precision, rounded to single: so a distance is the same from either end, and a sample
    is not inside a ball and outside of it by rounding.
    """
    return torch.cdist(a.double(), b.double(), compute_mode="use_mm_for_euclid_dist").float()


class Copying(NamedTuple):
    """How near samples come to training images, beside held-out images that the training has not seen."""

    nearer: float  # the probability that a sample comes nearer than a held-out image: 0.5 for a perfect generator
    z: float  # how many standard deviations that is above 0.5


def copying(made: Tensor, held_out: Tensor) -> Copying:
    """The test of Meehan et al. 2020 (eq. 1), of all samples at once, on distances ``[N]`` and ``[M]`` to the training
    set.
    """
    N, M = len(made), len(held_out)
    order = held_out.sort().values
    below, up_to = torch.searchsorted(order, made), torch.searchsorted(order, made, right=True)
    nearer = 1 - float((below + up_to).double().mean()) / (2 * M)  # a tie is half
    return Copying(nearer, (nearer - 0.5) / math.sqrt((N + M + 1) / (12 * N * M)))
