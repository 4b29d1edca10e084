"""The order of samples is a function of the seed and the position."""

import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st

from utils.data.order import indices_at, permutation


@given(
    seed=st.integers(0, 5),
    n=st.integers(1, 12),
    position=st.integers(0, 40),
    a=st.integers(1, 30),
    b=st.integers(1, 30),
)
def test_two_readings_are_one_longer_reading(seed, n, position, a, b):
    parts = indices_at(seed, n, position, a), indices_at(seed, n, position + a, b)
    assert torch.equal(torch.cat(parts), indices_at(seed, n, position, a + b))


@given(seed=st.integers(0, 5), n=st.integers(1, 12), epoch=st.integers(0, 5))
def test_every_epoch_is_a_permutation(seed, n, epoch):
    assert sorted(indices_at(seed, n, epoch * n, n).tolist()) == list(range(n))


def test_epochs_and_seeds_have_orders_of_their_own():
    n = 50
    orders = [indices_at(seed, n, epoch * n, n) for seed in (0, 1) for epoch in (0, 1, 2)]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(orders, 2))


def test_a_batch_straddles_epochs():
    """No sample is dropped at the end of an epoch: 3 batches of 4 over 6 samples are 2 whole epochs."""
    seen = torch.cat([indices_at(0, 6, position, 4) for position in (0, 4, 8)])
    assert sorted(seen[:6].tolist()) == sorted(seen[6:].tolist()) == list(range(6))


def test_a_batch_longer_than_several_epochs():
    seen = indices_at(0, 3, 1, 11)
    assert len(seen) == 11
    assert torch.equal(seen, indices_at(0, 3, 0, 12)[1:])


def test_a_position_far_into_a_run_needs_no_reading_up_to_it():
    assert sorted(indices_at(0, 7, 7 * 10**15, 7).tolist()) == list(range(7))


def test_the_order_leaves_the_global_generator_alone():
    permutation.cache_clear()
    before = torch.random.get_rng_state()
    indices_at(0, 9, 0, 9)
    assert torch.equal(torch.random.get_rng_state(), before)
