"""Distances between two sets of images, as functions of their features ``[N, d]`` and ``[M, d]``."""

import math

import torch
from torch import Tensor

ROWS = 1000  # of a kernel matrix that are computed at once


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Fréchet distance between the Gaussians of two sets' means and covariances (Heusel et al. 2017, eq. 6).

    It is biased upwards for small sets, and far below d samples it says little.
    """
    if len(a) > len(b):
        a, b = b, a
    mean, other = a.double().mean(0), b.double().mean(0)
    A, B = (a.double() - mean) / (len(a) - 1) ** 0.5, (b.double() - other) / (len(b) - 1) ** 0.5
    # tr √(ST), of the covariances S = AᵀA and T = BᵀB, is the sum of the roots of the eigenvalues of R T Rᵀ, with any
    # R of which RᵀR = S: A itself where it has fewer rows than S.
    if len(A) < A.shape[1]:
        R = A
    else:
        value, vectors = torch.linalg.eigh(A.T @ A)
        R = (vectors * value.clamp(min=0).sqrt()).T
    across = R @ B.T
    roots = torch.linalg.eigvalsh(across @ across.T).clamp(min=0).sqrt()
    return float((mean - other).square().sum() + A.square().sum() + B.square().sum() - 2 * roots.sum())


def kernel_distance(a: Tensor, b: Tensor) -> tuple[float, float]:
    """Unbiased squared maximum mean discrepancy over all pairs, and its standard error (of the jackknife).

    The kernel is (x·y / d + 1)³, as in KID (Bińkowski et al. 2018, section 4); there the mean over random subsets
    estimates the same. Where both sets are of one distribution the value is about 0, and as often negative.
    """
    N, M = len(a), len(b)
    within_a, within_b = _row_sums(a, a, others=True), _row_sums(b, b, others=True)
    a_to_b, b_to_a = _row_sums(a, b), _row_sums(b, a)
    value = within_a.sum() / (N * (N - 1)) + within_b.sum() / (M * (M - 1)) - 2 * a_to_b.sum() / (N * M)
    return float(value), math.sqrt(_jackknife(within_a, a_to_b, M) + _jackknife(within_b, b_to_a, N))


def _row_sums(a: Tensor, b: Tensor, others: bool = False) -> Tensor:
    """The sums ``[N]`` of the kernel of each sample with all of ``b``; with ``others`` not with itself."""
    b = b.double()
    sums = [_kernel(rows.double() @ b.T, b.shape[1]).sum(1) for rows in a.split(ROWS)]
    itself = _kernel(b.square().sum(1), b.shape[1]) if others else 0
    return torch.cat(sums) - itself


def _kernel(product: Tensor, dimension: int) -> Tensor:
    value = product / dimension + 1
    return value * value * value


def _jackknife(within: Tensor, across: Tensor, M: int) -> float:
    """The variance of the distance that one of the sets brings: each of its samples is left out once.

    ``within`` and ``across`` ``[N]`` are the samples' sums of the kernel over the own set and over the other, of M.
    """
    N = len(within)
    if N < 3:
        return math.inf
    left = (within.sum() - 2 * within) / ((N - 1) * (N - 2)) - 2 * (across.sum() - across) / ((N - 1) * M)
    return float((left - left.mean()).square().sum() * (N - 1) / N)
