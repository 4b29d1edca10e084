"""Points in the plane: as the papers describe them, and a function of the seed."""

import cmath
import math

import numpy as np
import pytest
import torch
from sklearn.datasets import make_moons

from tests.utils.data.helpers import bytes_of, check_labelled
from utils.data import domains
from utils.data.datasets import load
from utils.data.points import Points

# --- Mixtures of Gaussians


@pytest.mark.parametrize(("name", "K", "sigma"), [("ring", 8, 0.01), ("grid", 25, 0.05)])
def test_points(name, K, sigma):
    data = load(Points(name), seed=3)
    assert (data.shape, data.classes, data.modes.sigma) == ((2,), K, sigma)
    assert data.modes.centres.shape == (K, 2)
    assert (len(data.train), len(data.test)) == (100_000, 10_000)
    for split in (data.train, data.test):
        assert split.x.dtype == torch.float32
        offset = (split.x - data.modes.centres[split.label]) / sigma
        assert offset.norm(dim=1).max() < 6
        assert abs(offset.std() - 1) < 0.02
        count = torch.bincount(split.label, minlength=K)
        assert (count * K / len(split) - 1).abs().max() < 0.2, "all modes, about equally often"
    assert not torch.equal(data.train.x[:10_000], data.test.x)


def test_centres():
    ring, grid = (load(Points(name), 0).modes.centres for name in ("ring", "grid"))
    assert torch.allclose(ring.norm(dim=1), torch.ones(8))
    assert torch.allclose(torch.pdist(ring).min(), torch.tensor(2 * np.sin(np.pi / 8), dtype=torch.float32))
    assert {tuple(c) for c in grid.tolist()} == {(a, b) for a in range(-4, 5, 2) for b in range(-4, 5, 2)}


@pytest.mark.parametrize("name", ["ring", "grid"])
def test_points_are_a_function_of_the_seed_alone(name):
    one, same, other = (load(Points(name), seed).train for seed in (0, 0, 1))
    assert torch.equal(one.x, same.x)
    assert torch.equal(one.label, same.label)
    assert not torch.equal(one.x, other.x)


# --- Moons


def test_moons():
    data = domains.load(Points("moons"), 0)
    assert (data.name, data.sides, data.shape) == ("moons", ("moons", "turned moons"), (2,))
    assert (data.classes, data.class_names, data.attribute_names) == (2, ("upper", "lower"), ())
    for samples, n in ((data.train, 300), (data.validation, 300), (data.oracle, 2000)):
        check_labelled(samples, n, (2,), torch.float32)
        assert torch.bincount(samples.label).tolist() == [n // 2, n // 2]
    assert data.target.x.shape == (300, 2)
    assert data.target.label is None


def test_the_target_is_the_source_turned_by_35_degrees(monkeypatch):
    """With the same points drawn for both, each is the other times e^(i 35°) in the complex plane."""
    monkeypatch.setattr("sklearn.datasets.make_moons", lambda n, noise, random_state: make_moons(n, random_state=0))
    data = domains.load(Points("moons"), 0)
    turned = torch.view_as_complex(data.train.x) * cmath.exp(1j * math.radians(35))
    # 1e-5: float32 coordinates below 4
    assert (torch.view_as_complex(data.target.x) - turned).abs().max() < 1e-5
    assert data.train.x.mean(0).abs().max() < 0.01, "turned about the moons' common centre"


def test_moons_are_a_function_of_the_seed_and_no_split_repeats_another():
    one, same, other = (domains.load(Points("moons"), seed) for seed in (3, 3, 4))
    for part in ("train", "validation", "target", "oracle"):
        assert torch.equal(getattr(one, part).x, getattr(same, part).x)
        assert not torch.equal(getattr(one, part).x, getattr(other, part).x)
    parts = [bytes_of(part) for part in (one.train, one.validation, one.target, one.oracle)]
    assert len(set.union(*parts)) == 300 + 300 + 300 + 2000
