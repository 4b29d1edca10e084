"""Keys that another value makes idle are refused where they ask for something."""

import pytest

from adversarial.penalties import PENALTIES
from tests.runs import loaded
from tests.utils.config.configs import RECIPES, keys_of, refusal
from utils.config import idle
from utils.config.loading import load
from utils.config.sections import GAMES, Config

MOONS = ["game.name=adaptation", "data.name=moons", "model.name=dense"]
CAMERAS = ["game.name=invariance", "data.name=digit_cameras", "model.name=lenet"]
EVALUATED = ["evaluate.every=5"]

# Words that ask for something idle, what makes it so, and words with which it does something. Those of penalties follow
# from the registry.
ASKED = {
    "optimizer.betas=[0.0,0.9]": (["optimizer.name=sgd"], []),
    "optimizer.eps=0.1": (["optimizer.name=sgd"], []),
    "optimizer.momentum=0.9": ([], ["optimizer.name=sgd"]),
    "augment.policy=[colour]": ([], ["augment.name=diffaugment"]),
    "augment.p=0.5": (["augment.name=ada"], ["augment.name=scheduled"]),
    "augment.schedule=linear_growth": ([], ["augment.name=scheduled"]),
    "augment.warmup=5": (["augment.name=diffaugment"], ["augment.name=scheduled"]),
    "augment.target=0.5": (["augment.name=scheduled"], ["augment.name=ada"]),
    "augment.images=5": ([], ["augment.name=ada"]),
    "augment.every=5": ([], ["augment.name=ada"]),
    "update.coefficient=2": ([*MOONS, "game.method=source_only"], MOONS),
    "update.lookahead_schedule=cosine_decay": ([], ["update.lookahead=1"]),
    "update.schedule=dann_lambda": ([*MOONS, "update.coefficient=0"], MOONS),
    "update.warmup=5": ([*MOONS, "game.method=target_only"], MOONS),
    "game.margin=2": (MOONS, [*MOONS, "game.method=mdd"]),
    "init.step=5": ([], ["init.run=runs/a"]),
    "init.weights=ema": (["init.run=runs/a", "init.fork=true"], ["init.run=runs/a"]),
    "init.parts=[critic]": ([], ["init.run=runs/a"]),
    "init.fork=true": ([], ["init.run=runs/a"]),
    "ema.ramp_up=0.1": (["ema.half_life=0"], []),
    "guard.score_gap=5": ([*CAMERAS], MOONS),
    "guard.patience=5": ([*CAMERAS], []),
    "sample.count=5": (MOONS, []),
    "checkpoint.best=recognised": ([], EVALUATED),
    "evaluate.features_resolution=64": ([], ["evaluate.features=file"]),
    "evaluate.features_mean=[0,0,0]": (["evaluate.features=lite0"], ["evaluate.features=file"]),
    "evaluate.features_std=[1,1,1]": (["evaluate.features=inception"], ["evaluate.features=file"]),
    **{f"penalty.every.{name}=2": ([], [f"penalty.{name}=1"]) for name in PENALTIES if name != "path"},
    **{f"penalty.schedule.{name}=linear_decay": ([], [f"penalty.{name}=1"]) for name in PENALTIES if name != "path"},
    "penalty.every.path=2": ([], ["penalty.path=1", "model.name=stylegan2"]),
    "penalty.schedule.path=linear_decay": ([], ["penalty.path=1", "model.name=stylegan2"]),
    "penalty.dragan_noise=0.1": ([], ["penalty.dragan=1"]),
    "penalty.lecam_decay=0.5": ([], ["penalty.lecam=1"]),
    "penalty.path_decay=0.5": ([], ["penalty.path=1", "model.name=stylegan2"]),
}


def key_of(word: str) -> str:
    return word.partition("=")[0]


def test_every_key_of_a_rule_is_tried_and_is_a_key():
    of_rules = {key for rule in idle.RULES for key in rule.keys}
    assert of_rules == {key_of(word) for word in ASKED}
    keys = {*keys_of(Config()), *(f"game.{name}" for game in GAMES.values() for name in vars(game()))}
    assert {".".join(key.split(".")[:2]) for key in of_rules} | {rule.by for rule in idle.RULES} <= keys


@pytest.mark.parametrize("word", ASKED)
def test_what_would_do_nothing_is_refused(empty, word):
    idle_with, active_with = ASKED[word]
    text = refusal(empty, *idle_with, word)
    assert text.startswith(f"{key_of(word)}=")
    assert "does nothing where" in text
    assert load(empty, [*active_with, word])


def test_the_advice_works(empty):
    text = refusal(empty, "optimizer.momentum=0.9")
    assert text == (
        "optimizer.momentum=0.9 does nothing where optimizer.name=adam: leave it out, or set optimizer.name to what it "
        "needs (sgd)."
    )


@pytest.mark.parametrize(
    "word", ["optimizer.momentum=0.0", "augment.p=0.3", "penalty.every.r2=1", "checkpoint.best=none"]
)
def test_what_asks_for_nothing_may_be_idle(empty, word):
    assert load(empty, [word])


def test_points_have_no_count(empty):
    assert "data.name=ring" in refusal(empty, "data.name=ring", "model.name=mlp", "sample.count=5")


def test_what_a_base_gives_may_become_idle(write):
    """By a recipe, or on the command line; but not what is given with or after what makes it idle."""
    write("optimizer: {name: sgd, momentum: 0.9}\npenalty: {r2: 1, every: {r2: 4}}\n", "base.yaml")
    recipe = write("base: base.yaml\noptimizer: {name: adam}\n", "recipe.yaml")
    assert load(recipe, ["penalty.r2=0"]).optimizer.momentum == 0.9
    assert "optimizer.momentum=0.8" in refusal(recipe, "optimizer.momentum=0.8")
    assert "optimizer.momentum=0.9" in refusal(write("optimizer: {momentum: 0.9}\n", "other.yaml"))
    assert "penalty.every.r2=8" in refusal(recipe, "penalty.r2=0", "penalty.every.r2=8")


def test_the_config_of_a_run_may_have_what_is_idle(write, tmp_path):
    """It has all that its recipe's bases gave."""
    path = write("optimizer: {momentum: 0.9}\n", "run/config.yaml")
    (tmp_path / "run/log.txt").touch()
    assert load(path, []).optimizer.momentum == 0.9
    assert "augment.p=0.5" in refusal(path, "augment.p=0.5")


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_no_recipe_asks_for_what_is_idle(recipe):
    assert loaded(recipe)
