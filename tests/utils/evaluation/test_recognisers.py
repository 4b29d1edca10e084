"""Records of a recogniser: what an oracle reports, and accuracy on the source."""

import pytest
import torch
from torch import Tensor, nn

from adversarial.domains import Prediction
from utils.data.domains import Domains
from utils.data.samples import Resident
from utils.evaluation.recognisers import ORACLE, completed, oracle_records, source_accuracy

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


def test_a_record_keeps_what_it_says_of_its_own_samples():
    first, second = completed([{"samples": 6}, {}], "moons", samples=10, seed=3)
    assert (first["samples"], second["samples"]) == (6, 10)
    assert {(record["reference"], record["seed"]) for record in (first, second)} == {("moons", 3)}
