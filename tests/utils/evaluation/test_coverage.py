"""Coverage against counting by hand."""

import math

import pytest
import torch

from utils.data.samples import Modes
from utils.evaluation.coverage import coverage

SIGMA = 0.01


@pytest.fixture
def ring() -> Modes:
    angle = torch.arange(8) * (2 * math.pi / 8)
    return Modes(torch.stack([angle.cos(), angle.sin()], dim=1), SIGMA)


def at(modes: Modes, counts: list[int], off: float = 0.0) -> torch.Tensor:
    """So many points at each mode, ``off`` away from it."""
    return torch.cat([centre.expand(n, 2) for centre, n in zip(modes.centres, counts, strict=True)]) + torch.tensor(
        [off, 0.0]
    )


def test_every_mode_alike(ring):
    """The sum of 8 logarithms rounds 8 times."""
    got = coverage(at(ring, [5] * 8), ring)
    assert (got.modes, got.high_quality) == (8, 1.0)
    assert abs(got.reverse_kl) <= 8 * math.log(8) * torch.finfo(torch.float64).eps


def test_missing_modes(ring):
    got = coverage(at(ring, [5, 0, 5, 0, 0, 5, 5, 0]), ring)
    assert (got.modes, got.high_quality) == (4, 1.0)
    assert got.reverse_kl == pytest.approx(math.log(2), abs=8 * math.log(8) * torch.finfo(torch.float64).eps)


def test_a_single_mode(ring):
    got = coverage(at(ring, [0, 7, 0, 0, 0, 0, 0, 0]), ring)
    assert (got.modes, got.high_quality, got.reverse_kl) == (1, 1.0, math.log(8))


def test_uneven_modes(ring):
    """KL = Σ p·ln(8p) for p = 1/2, 1/4, 1/8, 1/8: ln 2 + ¼·ln 2 + 0 + 0 - that is ln 8 less the entropy 7/4·ln 2."""
    got = coverage(at(ring, [4, 2, 1, 1, 0, 0, 0, 0]), ring)
    assert got.modes == 4
    assert got.reverse_kl == pytest.approx(math.log(8) - 7 / 4 * math.log(2), abs=8 * math.log(8) * 2**-52)


def test_points_within_three_sigma_are_good(ring):
    inside, outside = at(ring, [1] * 8, off=2.9 * SIGMA), at(ring, [3] * 8, off=3.1 * SIGMA)
    assert coverage(inside, ring).high_quality == 1.0
    got = coverage(torch.cat([inside, outside]), ring)
    assert (got.modes, got.high_quality) == (8, 0.25)


def test_bad_points_do_not_count_for_a_mode(ring):
    good, bad = at(ring, [1, 0, 0, 0, 0, 0, 0, 0]), at(ring, [0, 3, 0, 0, 0, 0, 0, 0], off=0.1)
    got = coverage(torch.cat([good, bad]), ring)
    assert (got.modes, got.high_quality, got.reverse_kl) == (1, 0.25, math.log(8))


@pytest.mark.parametrize("where", [0.0, 50.0, float("nan"), float("inf")])
def test_all_bad(ring, where):
    got = coverage(torch.full((4, 2), where), ring)
    assert (got.modes, got.high_quality, got.reverse_kl) == (0, 0.0, None)


def test_far_modes_are_measured_exactly():
    """A distance by way of scalar products in float32 would be off by more than σ here."""
    modes = Modes(torch.tensor([[1000.0, 1000.0], [-1000.0, 1000.0]]), SIGMA)
    assert coverage(modes.centres.clone(), modes).high_quality == 1.0


def test_many_points(ring):
    """cdist takes another way for more than 25 rows."""
    got = coverage(at(ring, [100] * 8, off=2.5 * SIGMA), ring)
    assert (got.modes, got.high_quality) == (8, 1.0)
