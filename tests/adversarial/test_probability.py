"""The probability of augmentation moves in place, as the papers say, the same however many processes report."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adversarial.penalties import CRITIC, GENERATOR
from adversarial.probability import Adaptive, Scheduled

BOTH = (CRITIC, GENERATOR)


def mean(x):
    return x


def scored(*scores: float) -> dict[str, torch.Tensor]:
    return {"real_score": torch.tensor(scores)}


def test_scheduled_probability_is_that_of_the_next_step():
    probability = Scheduled(lambda step: step / 10)
    p = probability.state["augment_p"]
    assert p.item() == 0
    probability.update(0, (CRITIC,), {}, mean)
    assert p.item() == 0
    probability.update(0, (GENERATOR,), {}, mean)
    assert p.item() == pytest.approx(0.1)
    probability.update(6, BOTH, {}, mean)
    assert p.item() == pytest.approx(0.7)
    assert probability.state["augment_p"] is p


def test_adaptive_probability_follows_the_sign_of_real_scores():
    """Three of four real scores are positive: r = 0.5, below 0.6. With all of them positive r = 1."""
    probability = Adaptive(stride=0.25, every=2)
    p = probability.state["augment_p"]
    told = []
    for step, report in enumerate([scored(1, 2, 3, 4), scored(1, 1), scored(1, 2, 3, -4), scored(5, -1, 1, 1)] * 2):
        probability.update(step, BOTH, report, mean)
        told.append(p.item())
    assert told == [0, 0.25, 0.25, 0, 0, 0.25, 0.25, 0]


def test_adaptive_probability_looks_at_every_critic_step_and_moves_once_a_step():
    probability = Adaptive(stride=0.25, every=1)
    for players, score, want in (((CRITIC,), 1.0, 0), ((CRITIC,), 3.0, 0), ((GENERATOR,), None, 0.25)):
        report = {} if score is None else {"real_score": torch.tensor([score])}
        probability.update(0, players, report, mean)
        assert probability.state["augment_p"].item() == want
    assert probability.state["augment_turns"].item() == 0


def test_adaptive_probability_takes_the_mean_over_processes():
    probability = Adaptive(stride=0.25, every=1)
    probability.update(0, BOTH, scored(1, 1), lambda x: x - 1)  # the other process saw only negative ones
    assert probability.state["augment_p"].item() == 0


@settings(derandomize=True, deadline=None, max_examples=50)
@given(
    scores=st.lists(st.lists(st.floats(-9, 9), min_size=1, max_size=4), min_size=1, max_size=12),
    stride=st.floats(0.001, 2),
    every=st.integers(1, 3),
    target=st.floats(-1, 1),
    boundary=st.floats(-1, 1),
)
def test_adaptive_probability_stays_one(scores, stride, every, target, boundary):
    probability = Adaptive(stride, target, every, boundary)
    for step, batch in enumerate(scores):
        before = probability.state["augment_p"].item()
        probability.update(step, BOTH, scored(*batch), mean)
        after = probability.state["augment_p"].item()
        assert 0 <= after <= 1
        assert abs(after - before) <= stride * (1 + 1e-6) if (step + 1) % every == 0 else after == before
