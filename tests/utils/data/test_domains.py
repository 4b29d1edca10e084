"""Domains: which samples train, validate and report."""

import torch

from utils.data.domains import load
from utils.data.points import Points


def test_only_the_upper_bound_trains_on_the_target():
    data, bound = load(Points("moons"), 0), load(Points("moons"), 0, target_only=True)
    assert torch.equal(bound.train.x, data.target.x)
    assert torch.equal(bound.validation.x, data.oracle.x)
    assert not torch.equal(data.train.x, data.target.x)
    assert bound.train.label is not None
    assert bound.target.label is None
    assert bound.sides == ("turned moons", "turned moons")
