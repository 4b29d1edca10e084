"""A metric is a record that says what was measured, in which space, against what."""

import json
import math

import pytest
import torch
from torch import nn

from models import dcgan
from tests.runs import alone
from utils.config.sections import Config
from utils.data.samples import DataSet, Modes, Resident, Streamed
from utils.evaluation import classifier
from utils.evaluation import generation as evaluation
from utils.evaluation.classifier import sha256
from utils.evaluation.generation import evaluate
from utils.evaluation.records import describe
from utils.evaluation.sampling import latents
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
    records = evaluate(Corners(), points, False, LATENT, COUNT, 5, tmp_path)
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
    evaluate(generator, points, True, LATENT, COUNT, 0, tmp_path)
    assert torch.equal(torch.cat(generator.labels), torch.arange(COUNT) % 3)


def test_unconditional_samples_have_no_labels(points, tmp_path):
    generator = Corners()
    evaluate(generator, points, False, LATENT, COUNT, 0, tmp_path)
    assert generator.labels == [None]


def test_no_good_point_is_a_record_and_no_error(points, tmp_path):
    generator = Corners()
    nn.init.constant_(generator.scale, 77.0)
    found = by_name(evaluate(generator, points, False, LATENT, COUNT, 0, tmp_path))
    assert (found["modes"]["value"], found["high quality"]["value"]) == (0, 0)
    assert found["reverse KL"]["value"] is None
    assert "reverse KL: None" in " ".join(describe(list(found.values())))


# --- Images


@pytest.mark.parametrize("conditional", [False, True])
def test_records_of_images(images, tmp_path, conditional):
    generator = picturing(3 if conditional else 0)
    records = evaluate(generator, images, conditional, LATENT, COUNT, 5, tmp_path)
    check_keys(records, seed=5)
    network = classifier.classifier(images, tmp_path / "classifier.safetensors", torch.device("cpu"))
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
    first = evaluate(picturing(), images, False, LATENT, COUNT, 5, tmp_path / "a")
    torch.manual_seed(2)
    assert evaluate(picturing(), images, False, LATENT, COUNT, 5, tmp_path / "b") == first
    other = evaluate(picturing(), images, False, LATENT, COUNT, 6, tmp_path / "a")
    assert by_name(other)["Fréchet distance"]["value"] != by_name(first)["Fréchet distance"]["value"]


def test_the_real_distance_does_not_depend_on_the_generator(images, tmp_path):
    """It is what the distance of a perfect generator would be about: the training split against the held-out one."""
    name = "Fréchet distance of the training split"
    values = {by_name(evaluate(picturing(), images, False, LATENT, n, 0, tmp_path))[name]["value"] for n in (20, 40)}
    assert len(values) == 1


def test_evaluating_needs_no_gradients_and_leaves_none(images, tmp_path):
    generator = picturing().train()
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    with torch.no_grad():
        evaluate(generator, images, False, LATENT, COUNT, 0, tmp_path)
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

    def forward(self, x):
        assert x.shape[1:] == (1, 8, 8)
        bright = x.mean((1, 2, 3))
        return torch.stack([-bright, bright, *[torch.full_like(bright, -9.0)] * 8], dim=1)


def test_records_of_stacked_digits(tmp_path, monkeypatch):
    digits = DataSet("mnist", (1, 8, 8), 10, split(30, 10, 0), split(12, 10, 1))
    stacked = DataSet("stacked_mnist", (3, 8, 8), 1000, Resident(torch.zeros(5, 3, 8, 8), None), None, channel=digits)
    monkeypatch.setattr(evaluation, "classifier", lambda data, folder, device: Shades())
    records = evaluate(Written(), stacked, False, LATENT, COUNT, 5, tmp_path)
    check_keys(records, seed=5)
    found = by_name(records)
    assert found.keys() == {"classifier accuracy", "modes", "reverse KL"}
    count = torch.unique(latents(COUNT, LATENT, 5)[:, :3].sign(), dim=0, return_counts=True)[1] / COUNT
    assert found["modes"]["value"] == len(count)
    assert describe(records)[1] == f"modes: {len(count)} of 1000"
    assert found["reverse KL"]["value"] == pytest.approx(math.log(1000) + float((count * count.log()).sum()), abs=1e-6)
    assert found["classifier accuracy"]["reference"] == "mnist"


# --- Nothing to measure with


def test_sets_without_a_metric_give_no_records(images, tmp_path):
    unlabelled = DataSet("folder", (1, 8, 8), 0, split(30, None, 0), split(12, None, 1))
    no_test = DataSet("folder", (1, 8, 8), 3, images.train, None)
    streamed = DataSet("folder", (1, 8, 8), 3, object.__new__(Streamed), None)
    for data in (unlabelled, no_test, streamed):
        assert evaluate(picturing(), data, False, LATENT, COUNT, 0, tmp_path) == []
    assert list(tmp_path.iterdir()) == []


# --- For people, and in the log


def test_a_line_for_people_each(points, images, tmp_path):
    for records in (
        evaluate(Corners(), points, False, LATENT, COUNT, 0, tmp_path),
        evaluate(picturing(), images, False, LATENT, COUNT, 0, tmp_path),
    ):
        lines = describe(records)
        assert len(lines) == len(records)
        for line, record in zip(lines, records, strict=True):
            assert line.startswith(record["metric"] + ": ")
            assert "\n" not in line


def test_counts_have_no_decimals(points, tmp_path):
    lines = describe(evaluate(Corners(), points, False, LATENT, COUNT, 0, tmp_path))
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
    check_keys(records, seed=5)
    assert {(record["kind"], record["step"], record["weights"]) for record in records} == {("metric", 7, "ema")}
    best = best_records(records)["recognised"]
    assert (best.value, best.step) == (by_name(records)["recognised"]["value"], 7)
