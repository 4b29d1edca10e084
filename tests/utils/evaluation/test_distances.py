"""Distances between sets of features against other implementations, closed formulas and known values.

The figures of torch-fidelity 0.4.0 were computed once, on the features of ``sample`` with the seeds that stand here.
"""

import numpy as np
import pytest
import scipy.linalg
import torch

from utils.evaluation import distances
from utils.evaluation.distances import frechet_distance, kernel_distance


def sample(seed: int, n: int, d: int = 8, shift: float = 0.0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=draw, dtype=torch.float64) + shift


def closed_formula(a: torch.Tensor, b: torch.Tensor) -> float:
    """|μ - ν|² + tr(S + T - 2·√(ST))."""
    S, T = np.cov(a.numpy(), rowvar=False), np.cov(b.numpy(), rowvar=False)
    means = ((a.mean(0) - b.mean(0)) ** 2).sum()
    return float(means + np.trace(S + T - 2 * scipy.linalg.sqrtm(S @ T).real))


def test_distances_are_those_of_torch_fidelity():
    a, b = sample(0, 300, shift=0.5), sample(1, 200)
    assert frechet_distance(a, b) == pytest.approx(2.1874413727371795, rel=1e-9)
    assert kernel_distance(a[:200], b)[0] == pytest.approx(1.1987124133260014, rel=1e-9)


@pytest.mark.parametrize("n", [9, 30, 400], ids="{} of 400".format)
@pytest.mark.parametrize("shift", [0.0, 0.3, 3.0])
def test_the_frechet_distance_is_the_closed_formula(n, shift):
    """Well-conditioned covariances: the root of an eigenvalue λ is known to ε/√λ, far below the tolerance."""
    a, b = sample(2, n, shift=shift), sample(3, 400)
    want = closed_formula(a, b)
    assert frechet_distance(a, b) == pytest.approx(want, rel=1e-8)
    assert frechet_distance(b, a) == pytest.approx(want, rel=1e-8)
    assert frechet_distance(a, b.flip(0)) == pytest.approx(want, rel=1e-8)


def test_the_frechet_distance_of_fewer_samples_than_features():
    """Two samples each, on two lines at right angles: S and T share no direction, and tr √(ST) is 0."""
    a, b = torch.zeros(2, 5), torch.zeros(2, 5)
    a[:, 0], b[:, 1] = torch.tensor([-1.0, 1.0]), torch.tensor([-2.0, 2.0])
    # The rounding of 1e-16 in an eigenvalue that should be 0 is 1e-8 in its root.
    assert frechet_distance(a, b) == pytest.approx(2 + 8, abs=1e-7)
    assert frechet_distance(a, 2 * a) == pytest.approx(2 + 8 - 2 * 4, abs=1e-7)


@pytest.mark.parametrize("n", [5, 100])
def test_the_frechet_distance_of_a_set_to_itself_is_0(n):
    a = sample(0, n)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)  # eight roots of eigenvalues known to 1e-16


def test_the_frechet_distance_is_in_double_precision():
    a, b = sample(0, 300), sample(1, 300)
    assert frechet_distance(a.float(), b.float()) == pytest.approx(frechet_distance(a, b), rel=1e-5)
    assert frechet_distance((a + 1e4).float(), (a + 1e4).float()) == pytest.approx(0, abs=1e-6)


def plain_kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """The definition, pair by pair."""

    def kernel(x, y):
        return (x @ y / len(x) + 1) ** 3

    def mean(pairs):
        values = [kernel(x, y) for x, y in pairs]
        return sum(values) / len(values)

    within = [mean([(x, y) for i, x in enumerate(z) for j, y in enumerate(z) if i != j]) for z in (a, b)]
    return sum(within) - 2 * mean([(x, y) for x in a for y in b])


@pytest.mark.parametrize(("n", "m"), [(2, 3), (6, 6), (9, 4)])
def test_the_kernel_distance_is_its_definition(n, m, monkeypatch):
    monkeypatch.setattr(distances, "ROWS", 4)  # several blocks of rows, the last one smaller
    a, b = sample(4, n, 3, 0.4), sample(5, m, 3)
    assert kernel_distance(a, b)[0] == pytest.approx(plain_kernel_distance(a.numpy(), b.numpy()), rel=1e-12)
    assert kernel_distance(b, a)[0] == pytest.approx(kernel_distance(a, b)[0], rel=1e-12)


def test_the_standard_error_of_the_kernel_distance_is_the_spread_of_its_values():
    """Of 60 draws the spread is known to 1/√(2 · 60), 9 %: the mean estimate is within three times that."""
    found = torch.tensor([kernel_distance(sample(100 + i, 60, 8, 0.3), sample(300 + i, 90)) for i in range(60)])
    assert float(found[:, 1].mean()) == pytest.approx(float(found[:, 0].std()), rel=0.27)


def test_the_kernel_distance_of_one_distribution_is_0_on_average():
    """Within three standard errors of the mean of 60."""
    found = torch.tensor([kernel_distance(sample(100 + i, 60), sample(300 + i, 90)) for i in range(60)])[:, 0]
    assert abs(float(found.mean())) < 3 * float(found.std()) / 60**0.5
    assert bool((found < 0).any())
