"""Schedules against published values and their own ends."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adversarial.schedules import SCHEDULES, burn_in, dann_lambda, dann_lr, ema_decay, scheduled

ENDS = {
    "constant": (1, 1),
    "linear_decay": (1, 0),
    "cosine_decay": (1, 0),
    "linear_growth": (0, 1),
    "dann_lambda": (0, 2 / (1 + math.exp(-10)) - 1),
    "dann_lr": (1, 11**-0.75),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_ends_and_monotony(name):
    """Values between the ends never turn back; beyond the end the last one holds."""
    first, last = ENDS[name]
    assert scheduled(2.0, name, 0, 100) == pytest.approx(2 * first)
    assert scheduled(2.0, name, 100, 100) == pytest.approx(2 * last)
    assert scheduled(2.0, name, 900, 100) == scheduled(2.0, name, 100, 100)
    values = [scheduled(1.0, name, step, 100) for step in range(101)]
    assert values in (sorted(values), sorted(values, reverse=True))


def test_values_of_the_dann_paper():
    """Ganin et al. 2016, section 5.2.2, to the three digits that are published."""
    for p, value in ((0.05, 0.245), (0.1, 0.462), (0.5, 0.987), (1.0, 1.0)):
        assert dann_lambda(p) == pytest.approx(value, abs=5e-4)
    assert 0.01 * dann_lr(0.5) == pytest.approx(0.01 / 6**0.75)


def test_warm_up_is_linear_and_meets_the_schedule():
    assert [scheduled(4.0, "constant", step, 10, warmup=4) for step in range(6)] == [1, 2, 3, 4, 4, 4]
    assert scheduled(1.0, "linear_decay", 4, 10, warmup=4) == scheduled(1.0, "linear_decay", 4, 10)


def test_unknown_schedule():
    with pytest.raises(KeyError):
        scheduled(1.0, "exponential", 0, 1)


def test_burn_in_leads_to_the_end_and_stays_there():
    """R3GAN's learning rate on CIFAR-10: 2e-4 to 5e-5 over 20 million images in batches of 500, half way after half."""
    rate = [burn_in(2e-4, 5e-5, step, 500, 20e6) for step in (0, 10_000, 20_000, 40_000, 10**9)]
    assert rate == pytest.approx([2e-4, 5e-5 + 1.5e-4 * (2 + 2**0.5) / 4, 1.25e-4, 5e-5, 5e-5])


def test_burn_in_also_rises_and_may_be_absent():
    values = [burn_in(0.9, 0.99, step, 1, 50) for step in range(60)]
    assert values == sorted(values)
    assert (values[0], values[-1]) == (pytest.approx(0.9), 0.99)
    assert burn_in(7.0, 3.0, 0, 1, 0) == 3.0


@given(batch=st.integers(1, 512), updates=st.integers(1, 50))
def test_half_of_the_average_is_left_after_a_half_life(batch, updates):
    decays = [ema_decay(step, batch, half_life=batch * updates, ramp_up=0) for step in range(updates)]
    assert math.prod(decays) == pytest.approx(0.5)


def test_ramp_forgets_the_start_sooner_and_ends():
    """With a ramp of 0.05 the half-life is a twentieth of the images seen, until it is the one asked for."""
    assert ema_decay(0, 64, 10_000) == pytest.approx(0.5 ** (1 / 0.05))
    assert ema_decay(99, 64, 10_000) == pytest.approx(0.5 ** (1 / 5))
    assert ema_decay(10**6, 64, 10_000) == ema_decay(10**6, 64, 10_000, ramp_up=0)
    assert ema_decay(5, 64, half_life=0) == 0.0
