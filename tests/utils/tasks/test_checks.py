"""What tasks refuse: keys of another game, and penalties that need what the game does not have."""

import pytest

from adversarial.penalties import PENALTIES
from tests.runs import ROOT
from utils.config import loading as config
from utils.errors import UserError
from utils.tasks.checks import NEEDS, check_penalties, judges_in_one_call
from utils.tasks.generation import Generation
from utils.tasks.registry import task_of

OFFERED = {"adaptation": {"", "fakes"}, "invariance": {""}}


def load(recipe: str, *overrides: str) -> config.Config:
    return config.load(ROOT / f"configs/{recipe}.yaml", list(overrides))


@pytest.mark.parametrize("overrides", [["game.method=cdan"], ["game.pretrained=runs/source"]])
def test_a_gan_has_no_method_of_domains(overrides):
    with pytest.raises(UserError, match=r"are for games of domains: choose game\.name=adaptation"):
        task_of(load("digits", *overrides))


@pytest.mark.parametrize(("key", "value"), [("conditional", True), ("auxiliary", 1.0), ("pack", 2)])
def test_games_of_domains_have_no_keys_of_a_gan(key, value):
    cfg = load("moons")
    setattr(cfg.game, key, value)  # game.auxiliary would ask for game.conditional as it is loaded
    with pytest.raises(UserError, match=rf"game\.{key}.* is for game\.name=generation"):
        task_of(cfg)


def test_every_need_of_a_penalty_has_words():
    assert {penalty.needs for penalty in PENALTIES.values()} - {""} == NEEDS.keys()


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("game", OFFERED)
def test_games_of_domains_take_the_penalties_that_need_no_more_than_they_offer(game, name):
    off = [f"penalty.{other}=0" for other in PENALTIES]
    cfg = load("moons", f"game.name={game}", "game.objective=minimax", *off, f"penalty.{name}=2")
    if PENALTIES[name].needs in OFFERED[game]:
        task_of(cfg)
        return
    with pytest.raises(UserError) as caught:
        task_of(cfg)
    for part in (f"penalty.{name}=2.0 needs ", NEEDS[PENALTIES[name].needs], f"game.name={game}", "has none"):
        assert part in str(caught.value)
    assert str(caught.value).endswith(f"use penalty.{name}=0.")


GENERATORS = {
    "points": ("ring", [], (2,), {"consistency", "path"}),
    "images": ("digits", [], (1, 8, 8), {"path"}),
    "images of a generator with a mapping network": (
        "digits",
        ["model.name=stylegan2", "model.channel_max=4", "model.latent_dim=8"],
        (1, 8, 8),
        set(),
    ),
}


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("case", GENERATORS)
def test_generation_takes_the_penalties_that_its_data_and_networks_allow(case, name):
    recipe, overrides, shape, refused = GENERATORS[case]
    cfg = load(recipe, *overrides, f"penalty.{name}=2")
    sizes = {"shape": shape, "classes": 0}
    if name not in refused:
        Generation().networks(cfg, sizes)
        return
    with pytest.raises(UserError, match=rf"penalty\.{name}=2\.0 needs .* use penalty\.{name}=0\.$") as caught:
        Generation().networks(cfg, sizes)
    assert f"model.name={cfg.model.name}" in str(caught.value)
    assert str(shape) in str(caught.value)


def test_a_penalty_that_is_off_needs_nothing():
    check_penalties(load("moons", *(f"penalty.{name}=0" for name in PENALTIES)), set(), "nothing")


@pytest.mark.parametrize(
    ("overrides", "one"),
    [
        (["update.rule=single_pass", "penalty.r1=0"], True),
        (["update.rule=alternating", "penalty.r1=0"], True),
        (["update.rule=simultaneous", "penalty.r1=0"], False),
        (["update.rule=single_pass", "penalty.r1=1"], False),
        (["update.rule=single_pass", "penalty.r2=1", "penalty.r1=0"], False),
        (["update.rule=single_pass", "penalty.r1=1", "penalty.r2=1"], True),
    ],
)
def test_one_call_of_the_critic_unless_a_gradient_of_one_side_is_taken(overrides, one):
    assert judges_in_one_call(load("digits", *overrides)) == one
