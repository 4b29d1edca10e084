"""A metric is a record that says what was measured, in which space, against what."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from adversarial.draws import rng
from models import dcgan
from tests.runs import alone
from utils.config.sections import Config, GenerationConfig
from utils.data.samples import DataSet, Modes, Resident
from utils.errors import NotFiniteError, UserError
from utils.evaluation import classifier, features, sampling, spaces
from utils.evaluation import generation as evaluation
from utils.evaluation.classifier import sha256
from utils.evaluation.generation import Settings, evaluate, offered
from utils.evaluation.records import describe
from utils.evaluation.sampling import latents
from utils.evaluation.spaces import Space
from utils.run.ending import best_records
from utils.run.evaluator import Evaluator
from utils.run.folder import RunFolder
from utils.run.log import Log
from utils.run.saver import Saver
from utils.tasks.generation import Generation
from utils.training.players import Players
from utils.training.state import RunState

# What section 3.9 of the design asks for; step and weights are added by who knows them.
KEYS = {
    "metric", "value", "unit", "higher_is_better", "features", "features_sha256", "reference", "split",
    "reference_samples", "samples", "resizer", "truncation", "seed",
}  # fmt: skip
COUNT, LATENT = 40, 4


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr(classifier, "STEPS", 2)


def split(n: int, classes: int | None, seed: int) -> Resident:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, (n, 1, 8, 8), generator=draw, dtype=torch.uint8)
    return Resident(x, None if classes is None else torch.arange(n) % classes)


@pytest.fixture
def images() -> DataSet:
    return DataSet("tiny", (1, 8, 8), 3, split(30, 3, 0), split(12, 3, 1))


@pytest.fixture
def points() -> DataSet:
    modes = Modes(torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, 5.0]]), 0.1)
    x = modes.centres.repeat(4, 1)
    return DataSet("three", (2,), 3, Resident(x, torch.arange(12) % 3), Resident(x, torch.arange(12) % 3), modes)


class Corners(nn.Module):
    """Points at (±1, 0) by the sign of the first latent, or at (label, 0)."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.labels: list = []

    def forward(self, z, label=None):
        self.labels.append(label)
        first = z[:, 0].sign() if label is None else label.float()
        return torch.stack([first * self.scale, torch.zeros(len(z))], dim=1)


def picturing(classes: int = 0) -> dcgan.Generator:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return dcgan.Generator(dcgan.Config(latent_dim=LATENT, generator_width=4), (1, 8, 8), classes)


def measured(
    generator: nn.Module, data: DataSet, folder: Path, conditional: bool = False, count: int = COUNT, seed: int = 5,
    **settings: Any,
) -> list[dict]:  # fmt: skip
    return evaluate(generator, data, Settings(LATENT, count, seed, conditional, **settings), folder)


def by_name(records: list[dict]) -> dict[str, dict]:
    assert len({record["metric"] for record in records}) == len(records)
    return {record["metric"]: record for record in records}


def check_keys(records: list[dict], seed: int) -> None:
    assert records
    for record in records:
        assert record.keys() >= KEYS
        assert isinstance(record["value"], int | float)
        assert isinstance(record["higher_is_better"], bool)
        assert record["samples"] == COUNT
        assert record["seed"] == seed
        assert record["features"]
        assert record["reference"]
        assert record["split"]
        assert json.loads(json.dumps(record)) == record


# --- Points


def test_records_of_points(points, tmp_path):
    records = measured(Corners(), points, tmp_path, False, COUNT, 5)
    check_keys(records, seed=5)
    found = by_name(records)
    assert found.keys() == {"modes", "high quality", "reverse KL"}
    assert found["modes"]["value"] == 2
    assert found["high quality"]["value"] == 100
    assert found["reverse KL"]["value"] >= math.log(3) - math.log(2) - 1e-9  # two modes of three, not quite even
    assert [found[name]["higher_is_better"] for name in found] == [True, True, False]
    assert all(record["reference"] == "three" for record in records)
    assert list(tmp_path.iterdir()) == []


def test_conditional_points_are_drawn_of_every_class(points, tmp_path):
    generator = Corners()
    measured(generator, points, tmp_path, True, COUNT, 0)
    assert torch.equal(torch.cat(generator.labels), torch.arange(COUNT) % 3)


def test_unconditional_samples_have_no_labels(points, tmp_path):
    generator = Corners()
    measured(generator, points, tmp_path, False, COUNT, 0)
    assert generator.labels == [None]


def test_no_good_point_is_a_record_and_no_error(points, tmp_path):
    generator = Corners()
    nn.init.constant_(generator.scale, 77.0)
    found = by_name(measured(generator, points, tmp_path, False, COUNT, 0))
    assert (found["modes"]["value"], found["high quality"]["value"]) == (0, 0)
    assert found["reverse KL"]["value"] is None
    assert "reverse KL: None" in " ".join(describe(list(found.values())))


# --- Images


@pytest.mark.parametrize("conditional", [False, True])
def test_records_of_images(images, tmp_path, conditional):
    generator = picturing(3 if conditional else 0)
    records = measured(generator, images, tmp_path, conditional, COUNT, 5)
    check_keys(records, seed=5)
    network = classifier.classifier(images, tmp_path, torch.device("cpu"))
    for record in records:
        assert "tiny" in record["features"]
        assert record["features_sha256"] == sha256(network)
        assert record["reference"] == "tiny"
        assert record["split"] == "held-out"
        assert record["reference_samples"] == 12
    found = by_name(records)
    assert {"recognised", "rarest class", "Fréchet distance", "classifier accuracy"} <= found.keys()
    assert all(0 <= record["value"] <= 100 for record in records if record["unit"] == "%")
    assert found["Fréchet distance"]["higher_is_better"] is False
    assert found["recognised"]["higher_is_better"] is True


def test_the_same_samples_give_the_same_records(images, tmp_path):
    torch.manual_seed(1)
    first = measured(picturing(), images, tmp_path / "a", False, COUNT, 5)
    torch.manual_seed(2)
    assert measured(picturing(), images, tmp_path / "b", False, COUNT, 5) == first
    other = measured(picturing(), images, tmp_path / "a", False, COUNT, 6)
    assert by_name(other)["Fréchet distance"]["value"] != by_name(first)["Fréchet distance"]["value"]


def test_every_metric_says_what_real_images_get(images, tmp_path):
    """It does not depend on the generator, and a generator that draws the training split gets the same."""
    records = measured(picturing(3), images, tmp_path, True)
    assert all(record["real"] is not None for record in records if record["metric"] != "classifier accuracy")
    seen = [{r["metric"]: r.get("real") for r in measured(picturing(), images, tmp_path, count=n)} for n in (30, 40)]
    assert seen[0] == seen[1]  # there are 30 training images
    repeated = by_name(measured(Repeating(images.train.x), images, tmp_path, count=30))
    for name in ("Fréchet distance", "kernel distance", "precision", "recall", "density", "coverage", "class score"):
        # Features differ in their last bits with the batch, and the roots of eigenvalues near 0 with their roots.
        assert repeated[name]["value"] == pytest.approx(seen[0][name], rel=1e-4, abs=1e-4)


class Repeating(nn.Module):
    """Draws the images that it is given, in the order in which ``real`` ones are chosen."""

    def __init__(self, x: torch.Tensor):
        super().__init__()
        self.x, self.weight = x[torch.randperm(len(x), generator=rng("features", len(x)))], nn.Parameter(torch.ones(1))

    def forward(self, z, label=None):
        return (self.x[: len(z)] / 127.5 - 1) * self.weight


def test_copies_of_training_images_are_called_so(images, tmp_path):
    """Image i for latent i, so that the picture beside its neighbours can be drawn from few of the latents."""

    class Copying(Repeating):
        def forward(self, z, label=None):
            index = (z[:, None] == latents(30, LATENT, 5)).all(2).float().argmax(1)
            return (self.x[index] / 127.5 - 1) * self.weight

    found = by_name(measured(Copying(images.train.x), images, tmp_path, count=30))["nearest training image"]
    assert found["value"] > 90
    assert found["copied"] == (found["z"] > 5)
    shown = evaluation.beside(Copying(images.train.x), images, Settings(LATENT, 30, 5), found["neighbours"])
    assert len(shown) == 2 * 16
    torch.testing.assert_close(*shown.chunk(2))


def test_what_is_measured_is_what_is_saved(images, tmp_path):
    """A generator without tanh may leave [-1, 1], and none stops at whole shades of gray."""

    class Strong(Repeating):
        def forward(self, z, label=None):
            x = super().forward(z, label)
            return x + x.sign() * (x.abs() == 1) * 3 + 0.4 / 127.5 * (x.abs() < 1)

    whole, strong = Repeating(images.train.x), Strong(images.train.x)
    strong.x = whole.x = torch.where(whole.x < 20, 0, torch.where(whole.x > 235, 255, whole.x))
    assert measured(strong, images, tmp_path, count=30) == measured(whole, images, tmp_path, count=30)


def test_what_is_not_finite_is_an_error(images, tmp_path):
    broken = Repeating(images.train.x)
    nn.init.constant_(broken.weight, math.nan)
    with pytest.raises(NotFiniteError, match="NaN or infinite pixels"):
        measured(broken, images, tmp_path)


def test_the_batches_do_not_matter(images, tmp_path, monkeypatch):
    want = by_name(measured(picturing(), images, tmp_path / "a"))
    monkeypatch.setattr(sampling, "BATCH", 7)
    monkeypatch.setattr(features, "AT_ONCE", 3)
    found = by_name(measured(picturing(), images, tmp_path / "b"))
    for name, record in want.items():
        # float32 features: 1e-6 relative in each, and roots of eigenvalues near 0.
        assert found[name]["value"] == pytest.approx(record["value"], rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("features", ["auto", "classifier", "lite0"])
def test_what_is_offered_is_what_is_measured(images, points, tmp_path, features):
    for data, generator, conditional in (
        (images, picturing(), False), (images, picturing(3), True), (points, Corners(), False),
    ):  # fmt: skip
        settings = Settings(LATENT, 9, 0, conditional, features=features)
        found = by_name(evaluate(generator, data, settings, tmp_path))
        assert [name for name in found if name != "classifier accuracy"] == list(offered(data, settings))
        assert set(offered(data, settings)) <= {*GenerationConfig.metrics, "nearest training image"}


def test_a_class_of_which_there_are_too_few_has_no_distance(images, tmp_path):
    found = by_name(measured(picturing(3), images, tmp_path, True, count=5))["intra-class Fréchet distance"]
    assert found["value"] is None
    assert "class 2 has fewer than two images; raise evaluate.samples" in found["note"]


def test_the_reference_may_be_the_training_split(images, tmp_path):
    found = by_name(measured(picturing(), images, tmp_path, reference="training"))["Fréchet distance"]
    assert (found["split"], found["reference_samples"]) == ("training", 30)
    found = by_name(measured(picturing(), images, tmp_path, reference_samples=8))["Fréchet distance"]
    assert (found["split"], found["reference_samples"]) == ("held-out", 8)


def test_images_without_a_held_out_split_are_compared_with_the_training_split(images, tmp_path):
    unlabelled = DataSet("folder", (1, 8, 8), 0, split(30, None, 0), None)
    records = measured(picturing(), unlabelled, tmp_path)
    check_keys(records, seed=5)
    assert {(r["features"], r["split"], r["real"]) for r in records if r["metric"] != "class score"} == {
        ("EfficientNet-Lite0, ImageNet", "training", None)
    }
    assert "biased: 30 images for 1280 features" in by_name(records)["Fréchet distance"]["note"]


def test_what_would_stop_an_evaluation_is_refused_before(images, tmp_path):
    cpu = torch.device("cpu")
    one = DataSet("folder", (1, 8, 8), 0, split(30, None, 0), split(1, None, 1))
    with pytest.raises(UserError, match="'folder' has 1 image, and metrics need at least 2"):
        evaluation.check(one, Settings(LATENT, 9, 0), tmp_path, cpu)
    evaluation.check(one, Settings(LATENT, 9, 0, reference="training"), tmp_path, cpu)
    no_test = DataSet("folder", (1, 8, 8), 3, images.train, None)
    with pytest.raises(UserError, match=r"evaluate\.reference=held-out, and data set 'folder' has no held-out split"):
        evaluation.check(no_test, Settings(LATENT, 9, 0, reference="held-out"), tmp_path, cpu)
    with pytest.raises(UserError, match=r"evaluate\.features=classifier needs labels"):
        evaluation.check(no_test, Settings(LATENT, 9, 0, features="classifier"), tmp_path, cpu)
    evaluation.check(images, Settings(LATENT, 9, 0), tmp_path, cpu)
    assert list(tmp_path.iterdir()) == []


def test_published_names_are_for_what_is_published(images, tmp_path, monkeypatch):
    """Inception's features, the whole training split and enough samples; one of them missing, and it is no FID."""

    def published(request):
        return Space("Inception", "0", None, lambda x: (x.flatten(1).float(), None), request.device, published=True)

    monkeypatch.setitem(spaces.SPACES, "dinov2", published)  # names no classes: fewer metrics
    monkeypatch.setattr(evaluation, "PUBLISHED_SAMPLES", COUNT)
    whole = {"features": "dinov2", "reference": "training"}
    assert {"FID", "KID"} <= by_name(measured(picturing(), images, tmp_path, **whole)).keys()
    for less in ({"count": COUNT - 1}, {"reference": "held-out"}, {"reference_samples": 29}, {"features": "lite0"}):
        assert not {"FID", "KID"} & by_name(measured(picturing(), images, tmp_path, **{**whole, **less})).keys()


def test_evaluating_needs_no_gradients_and_leaves_none(images, tmp_path):
    generator = picturing().train()
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    with torch.no_grad():
        measured(generator, images, tmp_path, False, COUNT, 0)
    assert generator.training
    assert all(p.grad is None for p in generator.parameters())
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())


# --- Stacked digits


class Written(nn.Module):
    """Each channel is a shade, dark or bright by the sign of a latent: there are eight triples of digits 0 and 1."""

    def __init__(self):
        super().__init__()
        self.shade = nn.Parameter(torch.tensor(1.0))

    def forward(self, z, label=None):
        return (z[:, :3].sign() * self.shade)[:, :, None, None].expand(-1, -1, 8, 8)


class Shades(nn.Module):
    """Reads a dark image as 0 and a bright one as 1."""

    def features(self, x):
        assert x.shape[1:] == (1, 8, 8)
        return x.mean((1, 2, 3))[:, None]

    def logits(self, bright):
        return torch.cat([-bright, bright, torch.full_like(bright, -9.0).expand(-1, 8)], dim=1)


def test_records_of_stacked_digits(tmp_path, monkeypatch):
    digits = DataSet("mnist", (1, 8, 8), 10, split(30, 10, 0), split(12, 10, 1))
    stacked = DataSet("stacked_mnist", (3, 8, 8), 1000, Resident(torch.zeros(5, 3, 8, 8), None), None, channel=digits)
    monkeypatch.setattr(spaces, "classifier", lambda data, folder, device: Shades())
    records = measured(Written(), stacked, tmp_path, False, COUNT, 5)
    check_keys(records, seed=5)
    found = by_name(records)
    assert found.keys() == {"classifier accuracy", "modes", "reverse KL"}
    count = torch.unique(latents(COUNT, LATENT, 5)[:, :3].sign(), dim=0, return_counts=True)[1] / COUNT
    assert found["modes"]["value"] == len(count)
    assert describe(records)[1] == f"modes: {len(count)} of 1000"
    assert found["reverse KL"]["value"] == pytest.approx(math.log(1000) + float((count * count.log()).sum()), abs=1e-6)
    assert found["classifier accuracy"]["reference"] == "mnist"


# --- For people, and in the log


def test_a_line_for_people_each(points, images, tmp_path):
    for records in (
        measured(Corners(), points, tmp_path, False, COUNT, 0),
        measured(picturing(), images, tmp_path, False, COUNT, 0),
    ):
        lines = describe(records)
        assert len(lines) == len(records)
        for line, record in zip(lines, records, strict=True):
            assert line.startswith(record["metric"] + ": ")
            assert "\n" not in line


def test_counts_have_no_decimals(points, tmp_path):
    lines = describe(measured(Corners(), points, tmp_path, False, COUNT, 0))
    assert lines[0] == "modes: 2 of 3"


def test_a_line_of_the_log_says_the_step_and_the_weights_too(images, tmp_path):
    config = Config()
    config.run.dir, config.run.name = str(tmp_path), "a"
    config.model = dcgan.Config(latent_dim=LATENT, generator_width=4, critic_width=4)
    config.evaluate.samples, config.seed = COUNT, 5
    folder = RunFolder.of(config)
    folder.path.mkdir()
    task = Generation()
    players = Players.build(config, *task.networks(config, task.sizes(images)), torch.device("cpu"))
    state = RunState(0)
    with Log(folder, 0) as log, Saver(config, folder, players, state, "", True) as saver:
        Evaluator(config, task, images, players, log, saver, alone()).evaluate(7)
    records = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    of_critic = [record for record in records if record["metric"] == "critic overfitting"]
    assert len(of_critic) == 1  # which has no value yet where the critic prefers generated images
    check_keys([record for record in records if record not in of_critic], seed=5)
    assert {(record["kind"], record["step"], record["weights"]) for record in records} == {("metric", 7, "ema")}
    best = best_records(records)["recognised"]
    assert (best.value, best.step) == (by_name(records)["recognised"]["value"], 7)
