"""The global random state is a function of names, and restored afterwards."""

import pytest
import torch

from utils.data.randomness import seeded


def test_seeded_restores_the_global_state():
    torch.manual_seed(3)
    want = torch.rand(4)
    torch.manual_seed(3)
    with seeded(0, "initialisation"):
        torch.rand(100)
    assert torch.equal(torch.rand(4), want)


def test_seeded_restores_the_global_state_after_an_error():
    before = torch.random.get_rng_state()
    with pytest.raises(RuntimeError), seeded(0):
        torch.rand(100)
        raise RuntimeError
    assert torch.equal(torch.random.get_rng_state(), before)


def test_inside_seeded_the_numbers_are_a_function_of_the_names():
    seen = []
    for outside in (1, 2):
        torch.manual_seed(outside)
        with seeded(0, "initialisation"):
            seen.append(torch.rand(4))
    assert torch.equal(*seen)
    with seeded(1, "initialisation"):
        assert not torch.equal(torch.rand(4), seen[0])


def test_nested_seeds():
    with seeded(0):
        want = torch.rand(2)
    with seeded(0):
        first = torch.rand(1)
        with seeded(1):
            torch.rand(5)
        assert torch.equal(torch.cat([first, torch.rand(1)]), want)
