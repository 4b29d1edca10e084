"""What the tests of configs share: names of keys, values at keys, and the words of a refusal."""

import dataclasses
from pathlib import Path

import pytest

from utils.config.loading import load
from utils.config.sections import Config
from utils.data.datasets import DATASETS
from utils.data.sections import data_section
from utils.errors import UserError

ROOT = Path(__file__).parents[3]
RECIPES = sorted((ROOT / "configs").glob("*.yaml"))
SECTIONS = [f.name for f in dataclasses.fields(Config) if dataclasses.is_dataclass(getattr(Config(), f.name))]
# Networks of games of domains do not play the default game.
PLAYS = {name: ["game.name=adaptation", "data.name=images"] for name in ("dense", "lenet", "resnet")}


def whole() -> Config:
    """The defaults, on data with many keys."""
    return Config(data=data_section("folder", DATASETS)(name="folder"))


def refusal(recipe: Path, *overrides: str) -> str:
    """The words of the UserError that loading must end with: one sentence."""
    with pytest.raises(UserError) as caught:
        load(recipe, list(overrides))
    return sentence(caught.value)


def sentence(error: UserError) -> str:
    text = str(error)
    assert "\n" not in text
    assert text.endswith(".")
    return text


def keys_of(config: Config) -> list[str]:
    """Every key, dotted."""
    return ["seed", *(f"{s}.{f.name}" for s in SECTIONS for f in dataclasses.fields(getattr(config, s)))]


def value_of(config: Config, key: str):
    """The value at a dotted key."""
    for name in key.split("."):
        config = getattr(config, name)
    return config


def changed(config: Config, key: str) -> Config:
    """The config with another value of the same type at ``key``."""
    value = value_of(config, key)
    match value:
        case bool():
            value = not value
        case str():
            value += "-other"
        case list():
            value = [f"{x}-other" if isinstance(x, str) else x / 2 for x in value] or ["other"]
        case dict():
            value = {**value, "r1": 2}
        case None:
            value = 0.5
        case _:
            value += 1
    if "." not in key:
        return dataclasses.replace(config, **{key: value})
    section, name = key.split(".")
    return dataclasses.replace(config, **{section: dataclasses.replace(getattr(config, section), **{name: value})})
