"""What is said of a run's critic, and what a probe finds in features."""

import math

import pytest
import torch
from torch import Tensor

from adversarial.domains import METHODS, Prediction, features
from adversarial.objectives import OBJECTIVES
from models.domain import CriticConfig, Critics
from utils.evaluation import domain_critics
from utils.evaluation.domain_critics import (
    attribute_accuracy,
    attribute_critic_records,
    domain_critic_records,
    train_attribute_probe,
    verdict,
)


@pytest.fixture(autouse=True)
def _same_weights():
    torch.manual_seed(0)


def cloud(n: int, at: float, seed: int) -> Prediction:
    """Features around ``at``."""
    return Prediction((torch.randn(n, 2, generator=torch.Generator().manual_seed(seed)) + at,), torch.zeros(n, 3))


def records(critic: Critics, far: float, objective: str = "minimax", method: str = "dann") -> dict[str, dict]:
    """What is said of a critic where source and target are ``far`` apart."""
    source, target = cloud(400, 0.0, 1), cloud(400, far, 2)
    critic_inputs = METHODS[method].critic_inputs
    return {r["metric"]: r for r in domain_critic_records(critic, critic_inputs, OBJECTIVES[objective], source, target)}


def critic_of(slope: float, offset: float) -> Critics:
    """Scores ``slope`` · relu(x + y) + ``offset``; above 0 is the source."""
    critic = Critics(CriticConfig(critic_width=16, critic_depth=1), [2])
    first, _, last = critic.critics[0]
    with torch.no_grad():
        first.weight.fill_(1.0)
        first.bias.zero_()
        last.weight.fill_(slope / 16)
        last.bias.fill_(offset)
    return critic


def test_a_critic_that_misses_a_difference_is_called_dead():
    record = records(critic_of(0.0, 0.0), far=5.0)["critic accuracy"]
    assert "DEAD" in record["note"]
    assert "optimizer.critic_lr" in record["note"]
    assert record["cross_entropy"] == pytest.approx(0.6931, abs=1e-3)  # log 2


def test_a_critic_that_has_nothing_to_find_is_called_beaten():
    note = records(critic_of(0.0, 0.0), far=0.0)["critic accuracy"]["note"]
    assert "beaten" in note
    assert "DEAD" not in note


def test_a_critic_that_works_is_called_nothing():
    record = records(critic_of(-2.0, 10.0), far=5.0)["critic accuracy"]
    assert "DEAD" not in record["note"]
    assert "beaten" not in record["note"]
    assert record["value"] > 99
    assert record["cross_entropy"] < 0.1


@pytest.mark.parametrize(("objective", "says"), [("minimax", True), ("wasserstein", False), ("relativistic", False)])
def test_only_a_critic_that_learns_cross_entropy_has_a_loss_at_chance(objective, says):
    assert ("loss" in records(critic_of(0.0, 0.0), 5.0, objective)["critic accuracy"]["note"]) == says


def test_a_second_head_has_no_loss_at_chance():
    """MDD's critic: logits over the classes."""
    critic = Critics(CriticConfig(critic_width=16), [2], 3)
    assert "loss" not in records(critic, 5.0, method="mdd")["critic accuracy"]["note"]


def test_accuracy_of_a_critic_is_told_by_side():
    """One that takes everything for the source is right on the source alone."""
    record = records(critic_of(0.0, 1.0), far=5.0)["critic accuracy"]
    assert (record["source"], record["target"], record["value"]) == (100, 0, 50)


def test_without_a_boundary_scores_are_parted_between_both_means():
    """Wasserstein's scores may lie anywhere: these are all above 90."""
    record = records(critic_of(-1.0, 100.0), far=3.0, objective="wasserstein")["critic accuracy"]
    assert min(record["source"], record["target"]) > 95


@pytest.mark.parametrize(("far", "low", "high"), [(5.0, 95, 100), (0.0, 35, 60)])
def test_the_probe_finds_a_difference_that_is_there_and_none_where_there_is_none(far, low, high):
    """It is tested on the 200 samples a side that it has not seen; without a difference 60 % are four deviations."""
    found = records(critic_of(0.0, 0.0), far)
    assert low <= found["probe critic accuracy"]["value"] <= high
    assert (found["proxy A-distance"]["value"] > 1.9) == (far > 0)


def test_the_runs_own_critic_is_left_as_it_is():
    critic = critic_of(0.5, 0.0)
    before = {name: value.clone() for name, value in critic.state_dict().items()}
    records(critic, far=5.0)
    assert all(torch.equal(value, before[name]) for name, value in critic.state_dict().items())


def test_the_probe_is_the_same_for_the_same_features():
    """Features that overlap, so that the last digits depend on where the probe began."""
    values = []
    for seed in range(4):
        torch.manual_seed(seed)
        values.append(records(critic_of(0.0, 0.0), far=0.3)["probe critic accuracy"]["value"])
    assert len(set(values)) == 1


def test_the_probe_has_the_size_of_the_critic_and_weights_of_its_own():
    critic = critic_of(0.5, 0.0)
    probe = domain_critics.fresh(critic)
    shapes = [{name: value.shape for name, value in network.state_dict().items()} for network in (critic, probe)]
    assert shapes[0] == shapes[1]
    assert not any(torch.equal(a, b) for a, b in zip(critic.parameters(), probe.parameters(), strict=True))


def attributes(far: float, seed: int) -> tuple[Prediction, Tensor]:
    """Three attributes at 0, ``far`` and 2 ``far``, 100 samples of each."""
    parts = [cloud(100, i * far, 10 * seed + i).layers[-1] for i in range(3)]
    return Prediction((torch.cat(parts),), torch.zeros(300, 2)), torch.arange(3).repeat_interleave(100)


@pytest.mark.parametrize(("far", "low", "high"), [(5.0, 95, 100), (0.0, 20, 47)])
def test_the_probe_of_an_attribute_finds_it_where_it_is(far, low, high):
    """Without a difference 300 samples are right on 33 % ± four deviations."""
    probe = Critics(CriticConfig(critic_width=16), [2], 3)
    train_attribute_probe(probe, features, *attributes(far, 1))
    right, _ = attribute_accuracy(probe, features, *attributes(far, 2))
    assert low <= right <= high


def test_what_is_said_of_critics_of_an_attribute():
    """A critic that knows nothing (its weights are 0), and a probe that finds everything."""
    critic = Critics(CriticConfig(critic_width=16), [2], 3)
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.zero_()
    own, probe = attribute_critic_records(critic, features, attributes(5.0, 1), attributes(5.0, 2))
    assert not any(bool(parameter.any()) for parameter in critic.parameters()), "the probe is trained, not the critic"
    assert own["loss"] == pytest.approx(math.log(3))
    assert own["value"] == pytest.approx(100 / 3)
    assert "DEAD" in own["note"]
    assert probe["value"] > 95


@pytest.mark.parametrize(
    ("share", "fresh", "word"), [(1.0, 90.0, "DEAD"), (1.0, 26.0, "beaten"), (0.5, 90.0, ""), (0.5, 26.0, "")]
)
def test_the_verdict_over_four_attributes_compares_with_their_chance(share, fresh, word):
    """A critic that knows nothing pays log 4, and is right in 25 % of the cases."""
    said = verdict(share * math.log(4), 4, fresh)
    assert "1.39" in said
    assert [w for w in ("DEAD", "beaten") if w in said] == ([word] if word else [])


def test_a_critic_that_is_worse_than_chance_is_called_overtaken():
    assert "overtaken" in verdict(2.1 * math.log(2), 2, 90.0)
    assert "overtaken" not in verdict(1.9 * math.log(2), 2, 90.0)
