"""Metrics within classes are the plain ones of each class alone."""

import math

import pytest
import torch

from utils.evaluation.features import Features
from utils.evaluation.metrics import IMAGE_METRICS, Measured
from utils.evaluation.spaces import Space

INTRA = [name for name in IMAGE_METRICS if name.startswith("intra-class ")]
SPACE = Space("none", "0", None, lambda x: (x, None), torch.device("cpu"))
MEANS = torch.tensor([[0.0, 0.0, 0.0], [9.0, 0.0, 0.0], [0.0, 9.0, 0.0]])  # of the three classes


def features(n: int, seed: int, shift: float = 0.0) -> Features:
    """Normal features around the mean of their class, in turn."""
    label = torch.arange(n) % 3
    x = MEANS[label] + torch.randn(n, 3, generator=torch.Generator().manual_seed(seed)) + shift
    return Features(x, None, label)


def measured(made: Features, reference: Features, real: Features | None = None) -> Measured:
    return Measured(SPACE, made, reference, real, reference, None, "held-out")


def of_class(x: Features, k: int) -> Features:
    return x.part((x.label == k).nonzero().flatten())


def values(x: Measured) -> dict[str, float]:
    return {name: IMAGE_METRICS[name].measure(x)["value"] for name in INTRA}


def test_six_metrics_are_measured_within_classes():
    assert len(INTRA) == 6
    assert {name.removeprefix("intra-class ") for name in INTRA} <= IMAGE_METRICS.keys()


@pytest.mark.parametrize("name", INTRA)
def test_within_classes_it_is_the_mean_of_the_plain_metric_of_each(name):
    made, reference, real = features(30, 0, 0.3), features(60, 1), features(31, 2)
    plain = IMAGE_METRICS[name.removeprefix("intra-class ")]
    alone = [plain.measure(measured(*(of_class(x, k) for x in (made, reference, real)))) for k in range(3)]
    found = IMAGE_METRICS[name].measure(measured(made, reference, real))
    assert found["metric"] == name
    assert found["per_class"] == [record["value"] for record in alone]
    assert found["value"] == pytest.approx(sum(found["per_class"]) / 3)
    assert found["real"] == pytest.approx(sum(record["real"] for record in alone) / 3)
    assert found["higher_is_better"] == alone[0]["higher_is_better"]
    assert found["note"] == f"{alone[0]['note']}, mean of 3 classes"
    if "standard_error" in alone[0]:
        assert found["standard_error"] == pytest.approx(math.sqrt(sum(r["standard_error"] ** 2 for r in alone)) / 3)


def test_a_generator_that_confuses_classes_is_seen_within_classes_alone():
    made, reference = features(60, 0), features(60, 1)
    confused = made._replace(label=(made.label + 1) % 3)
    right, wrong = values(measured(made, reference)), values(measured(confused, reference))
    for name in INTRA:
        plain = IMAGE_METRICS[name.removeprefix("intra-class ")].measure
        assert plain(measured(made, reference)) == plain(measured(confused, reference))
        if name.endswith("distance"):
            assert wrong[name] > 10 * abs(right[name])
        else:  # the classes lie nine standard deviations apart
            assert wrong[name] == 0 < 0.5 < right[name]


@pytest.mark.parametrize("name", INTRA)
def test_a_class_of_which_there_are_too_few_has_no_value(name):
    for made, reference, remedy in ((5, 30, "samples"), (30, 5, "reference_samples")):
        found = IMAGE_METRICS[name].measure(measured(features(made, 0), features(reference, 1)))
        assert found["metric"] == name
        assert (found["value"], found["real"]) == (None, None)
        assert found["note"] == f": class 2 has fewer than two images; raise evaluate.{remedy}"
    alone = IMAGE_METRICS[name].measure(measured(features(30, 0), features(30, 1), features(5, 2)))
    assert alone["value"] is not None
    assert alone["real"] is None


def test_the_class_with_the_fewest_images_tells_whether_the_distance_is_biased():
    reference = features(60, 1)
    three = reference.part((reference.label != 1) | (torch.arange(60) < 9))  # of class 1, and 20 of the others
    for given, warned in ((three, True), (reference, False)):
        note = IMAGE_METRICS["intra-class Fréchet distance"].measure(measured(features(60, 0), given))["note"]
        assert ("biased: 3 images for 3 features" in note) == warned
