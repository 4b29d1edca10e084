"""Every kind of run is explained: each family of networks, game and method, images, points and vectors."""

import json
import math
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from adversarial.domains import METHODS
from models import FAMILIES
from tests.runs import SMALL, TINY
from tests.test_recipes import RECIPES, random_images, random_pair
from utils.config import loading
from utils.config.sections import GAMES, Config
from utils.data import datasets, domains
from utils.data.points import Points
from utils.errors import UserError
from utils.evaluation import attribution
from utils.evaluation.attribution import ATTRIBUTIONS
from utils.tasks import explanations
from utils.tasks.explanations import explain_generator
from utils.tasks.registry import task_of
from utils.training.players import Players


def kind(config: Config) -> tuple:
    """What decides how a run is explained."""
    game, model = vars(config.game), vars(config.model)
    of_game = (game.get("method"), game.get("conditional"), bool(game.get("auxiliary")), game.get("pack"))
    of_model = (config.model.name, model.get("critic_norm"), bool(model.get("attention")), model.get("minibatch_std"))
    return (config.game.name, *of_game, *of_model)


KINDS = {kind(loading.load(recipe, [])): recipe for recipe in RECIPES}
CASES = [pytest.param(recipe, [], id=recipe.stem) for recipe in KINDS.values()]
MOONS, DIGITS = (next(path for path in RECIPES if path.stem == name) for name in ("moons", "digits"))
CASES += [
    pytest.param(MOONS, [f"game.method={name}", *(["game.pretrained=x"] if name == "adda" else [])], id=name)
    for name in METHODS
    if name != "dann"
]
RING = next(path for path in RECIPES if path.stem == "ring")
CASES += [pytest.param(RING, ["game.conditional=true"], id="points with classes")]


def test_the_cases_are_of_every_kind():
    configs = [loading.load(case.values[0], case.values[1]) for case in CASES]
    assert {config.game.name for config in configs} == GAMES.keys()
    assert {config.model.name for config in configs} == FAMILIES.keys()
    assert {getattr(config.game, "method", None) for config in configs} >= METHODS.keys()


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """No files are read, and means are over few points."""
    for name in ("images", "domain_folders", "vectors", "amazon_reviews"):
        monkeypatch.setitem(domains.DOMAINS, name, random_pair_of(name))
    for name in ("mnist", "fashion_mnist", "stacked_mnist", "cifar10", "folder", "zip"):
        monkeypatch.setitem(datasets.DATASETS, name, random_images_of(name))
    monkeypatch.setattr(attribution, "STEPS", 2)
    monkeypatch.setattr(explanations, "LATTICE", 4)


def random_pair_of(name):
    from tests.runs import stand_in

    return stand_in(domains.DOMAINS, name, random_pair)


def random_images_of(name):
    from tests.runs import stand_in

    return stand_in(datasets.DATASETS, name, random_images)


def untrained(recipe, *overrides: str):
    """Config, task, data and players of a tiny run that has not begun."""
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


@pytest.mark.parametrize(("recipe", "overrides"), CASES)
def test_every_kind_of_run_is_explained(recipe, overrides):
    config, task, data, players = untrained(recipe, *overrides)
    before = {name: value.clone() for name, value in players.critic.state_dict().items()}
    found = task.explain(config, players, data, 2, 0)

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
        jacobian = explain_generator(players.average, config.model.latent_dim, classes, data.shape, 2, 0, 16)
        assert sorted(jacobian.pictures) == ["directions", "singular-values"][0 if len(data.shape) == 3 else 1 :]
        found = explanations.joined([found, jacobian])
    json.dumps(found.records, allow_nan=False)
    for image in found.pictures.values():
        check_picture(image)

    assert players.critic.training
    assert all(torch.equal(value, before[name]) for name, value in players.critic.state_dict().items())
    assert all(p.grad is None for network in (players.critic, players.generator) for p in network.parameters())
