"""Networks of domain-adversarial games: recognisers, the split one of ADDA, critics, and the families of features."""

import copy
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from models import dense, lenet, resnet
from models.domain import NORMS, CriticConfig, Critics, Recogniser, SplitRecogniser, split_tensors

FAMILIES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "dense on vectors": (lambda: dense.Features(dense.Config(width=5, depth=3), (7,)), (7,)),
    "dense on images": (lambda: dense.Features(dense.Config(width=5, activation="tanh"), (2, 4, 4)), (2, 4, 4)),
    "lenet on 8 pixels": (lambda: lenet.Features(lenet.Config(channels=4, width=6), (1, 8, 8)), (1, 8, 8)),
    "lenet on 27 pixels": (lambda: lenet.Features(lenet.Config(channels=4, width=6), (3, 27, 27)), (3, 27, 27)),
    "lenet on 28 pixels": (lambda: lenet.Features(lenet.Config(channels=4, width=6), (1, 28, 28)), (1, 28, 28)),
    "lenet on 64 pixels": (lambda: lenet.Features(lenet.Config(channels=2, width=6), (3, 64, 64)), (3, 64, 64)),
    "resnet18": (lambda: resnet.Features(resnet.Config(network="resnet18", width=9), (3, 32, 32)), (3, 32, 32)),
}


@pytest.fixture(autouse=True)
def _same_weights():
    torch.manual_seed(0)


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_have_the_sizes_that_are_declared(family):
    make, shape = FAMILIES[family]
    features = make()
    assert [tuple(layer.shape) for layer in features(torch.randn(4, *shape))] == [(4, d) for d in features.sizes]


def test_published_sizes():
    """LeNet of Long et al. 2018 on 28 pixels: 20 and 50 maps of 12² and 4², then 500; ResNet-50: 256."""
    assert lenet.Features(lenet.Config(), (1, 28, 28)).sizes == [20 * 12 * 12, 50 * 4 * 4, 500]
    with torch.device("meta"):  # sizes alone: no weights are drawn
        assert resnet.Features(resnet.Config(), (3, 224, 224)).sizes == [256, 512, 1024, 2048, 256]


def test_each_dense_layer_continues_the_one_before():
    features = dense.Features(dense.Config(width=5, depth=3, activation="sigmoid"), (7,))
    x = torch.randn(4, 7)
    first, second, third = features(x)
    assert torch.equal(second, features.layers[1](first))
    assert torch.equal(third, features.layers[2](second))
    assert 0 < third.min() < third.max() < 1


def test_dropout_is_for_training_alone():
    features = lenet.Features(lenet.Config(channels=2, width=50), (1, 8, 8))
    x = torch.randn(4, 1, 8, 8)
    assert not torch.equal(features(x)[-1], features(x)[-1])
    features.eval()
    assert torch.equal(features(x)[-1], features(x)[-1])


def test_resnet_normalises_images_as_imagenet_weights_expect():
    """An image of ImageNet's mean colour, in [-1, 1] as everywhere here, is black to the network: zero."""
    features = resnet.Features(resnet.Config(network="resnet18"), (3, 32, 32))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    for units in (0.0, 1.0):
        seen = features.normalise(2 * (mean + units * std).expand(3, 4, 4) - 1)
        assert torch.allclose(seen, torch.full((3, 4, 4), units), atol=1e-6)  # float32


@pytest.mark.parametrize("family", ["dense on vectors", "lenet on 8 pixels", "resnet18"])
def test_two_batches_together_give_what_each_gives_alone(family):
    make, shape = FAMILIES[family]
    recogniser = Recogniser(make(), 3).eval()
    a, b = torch.randn(5, *shape), torch.randn(2, *shape)
    together = recogniser(a, b)
    assert [len(prediction.logits) for prediction in together] == [5, 2]
    for prediction, x in zip(together, (a, b), strict=True):
        (alone,) = recogniser(x)
        assert prediction.logits.shape == (len(x), 3)
        for one, other in zip((*prediction.layers, prediction.logits), (*alone.layers, alone.logits), strict=True):
            assert torch.allclose(one, other, atol=1e-5)  # float32: another batch size may sum in another order


def test_logits_are_those_of_the_last_layer():
    recogniser = Recogniser(dense.Features(dense.Config(width=5, depth=2), (7,)), 3)
    (prediction,) = recogniser(torch.randn(4, 7))
    assert torch.equal(prediction.logits, recogniser.head(prediction.layers[-1]))


def test_a_shared_network_predicts_source_samples_as_any_others():
    recogniser = Recogniser(dense.Features(dense.Config(width=5, depth=2), (7,)), 3)
    x = torch.randn(4, 7)
    assert torch.equal(recogniser.predict_source(x).logits, recogniser(x)[0].logits)


# --- ADDA


class Normalised(nn.Module):
    """Features with batch statistics, which evaluation mode must protect."""

    sizes = (4,)

    def __init__(self):
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))

    def forward(self, x):
        return [self.layer(x)]


@pytest.fixture
def split() -> SplitRecogniser:
    return SplitRecogniser(Recogniser(Normalised(), 2))


def test_the_sources_side_and_the_head_stay_as_they_are(split):
    before = copy.deepcopy(split.state_dict())
    split.train()
    optimizer = torch.optim.SGD([p for p in split.parameters() if p.requires_grad], 0.1)
    for _ in range(3):
        source, target = split(torch.randn(8, 3), torch.randn(8, 3))
        assert not source.logits.requires_grad
        optimizer.zero_grad()
        target.logits.square().sum().backward()
        optimizer.step()
    moved = {name for name, value in split.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if name.startswith("features.")}


def test_the_sources_side_is_always_in_evaluation_mode(split):
    split.train()
    assert split.features.training
    assert not any(module.training for module in split.source.modules())
    split.eval()
    assert not split.features.training


def test_one_batch_is_the_targets_and_the_first_of_two_is_the_sources(split):
    nn.init.zeros_(split.features.layer[0].weight)
    split.eval()
    x = torch.randn(4, 3)
    (target,) = split(x)
    both = split(x, x)
    assert torch.equal(target.layers[0], split.features(x)[0])
    assert torch.equal(both[1].layers[0], target.layers[0])
    assert torch.equal(both[0].layers[0], split.source(x)[0])
    assert not torch.equal(*(prediction.logits for prediction in both))
    alone = split.predict_source(x)
    assert torch.equal(alone.layers[0], both[0].layers[0])
    assert torch.equal(alone.logits, both[0].logits)


def test_both_sides_start_from_what_was_trained_on_the_source(split):
    trained = Recogniser(Normalised(), 2).eval()
    trained.features.layer[1].running_mean += 1  # statistics are taken over, too
    split.load_state_dict(split_tensors(trained.state_dict()))
    split.eval()
    x = torch.randn(4, 3)
    for prediction in split(x, x):
        assert torch.equal(prediction.logits, trained(x)[0].logits)
    assert not any(p.requires_grad for p in [*split.source.parameters(), *split.head.parameters()])


# --- Critics


@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest.mark.parametrize("norm", NORMS)
def test_a_critic_for_each_input_gives_a_score_or_logits_per_sample(norm, depth):
    config = CriticConfig(critic_width=8, critic_depth=depth, critic_norm=norm)
    samples = torch.randn(5, 3), torch.randn(5, 7)
    assert [score.shape for score in Critics(config, [3, 7])(*samples)] == [(5,), (5,)]
    assert [logits.shape for logits in Critics(config, [3, 7], 4)(*samples)] == [(5, 4), (5, 4)]


@pytest.mark.parametrize("outputs", [1, 4])
def test_size_of_a_critic(outputs):
    config = CriticConfig(critic_width=8, critic_depth=2)
    count = sum(p.numel() for p in Critics(config, [3], outputs).parameters())
    assert count == (3 * 8 + 8) + (8 * 8 + 8) + (8 * outputs + outputs)


@pytest.mark.parametrize("outputs", [1, 4])
def test_fresh_critics_are_of_the_same_sizes_with_other_weights(outputs):
    critics = Critics(CriticConfig(critic_width=8, critic_depth=2, critic_norm="batch"), [3, 5], outputs)
    fresh, samples = critics.fresh(), (torch.randn(4, 3), torch.randn(4, 5))
    assert str(fresh) == str(critics)
    assert [x.shape for x in fresh(*samples)] == [x.shape for x in critics(*samples)]
    assert not torch.equal(critics.critics[1][0].weight, fresh.critics[1][0].weight)


def test_norms_are_where_they_are_asked_for():
    def of(norm: str) -> Critics:
        return Critics(CriticConfig(critic_width=8, critic_depth=2, critic_norm=norm), [3])

    count = {norm: sum(isinstance(m, nn.BatchNorm1d) for m in of(norm).modules()) for norm in NORMS}
    assert count == {"none": 0, "batch": 2, "spectral": 0}
    critic = of("spectral")
    for _ in range(200):  # power iterations, one a forward
        critic(torch.randn(2, 3))
    critic.eval()
    for layer in [m for m in critic.modules() if isinstance(m, nn.Linear)]:
        assert torch.linalg.matrix_norm(layer.weight, 2).item() == pytest.approx(1, abs=1e-3)


def test_only_batch_norm_couples_samples():
    x = torch.randn(4, 3)
    for norm in NORMS:
        critic = Critics(CriticConfig(critic_width=8, critic_norm=norm), [3]).train()
        with torch.no_grad():
            if norm == "spectral":
                critic.eval()  # its power iteration moves with every forward, not with the samples
            same = torch.allclose(critic(x)[0][:2], critic(x[:2])[0], atol=1e-6)  # float32
        assert same == (norm != "batch")


# --- What they refuse

WRONG = {
    "activation": (lambda: dense.Features(dense.Config(activation="gelu"), (2,)), "'gelu' is unknown; valid are: relu"),
    "few pixels": (lambda: lenet.Features(lenet.Config(), (1, 7, 7)), "8 to 64 pixels.*7, 7"),
    "many pixels": (lambda: lenet.Features(lenet.Config(), (1, 65, 65)), "8 to 64 pixels.*65, 65"),
    "not square": (lambda: lenet.Features(lenet.Config(), (1, 16, 32)), "square.*16, 32"),
    "vectors": (lambda: lenet.Features(lenet.Config(), (16,)), "square images"),
    "dropout of all": (lambda: lenet.Features(lenet.Config(dropout=1.0), (1, 8, 8)), "dropout is 1.0"),
    "negative dropout": (lambda: lenet.Features(lenet.Config(dropout=-0.1), (1, 8, 8)), "dropout is -0.1"),
    "network": (lambda: resnet.Features(resnet.Config(network="vgg16"), (3, 32, 32)), "'vgg16' is unknown.*resnet50"),
    "gray": (lambda: resnet.Features(resnet.Config(), (1, 32, 32)), "RGB images.*1, 32, 32"),
    "points": (lambda: resnet.Features(resnet.Config(), (2,)), "RGB images"),
    "norm": (lambda: Critics(CriticConfig(critic_norm="layer"), [3]), "'layer' is unknown; valid are: none, batch"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_a_network_does_not_support_is_refused(case):
    make, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        make()


@pytest.fixture
def cached(monkeypatch, tmp_path):
    """Put content into torch's cache as ResNet-18's weights, under its own sha256 or another; gives the path."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def cached(content: object, digest: str = "") -> Path:
        (tmp_path / "checkpoints").mkdir()
        torch.save(content, tmp_path / "content")
        data = (tmp_path / "content").read_bytes()
        path = tmp_path / f"checkpoints/resnet18-{digest or hashlib.sha256(data).hexdigest()[:8]}.pth"
        path.write_bytes(data)
        weights = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.value
        monkeypatch.setattr(weights, "url", f"https://nowhere.invalid/models/{path.name}")
        return path

    return cached


def resnet18(weights: str) -> resnet.Features:
    return resnet.Features(resnet.Config(network="resnet18", weights=weights), (3, 32, 32))


@pytest.mark.parametrize("weights", ["none", "IMAGENET1K_V1", "DEFAULT"])
def test_imagenets_weights_are_taken_over_by_a_fresh_run_alone(cached, weights):
    """Building takes none, as a resumed run has its own."""
    pretrained = torchvision.models.resnet18().state_dict()
    cached(pretrained)
    features = resnet18(weights)
    before = {name: value.clone() for name, value in features.network.state_dict().items()}
    features.start()
    for name, value in features.network.state_dict().items():
        kept = weights == "none" or name.startswith("fc.")
        assert torch.equal(value, before[name] if kept else pretrained[name])
    assert not torch.equal(before["conv1.weight"], pretrained["conv1.weight"])


class Malicious:
    """Unpickling it makes a file."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.mark.parametrize("digest", ["", "00000000"], ids=["its-own", "another"])
def test_code_in_a_file_of_weights_is_not_run(cached, tmp_path, digest):
    path = cached({"conv1.weight": Malicious(tmp_path / "executed")}, digest)
    with pytest.raises(ValueError, match="weights 'IMAGENET1K_V1' cannot be had") as caught:
        resnet18("IMAGENET1K_V1").start()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "executed").exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / "executed").exists()  # it would have worked


def test_a_damaged_file_of_weights_is_named(cached):
    path = cached(torchvision.models.resnet18().state_dict())
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"resnet18-\w{8}\.pth is damaged: delete it"):
        resnet18("IMAGENET1K_V1").start()


@pytest.mark.parametrize("content", [{}, [1], torch.zeros(3), {"conv1.weight": torch.zeros(2)}], ids=str)
def test_a_file_that_holds_other_things_is_a_sentence(cached, content):
    cached(content)
    with pytest.raises(ValueError, match="weights 'IMAGENET1K_V1' cannot be had") as caught:
        resnet18("IMAGENET1K_V1").start()
    assert "\n" not in str(caught.value)


def test_weights_that_torchvision_does_not_have():
    features = resnet.Features(resnet.Config(network="resnet18", weights="IMAGENET"), (3, 32, 32))
    with pytest.raises(ValueError, match="weights 'IMAGENET' cannot be had"):
        features.start()
