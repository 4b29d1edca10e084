"""Metrics of nearest neighbours against another implementation, the definitions, and known values.

The figures of prdc 0.2 were computed once, on the features of ``sample`` with the seeds that stand here.
"""

import pytest
import torch

from utils.evaluation import neighbours
from utils.evaluation.neighbours import copying, density_and_coverage, nearest, precision_and_recall


def sample(seed: int, n: int, shift: float = 0.0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(n, 8, generator=draw, dtype=torch.float64) + shift


@pytest.mark.parametrize("rows", [1000, 70])
def test_they_are_those_of_prdc(rows, monkeypatch):
    monkeypatch.setattr(neighbours, "ROWS", rows)
    made, real = sample(0, 300, 0.5), sample(1, 200)
    assert precision_and_recall(made, real, k=3) == pytest.approx((0.7566666666666667, 0.745), abs=1e-12)
    assert precision_and_recall(made, real, k=5) == pytest.approx((0.84, 0.86), abs=1e-12)
    assert density_and_coverage(made, real, k=3) == pytest.approx((0.7344444444444443, 0.76), abs=1e-12)
    assert density_and_coverage(made, real, k=5) == pytest.approx((0.7706666666666667, 0.875), abs=1e-12)


def test_a_set_and_itself():
    x = sample(0, 150).float()
    assert precision_and_recall(x, x) == (1, 1)
    assert density_and_coverage(x, x) == (1, 1)


def test_sets_that_are_far_apart():
    assert precision_and_recall(sample(0, 50), sample(1, 60, 100.0)) == (0, 0)
    assert density_and_coverage(sample(0, 50), sample(1, 60, 100.0)) == (0, 0)


def test_one_mode_of_two_is_precise_and_has_half_the_recall():
    real = torch.cat([sample(0, 100), sample(1, 100, 100.0)])
    assert precision_and_recall(real[:100], real) == (1, 0.5)
    assert density_and_coverage(real[:100], real) == (1, 0.5)


def test_fewer_samples_than_neighbours_are_taken_as_they_are():
    x = torch.tensor([[0.0], [1.0]])
    assert precision_and_recall(x, x) == (1, 1)


def test_the_nearest_of_others_by_hand():
    distance, index = nearest(torch.tensor([[0.0, 0.0], [9.0, 0.0]]), torch.tensor([[3.0, 4.0], [9.0, 1.0]]))
    assert distance.tolist() == [5, 1]
    assert index.tolist() == [0, 1]


def test_copying_is_the_share_of_pairs():
    made, held_out = torch.tensor([0.0, 1.0, 5.0]), torch.tensor([1.0, 2.0])
    # Of six pairs 0 < 1, 0 < 2 and 1 < 2 count whole, 1 = 1 half.
    assert copying(made, held_out).nearer == pytest.approx(3.5 / 6)
    assert copying(held_out, made).nearer == pytest.approx(2.5 / 6)


def test_copies_are_told_from_fresh_samples():
    """For samples of the same distribution z is a standard normal deviate."""
    train, held_out, fresh = sample(0, 300), sample(1, 200), sample(2, 200)
    of_held_out, _ = nearest(held_out, train)
    assert abs(copying(nearest(fresh, train)[0], of_held_out).z) < 3
    copies = train[:200] + 0.01 * sample(3, 200)
    found = copying(nearest(copies, train)[0], of_held_out)
    assert found.nearer == 1
    # All of 200 nearer than all of 200: half of the range over √((N + M + 1) / 12 N M).
    assert found.z == pytest.approx(0.5 / (401 / (12 * 200 * 200)) ** 0.5, rel=1e-6)
