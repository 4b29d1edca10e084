"""Every kind of run is explained: each family of networks, game and method, images, points and vectors."""

import json
import math
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from adversarial import gradients
from adversarial.domains import METHODS, AdaptationGame
from adversarial.games import Pair, packed
from models import FAMILIES
from tests.adversarial.toy_games import LATENT, SHAPE, MappedGenerator
from tests.runs import ROOT, SMALL, TINY, stand_in
from tests.test_recipes import random_images, random_pair
from utils.config import loading
from utils.config.sections import GAMES
from utils.data import datasets, domains
from utils.errors import UserError
from utils.evaluation import attribution
from utils.evaluation.attribution import ATTRIBUTIONS
from utils.evaluation.predictions import subset
from utils.tasks import explanations
from utils.tasks.explanations import explain_generator
from utils.tasks.registry import task_of
from utils.training.players import Players

# One recipe for each family of networks and each way to be explained.
CASES = {
    "digits": [],
    "cifar10_biggan": [],  # attention, spectral norm, classes
    "cifar10_acgan": [],  # two scores
    "cifar10_r3gan": [],
    "cifar10_stylegan2": [],  # styles, a critic that couples samples
    "stacked_mnist_pacgan": [],
    "ring": ["game.conditional=true"],
    "ring_pacgan": [],
    "digit_patches": [],
    "digit_cameras": [],
    "office": [],
    "vectors": [],
    **{f"moons {name}": [f"game.method={name}"] for name, method in METHODS.items() if not method.baseline},
}
CASES["moons adda"].append("init.run=x")


def recipe_of(case: str) -> Path:
    return ROOT / f"configs/{case.partition(' ')[0]}.yaml"


def test_the_cases_are_of_every_kind():
    configs = [loading.load(recipe_of(case), overrides) for case, overrides in CASES.items()]
    assert {config.game.name for config in configs} == GAMES.keys()
    assert {config.model.name for config in configs} == FAMILIES.keys()
    methods = [METHODS[config.game.method] for config in configs if hasattr(config.game, "method")]
    assert {method.critic_inputs for method in methods} == {method.critic_inputs for method in METHODS.values()}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """No files are read, means are over two points, and pictures are small."""
    for name in ("domain_folders", "vectors"):
        monkeypatch.setitem(domains.DOMAINS, name, stand_in(domains.DOMAINS, name, random_pair))
    for name in ("stacked_mnist", "cifar10"):
        monkeypatch.setitem(datasets.DATASETS, name, stand_in(datasets.DATASETS, name, random_images))
    monkeypatch.setattr(attribution, "STEPS", 2)
    monkeypatch.setattr(Figure, "tight_layout", lambda figure: None)  # half the time of a picture
    for name, value in (("LATTICE", 4), ("DIRECTIONS", 1), ("COLUMNS", 2)):
        monkeypatch.setattr(explanations, name, value)


def untrained(case: str, *overrides: str):
    """Config, task, data and players of a tiny run that has not begun."""
    recipe = recipe_of(case)
    family = loading.load(recipe, []).model.name
    config = loading.load(recipe, [*TINY[family], *SMALL, "run.device=cpu", *overrides])
    task = task_of(config)
    data = task.load(config)
    players = Players.build(config, *task.networks(config, task.sizes(data)), torch.device("cpu"))
    players.critic.train()
    return config, task, data, players


def check_picture(image: torch.Tensor) -> None:
    assert image.dtype == torch.uint8
    assert image.shape[0] == 3
    assert len(image.unique()) > 2  # something is drawn


@pytest.mark.parametrize("case", CASES)
def test_every_kind_of_run_is_explained(case):
    config, task, data, players = untrained(case, *CASES[case])
    before = {name: value.clone() for name, value in players.critic.state_dict().items()}
    found = task.explain(config, players, data, 1, 0)

    generates = config.game.networks == "generator"
    outputs = ["critic", *([] if generates and not config.game.auxiliary else ["class"])]
    assert sorted(found.pictures) == sorted(outputs)
    sides = ["real", "generated"] if generates else list(data.sides)[: 1 if data.target is None else 2]
    assert [(r["side"], r["method"]) for r in found.records] == [
        (side, method) for _ in outputs for side in sides for method in ATTRIBUTIONS
    ]
    assert all(math.isfinite(number) for r in found.records for number in (r["value"], *r["norms"], *r["scores"]))
    assert any(r["value"] > 0 for r in found.records)
    if generates:
        classes = data.classes if config.game.conditional else 0
        jacobian = explain_generator(players.average, config.model.latent_dim, classes, data.shape, 1, 0, 16)
        assert sorted(jacobian.pictures) == ["directions", "singular-values"][0 if len(data.shape) == 3 else 1 :]
        found = explanations.joined([found, jacobian])
    json.dumps(found.records, allow_nan=False)
    for image in found.pictures.values():
        check_picture(image)

    assert players.critic.training
    assert all(torch.equal(value, before[name]) for name, value in players.critic.state_dict().items())
    assert all(p.grad is None for network in (players.critic, players.generator) for p in network.parameters())


# --- what is explained is what is meant ------------------------------------------------------------------------------


class Linear(nn.Module):
    """A generator whose Jacobian is known: the latent times a diagonal, as an image of one column."""

    def __init__(self, *diagonal: float):
        super().__init__()
        self.diagonal = nn.Parameter(torch.tensor(diagonal))

    def forward(self, latent, label=None):
        return (self.diagonal * latent)[:, None, :, None]


def test_a_generators_jacobian():
    pictures, (condition, length) = explain_generator(Linear(4.0, 1.0, 0.5), 3, 0, (1, 3, 1), 2, 0, 16)
    assert condition["value"] == pytest.approx(8)
    assert condition["singular_values"] == [pytest.approx([4, 1, 0.5])] * 2
    assert condition["space"] == "z"
    assert length["value"] == pytest.approx(sum(length["values"]) / 2)
    assert sorted(pictures) == ["directions", "singular-values"]


def test_a_singular_jacobian_has_no_condition_number():
    _, (condition, _) = explain_generator(Linear(1.0, 0.0), 2, 0, (1, 2, 1), 1, 0, 16)
    assert condition["value"] is None
    assert condition["singular_values"] == [[1, 0]]
    json.dumps(condition, allow_nan=False)


def test_a_jacobian_beyond_all_memory_is_one_sentence(monkeypatch):
    monkeypatch.setattr(gradients.os, "sysconf", lambda name: 4)  # 16 bytes
    with pytest.raises(UserError, match=r"GiB, and .* smaller --chunk than 16") as caught:
        explain_generator(Linear(1.0, 1.0), 2, 0, (1, 2, 1), 1, 0, 16)
    assert "\n" not in str(caught.value)


def critic_scores(found, side: str) -> list[float]:
    """What is reported of the critic's score at the samples of a side."""
    return next(r["scores"] for r in found.records if r["side"] == side and "class" not in r["output"])


@pytest.mark.parametrize("case", ["moons layers", "moons mada", "moons mdd"])
def test_the_critics_score_is_the_mean_of_what_the_game_judges(case):
    config, task, data, players = untrained(case, *CASES[case])
    found = task.explain(config, players, data, 3, 0)
    critic_inputs = METHODS[config.game.method].critic_inputs
    sides = critic_inputs(players.average(subset(data.validation, 3).x)[0])
    pairs = [Pair(side, None) for side in sides]
    AdaptationGame(nn.Identity(), players.critic.eval(), critic_inputs).judge(pairs)
    want = torch.stack([pair.real.score for pair in pairs]).mean(0)
    assert critic_scores(found, data.sides[0]) == pytest.approx(want.tolist(), rel=1e-5)


def test_the_seed_is_of_the_generated_samples():
    config, task, data, players = untrained("ring")
    first, same, other = (task.explain(config, players, data, 2, seed) for seed in (0, 0, 1))
    assert critic_scores(first, "real") == critic_scores(other, "real")
    assert critic_scores(first, "generated") == critic_scores(same, "generated") != critic_scores(other, "generated")


def test_packs_have_one_score():
    config, task, data, players = untrained("ring_pacgan")
    found = task.explain(config, players, data, 5, 0)  # 2 whole packs
    want = players.critic.eval()(packed(subset(data.train, 4).x, 2))
    assert critic_scores(found, "real") == pytest.approx(want.tolist(), rel=1e-5)
    assert found.records[0]["samples"] == 4


def test_a_critic_that_is_not_differentiable_is_one_sentence(monkeypatch):
    config, task, data, players = untrained("digits")
    monkeypatch.setattr(players.critic, "score", lambda features, label: features.sum(1).round().sign().detach())
    with pytest.raises(UserError, match="no gradient by its input"):
        task.explain(config, players, data, 1, 0)


# A layer of a critic, of one that judges packs, and of a recogniser with a network for either domain.
LAYERS = {
    "digits": "critic.features.0",
    "stacked_mnist_pacgan": "critic.features.2",
    "office game.method=adda init.run=x": "generator.features.network.layer1",
}


@pytest.mark.parametrize("case", LAYERS)
def test_grad_cam_at_a_layer(monkeypatch, case):
    """One more row of maps in every picture, in the images' size; ADDA reads the source by another network."""
    rows = []
    monkeypatch.setattr(explanations.pictures, "attributions", lambda images, captions, maps: rows.append(maps))
    config, task, data, players = untrained(case, *case.split()[1:])
    found, name = task.explain(config, players, data, 2, 0, LAYERS[case]), f"Grad-CAM at {LAYERS[case]}"
    assert len(rows) == len(found.pictures)
    for maps in rows:
        assert [*maps] == [*ATTRIBUTIONS, name]
        assert maps[name].shape == (4, 1, *data.shape[1:])
    of_layer = [record for record in found.records if record["method"] == name]
    assert len(of_layer) == 2 * len(rows)  # a side each
    blank = {record["side"] for record in of_layer if not any(record["norms"])}
    assert blank == ({data.sides[0]} if "adda" in case else set())


@pytest.mark.parametrize(
    ("case", "layer", "message"),
    [
        ("digits", "critic.feature.0", "Layer 'critic.feature.0' is unknown; did you mean 'critic.features.0'"),
        ("digits", "critic.last", r"Layer 'critic.last' gives no maps \[N, C, H, W\]; .*critic.features.0"),
        ("digits", "generator.layers.0", "Layer 'generator.layers.0' is unknown; .*critic.features.0"),
        ("office", "critic", r"Layer 'critic' gives no maps \[N, C, H, W\]; .*generator.features"),
        ("moons", "generator.head", "--layer generator.head is for images: no layer gives maps"),
    ],
)
def test_a_layer_that_gives_no_maps_is_one_sentence(case, layer, message):
    config, task, data, players = untrained(case)
    with pytest.raises(UserError, match=message) as caught:
        task.explain(config, players, data, 1, 0, layer)
    assert "\n" not in str(caught.value)


def test_one_sample_of_a_generator_with_styles_walks_as_far_as_many(monkeypatch):
    """The unit of a walk is the standard deviation of styles, which one sample does not have."""
    walks = []
    captioned = explanations.pictures.captioned
    monkeypatch.setattr(
        explanations.pictures, "captioned", lambda images, *given: walks.append(images) or captioned(images, *given)
    )
    torch.manual_seed(0)
    generator = MappedGenerator(2)
    for count in (1, 3):
        explain_generator(generator, LATENT, 0, SHAPE, count, 0, 16)
    assert walks[0].isfinite().all()
    assert torch.equal(*walks)
    assert (walks[0][0] - walks[0][1]).abs().max() > 1e-3  # from one end of the walk to the other
