"""Records of a recogniser: what an oracle reports, and accuracy on the source."""

import pytest
import torch
from torch import Tensor, nn

from adversarial.domains import Prediction
from utils.data.domains import Domains
from utils.data.samples import Resident
from utils.evaluation import selection
from utils.evaluation.recognisers import ORACLE, completed, criteria, oracle_records, source_accuracy
from utils.evaluation.records import describe

CLASSES = ("left", "middle", "right")


class Rigged(nn.Module):
    """Reads the class off the first number of a sample."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, *batches: Tensor) -> tuple[Prediction, ...]:
        return tuple(Prediction((x,), nn.functional.one_hot(x[:, 0].long(), 3).float()) for x in batches)


def domains(oracle: Resident | None) -> Domains:
    points = Resident(torch.randn(4, 2), None)
    return Domains("rigged", ("here", "there"), (2,), CLASSES, (), points, points, points, oracle)


def test_accuracy_of_each_class_and_confusion():
    """True left is read rightly in 3 of 4 cases, middle in 1 of 2; there is no true right."""
    read, label = torch.tensor([0, 0, 0, 2, 1, 0]), torch.tensor([0, 0, 0, 0, 1, 1])
    oracle = Resident(torch.stack([read, read], dim=1).float(), label)
    (record,) = oracle_records(Rigged(), domains(oracle))
    assert record["metric"] == ORACLE
    assert record["value"] == pytest.approx(100 * 4 / 6)
    assert record["per_class"] == [75.0, 50.0, 0.0]
    assert record["confusion"] == [[3, 0, 1], [1, 1, 0], [0, 0, 0]], "rows are true classes"
    assert record["class_names"] == list(CLASSES)
    assert (record["samples"], record["oracle"], record["higher_is_better"]) == (6, True, True)
    assert "6 samples of 'there'" in record["note"]


def test_without_target_labels_an_oracle_says_nothing():
    assert oracle_records(Rigged(), domains(None)) == []


def test_accuracy_on_the_source():
    logits = nn.functional.one_hot(torch.tensor([0, 1, 2, 2]), 3).float()
    record = source_accuracy(Prediction((logits,), logits), torch.tensor([0, 1, 2, 0]))
    assert (record["metric"], record["value"], record["unit"]) == ("source accuracy", 75.0, "%")


@pytest.mark.parametrize(("samples", "right", "doubted"), [
    (49, 1.0, "only 49"), (60, 1.0, ""), (60, 0.7, ""), (60, 0.6, "weak"),  # three classes: chance 33 %, half-way 67 %
])  # fmt: skip
def test_a_small_or_weak_source_is_doubted(samples, right, doubted):
    label = torch.arange(samples) % 3
    read = torch.where(torch.arange(samples) < right * samples, label, (label + 1) % 3)
    logits = nn.functional.one_hot(read, 3).float()
    note = source_accuracy(Prediction((logits,), logits), label)["note"]
    assert doubted in note
    assert ("without target labels" in note) == bool(doubted)


@pytest.mark.parametrize(("apart", "usable"), [(0.3, True), (12.0, False)])
def test_weighted_risks_of_domains_that_are_far_apart_are_not_usable(apart, usable):
    """Where the domains hardly overlap, one sample or none carries all the weight."""
    draw = torch.Generator().manual_seed(0)
    x = [torch.randn(200, 2, generator=draw) for _ in range(3)]
    source, train = (Prediction((part,), torch.stack([part[:, 0], -part[:, 0]], dim=1)) for part in x[:2])
    target = Prediction((x[2] + apart,), torch.stack([x[2][:, 0], -x[2][:, 0]], dim=1))
    found = {r["metric"]: r for r in criteria(source, (x[0][:, 1] > 0).long(), target, train)}
    for metric in ("IW risk", "DEV risk"):
        assert (found[metric]["value"] is not None) == usable
        assert ("not usable" in describe([found[metric]])[0]) != usable
        assert (found[metric]["effective_samples"] > 10) or not usable
    assert found["BNM"]["value"] is not None


def test_a_risk_that_no_weighted_mean_of_the_losses_can_be_is_not_usable(monkeypatch):
    """Weights that are worth many samples but do not average to 1: the sum leaves the losses' range."""
    monkeypatch.setattr(selection, "importance_weights", lambda *_: torch.full((60,), 9.0, dtype=torch.float64))
    logits = torch.tensor([[1.0, 0.0]]).repeat(60, 1)
    same = Prediction((logits,), logits)
    found = {r["metric"]: r for r in criteria(same, torch.zeros(60, dtype=torch.long), same, same)}
    assert found["IW risk"]["value"] is None
    assert found["IW risk"]["effective_samples"] == pytest.approx(60)


def test_a_record_keeps_what_it_says_of_its_own_samples():
    first, second = completed([{"samples": 6}, {}], "moons", samples=10, seed=3)
    assert (first["samples"], second["samples"]) == (6, 10)
    assert {(record["reference"], record["seed"]) for record in (first, second)} == {("moons", 3)}
