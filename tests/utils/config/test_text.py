"""Configs as YAML: every key and its comment, and the same config back."""

import dataclasses
import json
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from adversarial.objectives import OBJECTIVES
from adversarial.optimizers import OPTIMIZERS
from adversarial.penalties import PENALTIES
from adversarial.rules import RULES
from adversarial.schedules import SCHEDULES
from models import FAMILIES
from tests.runs import loaded
from tests.utils.config.configs import PLAYS, RECIPES, SECTIONS, value_of
from utils.config import idle
from utils.config.loading import load
from utils.config.sections import GAMES, Config, kinds
from utils.config.text import comments, to_yaml
from utils.data.datasets import DATASETS


def same_again(config: Config, folder: Path) -> Config:
    """The config by way of its own YAML."""
    path = folder / "again.yaml"
    path.write_text(to_yaml(config, header="two\nlines"))
    return load(path, [])


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipes_come_back_from_their_own_yaml(recipe, tmp_path):
    config = loaded(recipe)
    assert same_again(config, tmp_path) == config
    assert config.run.name == recipe.stem


FLOATS = st.floats(min_value=0, allow_nan=False, allow_infinity=False)
COUNTS = st.integers(2, 10**12)
TEXT = st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters="$/") | st.just(" "), min_size=1)
CHOICES = {
    "seed": st.integers(-(2**63), 2**63 - 1),
    "run.name": TEXT.filter(lambda name: name not in (".", "..")),
    "run.dir": TEXT,
    "run.device": st.sampled_from(["auto", "cpu"]),
    "data.name": st.sampled_from(sorted(DATASETS)),
    "data.root": TEXT,
    "data.mirror": st.booleans(),
    "data.resident_gib": FLOATS,
    "game.objective": st.sampled_from(sorted(OBJECTIVES)),
    "game.conditional": st.booleans(),
    "update.rule": st.sampled_from(sorted(RULES)),
    "update.critic_steps": COUNTS,
    "update.coefficient": FLOATS,
    "update.schedule": st.sampled_from(sorted(SCHEDULES)),
    "penalty.r1": FLOATS,
    "penalty.gp": FLOATS,
    "penalty.every": st.dictionaries(st.sampled_from(sorted(PENALTIES)), COUNTS),
    "penalty.schedule": st.dictionaries(st.sampled_from(sorted(PENALTIES)), st.sampled_from(sorted(SCHEDULES))),
    "update.warmup": COUNTS,
    "checkpoint.best": st.sampled_from(["auto", "none", *GAMES["generation"].metrics]),
    "optimizer.name": st.sampled_from(sorted(OPTIMIZERS)),
    "optimizer.momentum": FLOATS,
    "optimizer.critic_lr": FLOATS,
    "optimizer.betas": st.lists(st.floats(0, 1, exclude_max=True), min_size=2, max_size=2),
    "optimizer.eps": FLOATS.filter(lambda eps: eps > 0),
    "train.steps": COUNTS,
    "train.batch_size": COUNTS,
    "train.precision": st.sampled_from(["no", "bf16"]),
    "train.channels_last": st.booleans(),
    "model.latent_dim": COUNTS,
    "model.width": COUNTS,
    "model.critic_width": COUNTS,
}


def as_override(key: str, value) -> str:
    """Text as it is, and other values in JSON, which is YAML."""
    return f"{key}={value if isinstance(value, str) else json.dumps(value)}"


def has_key(config: Config, key: str) -> bool:
    section, _, name = key.rpartition(".")
    return not section or hasattr(getattr(config, section), name)


@settings(max_examples=16, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.fixed_dictionaries({}, optional=CHOICES), st.sampled_from(sorted(FAMILIES)))
@example({"run.name": "no", "run.dir": "1e3", "data.root": "# null: [x"}, "mlp")
@example({"run.name": "007", "run.dir": "'", "data.root": '"'}, "mlp")
@example({"run.name": "2024-01-01", "run.dir": "1:30", "data.root": "~"}, "mlp")
@example({"penalty.r1": 1e308, "optimizer.eps": 5e-324}, "dcgan")
@example({"train.steps": None}, "dense")
def test_what_was_set_comes_back_from_yaml(empty, tmp_path, values, family):
    words = [f"model.name={family}", *PLAYS.get(family, [])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(idle, "RULES", ())  # whether a value does anything does not matter here
        _comes_back(empty, tmp_path, words, values, family)


def _comes_back(empty, tmp_path, words, values, family):
    # Which keys there are depends on the names, and which names on the game.
    if family in PLAYS:
        values = {key: value for key, value in values.items() if key not in ("data.name", "checkpoint.best")}
    chosen = load(empty, [*words, *([f"data.name={values['data.name']}"] if "data.name" in values else [])])
    values = {key: value for key, value in values.items() if has_key(chosen, key)}
    config = load(empty, [*words, *(as_override(*item) for item in values.items())])
    for key, value in values.items():
        assert value_of(config, key) == value
    assert same_again(config, tmp_path) == config


def test_the_header_and_every_comment_are_in_the_yaml():
    text = to_yaml(Config(), header="first\nsecond")
    assert text.startswith("# first\n# second\nseed:")
    for section in SECTIONS:
        for comment in comments(type(getattr(Config(), section))).values():
            assert f"  # {comment}\n" in text


def test_the_yaml_has_every_key_and_no_other():
    plain = yaml.safe_load(to_yaml(Config()))
    assert plain == dataclasses.asdict(Config())


DATACLASSES = {
    **{name: type(getattr(Config(), name)) for name in SECTIONS if name not in ("model", "game", "data")},
    **{f"{section}-{name}": kind for section in ("model", "game", "data") for name, kind in kinds(section)},
}


@pytest.mark.parametrize("section", DATACLASSES.values(), ids=DATACLASSES)
def test_every_field_says_what_it_is(section):
    said = comments(section)
    assert list(said) == [f.name for f in dataclasses.fields(section)]
    assert all(len(comment) > 3 for comment in said.values())
    assert len(set(said.values())) == len(said)


def test_fields_of_the_whole_config_say_what_they_are():
    assert comments(Config)["seed"]
