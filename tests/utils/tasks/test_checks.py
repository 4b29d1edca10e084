"""What tasks refuse: keys of another game, and penalties that need what the game does not have."""

import pytest

from adversarial.penalties import PENALTIES
from tests.runs import ROOT
from utils.config import loading
from utils.config.checks import NEEDS, check_penalties
from utils.config.sections import Config
from utils.errors import UserError
from utils.tasks.checks import judges_in_one_call
from utils.tasks.generation import Generation
from utils.training.state import Sizes

OFFERED = {"adaptation": {"", "fakes"}, "invariance": {""}}


def load(recipe: str, *overrides: str) -> Config:
    return loading.load(ROOT / f"configs/{recipe}.yaml", list(overrides))


@pytest.mark.parametrize("key", ["method=cdan", "margin=2"])
def test_a_gan_has_no_keys_of_domains(key):
    with pytest.raises(UserError, match=r"is a key of game\.name=adaptation.*, and game\.name is generation"):
        load("digits", f"game.{key}")


@pytest.mark.parametrize("key", ["conditional=true", "auxiliary=1", "pack=2"])
def test_games_of_domains_have_no_keys_of_a_gan(key):
    with pytest.raises(UserError, match=r"is a key of game\.name=generation, and game\.name is adaptation"):
        load("moons", f"game.{key}")


def test_every_need_of_a_penalty_has_words():
    assert {penalty.needs for penalty in PENALTIES.values()} - {""} == NEEDS.keys()


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("game", OFFERED)
def test_games_of_domains_take_the_penalties_that_need_no_more_than_they_offer(game, name):
    off = [f"penalty.{other}=0" for other in PENALTIES]
    keys = [f"game.name={game}", "game.objective=minimax", *off, f"penalty.{name}=2"]
    if PENALTIES[name].needs in OFFERED[game]:
        load("moons", *keys)
        return
    with pytest.raises(UserError) as caught:
        load("moons", *keys)
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
    sizes = Sizes(shape, 0)
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
