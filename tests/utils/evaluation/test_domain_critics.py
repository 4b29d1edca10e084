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


def test_the_loss_of_a_critic_is_told_beside_that_of_chance():
    record = records(critic_of(0.0, 0.0), far=5.0)["critic accuracy"]
    assert record["note"].endswith(", loss 0.69 (at chance 0.69)")
    assert record["cross_entropy"] == pytest.approx(0.6931, abs=1e-3)  # log 2
    assert record["chance"] == 50
    record = records(critic_of(-2.0, 10.0), far=5.0)["critic accuracy"]
    assert record["value"] > 99
    assert record["cross_entropy"] < 0.1


@pytest.mark.parametrize(("objective", "says"), [("minimax", True), ("wasserstein", False), ("relativistic", False)])
def test_only_a_critic_that_learns_cross_entropy_has_a_loss_at_chance(objective, says):
    assert ("loss" in records(critic_of(0.0, 0.0), 5.0, objective)["critic accuracy"]["note"]) == says


def test_a_second_head_has_no_loss_at_chance():
    """MDD's critic: logits over the classes, so that it has no chance of being right on the domain either."""
    critic = Critics(CriticConfig(critic_width=16), [2], 3)
    record = records(critic, 5.0, method="mdd")["critic accuracy"]
    assert "loss" not in record["note"]
    assert "chance" not in record


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
    assert own["value"] == pytest.approx(100 / 3) == own["chance"]
    assert probe["value"] > 95


def test_chance_is_that_of_the_most_frequent_attribute():
    critic = Critics(CriticConfig(critic_width=16), [2], 3)
    prediction, attribute = attributes(5.0, 1)
    attribute[100:150] = 0
    own, _ = attribute_critic_records(critic, features, (prediction, attribute), (prediction, attribute))
    assert own["chance"] == pytest.approx(100 * 150 / 300)


# --- The verdict


def history(*evaluations: tuple[float, float], chance: float = 50.0, every: int = 500) -> list[dict]:
    """The records of evaluations at which the run's critic and a fresh one were right on so many per cent."""
    found = []
    for step, (own, fresh) in enumerate(evaluations, 1):
        found.append({"metric": "critic accuracy", "value": own, "chance": chance, "step": step * every})
        found.append({"metric": "probe critic accuracy", "value": fresh, "step": step * every})
    return found


LEARNED_NOTHING, BEATEN, WINS = "learned nothing", "is beaten, as it should be", "The critic wins"
NOTHING = "nothing is said"
HISTORIES = {
    LEARNED_NOTHING: [
        [(50, 100)] * 3,
        [(37, 80), (37, 75), (36, 71)],  # the features mislead it
    ],
    BEATEN: [
        [(50, 51)] * 3,
        [(95, 99), (80, 90), (55, 58), (48, 52), (51, 49)],  # it took a while
    ],
    WINS: [
        [(95, 99)] * 3,
        [(50, 99), (91, 99), (93, 99), (99, 99)],
    ],
    NOTHING: [
        [],
        [(50, 100)],
        [(50, 100)] * 2,
        [(67, 92), (66, 92), (57, 95)],  # a game that goes on
        [(90, 92), (52, 95), (55, 92), (51, 95)],  # it had learned: features hide from this one alone
        [(50, 100), (50, 100), (50, 65)],  # features that come closer
        [(50, 51), (50, 75), (50, 51)],  # one evaluation does not agree
        [(95, 99), (80, 99), (95, 99)],
    ],
}  # fmt: skip


@pytest.mark.parametrize(("want", "evaluations"), [(word, each) for word, of in HISTORIES.items() for each in of])
def test_the_verdict_on_a_history(want, evaluations):
    said = verdict(history(*evaluations))
    assert [word for word in (LEARNED_NOTHING, BEATEN, WINS) if word in said] == [want] * (want != NOTHING)
    assert ("optimizer.critic_lr" in said) == (want == LEARNED_NOTHING)
    assert ("update.coefficient" in said) == (want in (LEARNED_NOTHING, WINS))


def test_the_verdict_waits_until_the_critic_had_as_many_steps_as_a_fresh_one():
    """A fresh one has 200: evaluations at every step count from the 200th on, every 200 steps."""
    longest = history(*[(50, 100)] * 600, every=1)
    assert verdict(longest[:-2]) == ""
    assert LEARNED_NOTHING in verdict(longest)


@pytest.mark.parametrize(("own", "fresh", "want"), [(30, 60, LEARNED_NOTHING), (30, 35, BEATEN), (90, 95, WINS)])
def test_the_verdict_over_four_attributes_compares_with_their_chance(own, fresh, want):
    assert want in verdict(history(*[(own, fresh)] * 3, chance=25.0))


def test_a_history_without_chances_says_nothing():
    """That of MDD's critics, or of a version that did not record them."""
    found = history(*[(50, 100)] * 3)
    for record in found:
        record.pop("chance", None)
    assert verdict(found) == ""
