"""What a game remembers: in place, as the papers say, the same however many processes report."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adversarial.memory import Adaptive, PathMean, Scheduled, ScoreAverages, start
from adversarial.updates import CRITIC, GENERATOR, Turn

CPU = torch.device("cpu")
BOTH = (CRITIC, GENERATOR)


def mean(x):
    return x


def scored(*scores: float, players=BOTH) -> Turn:
    return Turn(players, {"real_score": torch.tensor(scores)})


def test_scheduled_probability_is_that_of_the_next_step():
    keeper = Scheduled(lambda step: step / 10)
    memory = start([keeper], CPU)
    p = memory["augment_p"]
    assert p.item() == 0
    keeper.update(memory, 0, Turn((CRITIC,), {}), mean)
    assert p.item() == 0
    keeper.update(memory, 0, Turn((GENERATOR,), {}), mean)
    assert p.item() == pytest.approx(0.1)
    keeper.update(memory, 6, Turn(BOTH, {}), mean)
    assert p.item() == pytest.approx(0.7)
    assert memory["augment_p"] is p


def test_adaptive_probability_follows_the_sign_of_real_scores():
    """Three of four real scores are positive: r = 0.5, below 0.6. With all of them positive r = 1."""
    keeper = Adaptive(stride=0.25, every=2)
    memory = start([keeper], CPU)
    p = memory["augment_p"]
    told = []
    for step, turn in enumerate([scored(1, 2, 3, 4), scored(1, 1), scored(1, 2, 3, -4), scored(5, -1, 1, 1)] * 2):
        keeper.update(memory, step, turn, mean)
        told.append(p.item())
    assert told == [0, 0.25, 0.25, 0, 0, 0.25, 0.25, 0]


def test_adaptive_probability_looks_at_every_critic_step_and_moves_once_a_step():
    keeper = Adaptive(stride=0.25, every=1)
    memory = start([keeper], CPU)
    for players, score, want in (((CRITIC,), 1.0, 0), ((CRITIC,), 3.0, 0), ((GENERATOR,), None, 0.25)):
        report = {} if score is None else {"real_score": torch.tensor([score])}
        keeper.update(memory, 0, Turn(players, report), mean)
        assert memory["augment_p"].item() == want
    assert memory["augment_turns"].item() == 0


def test_adaptive_probability_takes_the_mean_over_processes():
    keeper = Adaptive(stride=0.25, every=1)
    memory = start([keeper], CPU)
    keeper.update(memory, 0, scored(1, 1), lambda x: x - 1)  # the other process saw only negative ones
    assert memory["augment_p"].item() == 0


@settings(derandomize=True, deadline=None, max_examples=50)
@given(
    scores=st.lists(st.lists(st.floats(-9, 9), min_size=1, max_size=4), min_size=1, max_size=12),
    stride=st.floats(0.001, 2),
    every=st.integers(1, 3),
    target=st.floats(-1, 1),
    boundary=st.floats(-1, 1),
)
def test_adaptive_probability_stays_one(scores, stride, every, target, boundary):
    keeper = Adaptive(stride, target, every, boundary)
    memory = start([keeper], CPU)
    for step, batch in enumerate(scores):
        before = memory["augment_p"].item()
        keeper.update(memory, step, scored(*batch), mean)
        after = memory["augment_p"].item()
        assert 0 <= after <= 1
        assert abs(after - before) <= stride * (1 + 1e-6) if (step + 1) % every == 0 else after == before


@settings(derandomize=True, deadline=None, max_examples=30)
@given(scores=st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=1, max_size=9))
def test_score_averages_are_averages_from_the_first_step_on(scores):
    """Weighted by 0.99 to the power of their age (in float32)."""
    keeper = ScoreAverages()
    memory = start([keeper], CPU)
    for step, (real, fake) in enumerate(scores):
        report = {"real_score": torch.tensor([real - 1, real + 1]), "fake_score": torch.tensor([fake])}
        keeper.update(memory, step, Turn((CRITIC,), report), mean)
        keeper.update(memory, step, Turn((GENERATOR,), {}), mean)
    weights = [0.99**age for age in range(len(scores))][::-1]
    for i, side in enumerate(("real", "fake")):
        want = sum(w * pair[i] for w, pair in zip(weights, scores, strict=True)) / sum(weights)
        assert (memory[f"lecam_{side}"] / memory["lecam_weight"]).item() == pytest.approx(want, abs=1e-4)


def test_path_mean_follows_the_steps_that_measure_it():
    keeper = PathMean(decay=0.75)
    memory = start([keeper], CPU)
    keeper.update(memory, 0, Turn(BOTH, {"path_length": torch.tensor(4.0)}), mean)
    keeper.update(memory, 1, Turn(BOTH, {}), mean)
    assert memory["path_mean"].item() == 1
    keeper.update(memory, 2, Turn(BOTH, {"path_length": torch.tensor(4.0)}), lambda x: x + 1)
    assert memory["path_mean"].item() == 2
