"""Around the games of domains: what recognisers see, what an oracle reports, and what is said of critics."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from adversarial import games
from adversarial.games import Recognition
from models import dense
from models.domain import CriticConfig, Critics, Recogniser, SplitRecogniser
from tests.runs import ROOT
from utils.config import loading as config
from utils.data.datasets import DataConfig, Files, Resident, Streamed
from utils.data.domains import Domains
from utils.errors import UserError
from utils.tasks import recognition
from utils.tasks.recognition import ORACLE, Adaptation, Invariance, Seen, see, some

CLASSES = ("left", "middle", "right")


@pytest.fixture(autouse=True)
def _same_weights():
    torch.manual_seed(0)


def recogniser(width: int = 5) -> Recogniser:
    return Recogniser(dense.Features(dense.Config(width=width, depth=2), (2,)), 3)


def points(n: int, label: Tensor | None = None) -> Resident:
    return Resident(torch.randn(n, 2), label)


# --- What a recogniser sees


def test_every_sample_is_seen_once_and_in_order():
    network, samples = recogniser(), points(2 * recognition.BATCH + 3)
    seen = see(network, samples, games.features)
    network.eval()
    with torch.no_grad():
        (whole,) = network(samples.x)
    assert torch.allclose(seen.features, whole.layers[-1], atol=1e-6)  # float32: batches may sum in another order
    assert torch.allclose(seen.logits, whole.logits, atol=1e-6)
    assert torch.equal(seen.view.samples[0], seen.features)
    assert seen.samples is samples


def test_pixels_are_brought_to_where_training_has_them():
    """uint8 0 and 255 are -1 and 1 to the network, as in training."""
    network = Recogniser(dense.Features(dense.Config(width=4), (1, 2, 2)), 3)
    x = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 1, 2, 2)
    logits = see(network, Resident(x, None), games.features).logits
    (expected,) = network(torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, 2, 2))
    assert torch.allclose(logits, expected.logits, atol=1e-6)  # float32


@pytest.mark.parametrize("source", [True, False])
def test_the_source_is_seen_by_its_own_network_where_there_is_one(source):
    split, samples = SplitRecogniser(recogniser()), points(7)
    with torch.no_grad():
        split.features.layers[0][0].weight.zero_()
    network = split.source if source else split.features
    assert torch.equal(see(split, samples, games.features, source).features, network(samples.x)[-1])
    assert not torch.equal(split.source(samples.x)[-1], split.features(samples.x)[-1])


def test_seeing_is_in_evaluation_mode_and_leaves_the_mode_as_it_was():
    network = Recogniser(dense.Features(dense.Config(width=5), (2,)), 3)
    network.features.layers.append(nn.Dropout(0.5))
    samples = points(20)
    for training in (True, False):
        network.train(training)
        first, second = (see(network, samples, games.features) for _ in range(2))
        assert torch.equal(first.features, second.features)
        assert network.training == training


def test_a_file_that_cannot_be_read_is_raised(tmp_path):
    (tmp_path / "0.png").write_bytes(b"junk")
    files = Files(str(tmp_path), ["0.png"], lambda root, name: Path(root, name).read_bytes())
    with pytest.raises(UserError, match=r"'0.png'"):
        see(recogniser(), Streamed(files, None, 3, DataConfig()), games.features)


def test_some_samples_are_always_the_same_ones():
    samples = Resident(torch.arange(100.0)[:, None], torch.arange(100), torch.arange(100))
    chosen, again = some(samples, 30), some(samples, 30)
    assert torch.equal(chosen.x, again.x)
    assert len(chosen.x.unique()) == 30
    assert chosen.label.tolist() == chosen.attribute.tolist() == chosen.x[:, 0].tolist()
    assert chosen.label.tolist() != list(range(30)), "not the first ones: files are sorted by class"
    assert some(samples, 100) is samples


# --- The oracle


class Rigged(nn.Module):
    """Reads the class off the first number of a sample."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, *batches: Tensor) -> tuple[Recognition, ...]:
        return tuple(Recognition((x,), nn.functional.one_hot(x[:, 0].long(), 3).float()) for x in batches)


def domains(oracle: Resident | None) -> Domains:
    return Domains("rigged", ("here", "there"), (2,), CLASSES, (), points(4), points(4), points(4), oracle)


def test_accuracy_of_each_class_and_confusion():
    """True left is read rightly in 3 of 4 cases, middle in 1 of 2; there is no true right."""
    read, label = torch.tensor([0, 0, 0, 2, 1, 0]), torch.tensor([0, 0, 0, 0, 1, 1])
    oracle = Resident(torch.stack([read, read], dim=1).float(), label)
    (record,) = recognition._oracle(Rigged(), domains(oracle))
    assert record["metric"] == ORACLE
    assert record["value"] == pytest.approx(100 * 4 / 6)
    assert record["per_class"] == [75.0, 50.0, 0.0]
    assert record["confusion"] == [[3, 0, 1], [1, 1, 0], [0, 0, 0]], "rows are true classes"
    assert record["class_names"] == list(CLASSES)
    assert (record["samples"], record["oracle"], record["higher_is_better"]) == (6, True, True)
    assert "6 samples of 'there'" in record["note"]


def test_without_target_labels_an_oracle_says_nothing():
    assert recognition._oracle(Rigged(), domains(None)) == []


# --- Critics and probes


def cloud(n: int, at: float, seed: int) -> Seen:
    """Features around ``at``."""
    features = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed)) + at
    logits = torch.zeros(n, 3)
    return Seen(games.features(Recognition((features,), logits)), features, logits, points(n))


def rivals(critic: nn.Module, far: float) -> dict[str, dict]:
    """What is said of a critic where source and target are ``far`` apart."""
    cfg = config.load(ROOT / "configs/moons.yaml", ["model.critic_width=16", "model.critic_depth=1"])
    players = SimpleNamespace(critic=critic, generator=SimpleNamespace(features=SimpleNamespace(sizes=[2])))
    source, target = cloud(400, 0.0, 1), cloud(400, far, 2)
    return {r["metric"]: r for r in Adaptation().rivals(cfg, players, domains(None), source, target)}


def linear_critic(slope: float, offset: float) -> Critics:
    """Scores ``slope`` · (x + y) + ``offset``; above 0 is the source."""
    critic = Critics(CriticConfig(critic_depth=0), [2])
    with torch.no_grad():
        critic.critics[0][0].weight.fill_(slope)
        critic.critics[0][0].bias.fill_(offset)
    return critic


def test_a_critic_that_misses_a_difference_is_called_dead():
    record = rivals(linear_critic(0.0, 0.0), far=5.0)["critic accuracy"]
    assert "DEAD" in record["note"]
    assert "optimizer.critic_lr" in record["note"]
    assert record["cross_entropy"] == pytest.approx(0.6931, abs=1e-3)  # log 2


def test_a_critic_that_has_nothing_to_find_is_called_beaten():
    note = rivals(linear_critic(0.0, 0.0), far=0.0)["critic accuracy"]["note"]
    assert "beaten" in note
    assert "DEAD" not in note


def test_a_critic_that_works_is_called_nothing():
    record = rivals(linear_critic(-2.0, 10.0), far=5.0)["critic accuracy"]
    assert "DEAD" not in record["note"]
    assert "beaten" not in record["note"]
    assert record["value"] > 99
    assert record["cross_entropy"] < 0.1


def test_accuracy_of_a_critic_is_told_by_side():
    """One that takes everything for the source is right on the source alone."""
    record = rivals(linear_critic(0.0, 1.0), far=5.0)["critic accuracy"]
    assert (record["source"], record["target"], record["value"]) == (100, 0, 50)


@pytest.mark.parametrize(("far", "low", "high"), [(5.0, 95, 100), (0.0, 35, 60)])
def test_the_probe_finds_a_difference_that_is_there_and_none_where_there_is_none(far, low, high):
    """It is tested on the 200 samples a side that it has not seen; without a difference 60 % are four deviations."""
    records = rivals(linear_critic(0.0, 0.0), far)
    assert low <= records["probe critic accuracy"]["value"] <= high
    assert (records["proxy A-distance"]["value"] > 1.9) == (far > 0)


def test_the_runs_own_critic_is_left_as_it_is():
    critic = linear_critic(0.5, 0.0)
    before = {name: value.clone() for name, value in critic.state_dict().items()}
    rivals(critic, far=5.0)
    assert all(torch.equal(value, before[name]) for name, value in critic.state_dict().items())


def test_the_probe_is_the_same_for_the_same_features():
    """Features that overlap, so that the last digits depend on where the probe began."""
    values = []
    for seed in range(4):
        torch.manual_seed(seed)
        values.append(rivals(linear_critic(0.0, 0.0), far=0.3)["probe critic accuracy"]["value"])
    assert len(set(values)) == 1


@pytest.mark.parametrize(("far", "low", "high"), [(5.0, 95, 100), (0.0, 20, 47)])
def test_the_probe_of_an_attribute_finds_it_where_it_is(far, low, high):
    """Three attributes at 0, far and 2 far; without a difference 300 samples are right on 33 % ± four deviations."""

    def view(seed: int) -> games.View:
        parts = [cloud(100, i * far, 10 * seed + i).features for i in range(3)]
        return games.features(Recognition((torch.cat(parts),), torch.zeros(300, 2)))

    attribute = torch.arange(3).repeat_interleave(100)
    probe = Critics(CriticConfig(critic_width=16), [2], 3)
    recognition._train_attribute_probe(probe, view(1), attribute)
    right, _ = recognition._attribute_accuracy(probe, view(2), attribute)
    assert low <= right <= high


@pytest.mark.parametrize(
    ("share", "fresh", "word"), [(1.0, 90.0, "DEAD"), (1.0, 26.0, "beaten"), (0.5, 90.0, ""), (0.5, 26.0, "")]
)
def test_the_verdict_over_four_attributes_compares_with_their_chance(share, fresh, word):
    """A critic that knows nothing pays log 4, and is right in 25 % of the cases."""
    said = recognition.verdict(share * math.log(4), 4, fresh)
    assert "1.39" in said
    assert [w for w in ("DEAD", "beaten") if w in said] == ([word] if word else [])


# --- Settings


def test_every_method_gives_as_many_critics_as_it_has_views():
    entries = {"layers": 2, "mada": 3}
    for method in recognition.METHODS:
        words = [f"game.method={method}", "model.depth=2", "model.width=5"]
        words += ["game.pretrained=runs/former"] if method == "adda" else []
        cfg = config.load(ROOT / "configs/moons.yaml", words)
        sizes = {"shape": (2,), "classes": 3, "outputs": 1}
        generator, critic = Adaptation().networks(cfg, sizes)
        assert len(critic.critics) == entries.get(method, 1)
        assert isinstance(generator, SplitRecogniser) == (method == "adda")
        assert critic.single == (method != "mdd")
        width = 15 if method.startswith("cdan") else 5
        assert critic.critics[-1][0].in_features == width


def test_invariance_needs_two_attributes():
    cfg = config.load(ROOT / "configs/moons.yaml", ["game.name=invariance", "penalty.r2=0"])
    with pytest.raises(UserError, match=r"data\.name=moons gives 0; join domains"):
        Invariance().load(cfg)
