"""Keys that another value makes idle: what is asked for there would silently do nothing, so it is refused.

Keys of ``model.*``, ``burn_in.*`` and ``update.reuse_fakes`` that do not fit are refused in ``checks``.
"""

from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any, NamedTuple

from adversarial.augmentation import ADAPTIVE, SCHEDULED
from adversarial.domains import METHODS
from adversarial.penalties import PENALTIES
from utils.config.sections import Config
from utils.errors import UserError


class Idle(NamedTuple):
    """Keys that do nothing where the value of the key ``by`` is not ``needed``, which says in words what it must be."""

    keys: tuple[str, ...]
    by: str
    needed: Callable[[Any], bool]
    words: str


def _played(method: str) -> bool:
    return not METHODS[method].baseline


def _rules() -> Iterator[Idle]:
    yield Idle(("optimizer.betas", "optimizer.eps"), "optimizer.name", lambda name: name != "sgd", "adam")
    yield Idle(("optimizer.momentum",), "optimizer.name", lambda name: name != "adam", "sgd")
    yield Idle(("augment.policy",), "augment.name", lambda name: name != "none", "diffaugment, scheduled or ada")
    scheduled = ("augment.p", "augment.schedule", "augment.warmup")
    yield Idle(scheduled, "augment.name", lambda name: name == SCHEDULED, SCHEDULED)
    yield Idle(("augment.target", "augment.images", "augment.every"), "augment.name", lambda x: x == ADAPTIVE, ADAPTIVE)
    yield Idle(("update.coefficient", "update.schedule", "update.warmup"), "game.method", _played, "no baseline")
    yield Idle(("update.schedule", "update.warmup"), "update.coefficient", lambda λ: λ > 0, "above 0")
    yield Idle(("update.lookahead_schedule",), "update.lookahead", lambda steps: steps > 0, "above 0")
    yield Idle(("game.margin",), "game.method", lambda method: method == "mdd", "mdd")
    of_another_run = ("init.step", "init.weights", "init.parts", "init.fork")
    yield Idle(of_another_run, "init.run", bool, "the folder of a run")
    yield Idle(("init.weights", "init.parts"), "init.fork", lambda fork: not fork, "false")
    yield Idle(("ema.ramp_up",), "ema.half_life", lambda images: images > 0, "above 0")
    yield Idle(
        ("guard.score_gap", "guard.patience"), "game.name", lambda name: name != "invariance", "a game of two sides"
    )
    yield Idle(
        ("sample.count",), "game.name", lambda x: x not in ("adaptation", "invariance"), "a game that makes images"
    )
    yield Idle(("sample.count",), "data.name", lambda name: name not in ("ring", "grid"), "images")
    yield Idle(("checkpoint.best",), "evaluate.every", lambda steps: steps > 0, "above 0, for there to be a choice")
    of_files = ("evaluate.features_resolution", "evaluate.features_mean", "evaluate.features_std")
    yield Idle(of_files, "evaluate.features", lambda name: name == "file", "file")
    for name, penalty in PENALTIES.items():
        options = tuple(f"penalty.{name}_{option.name}" for option in fields(penalty))
        keys = (*options, f"penalty.every.{name}", f"penalty.schedule.{name}")
        yield Idle(keys, f"penalty.{name}", lambda γ: γ > 0, "above 0")


RULES = tuple(_rules())
# What an entry of a dictionary does that is not there, and values that ask for nothing.
NEUTRAL = {"every": 1, "schedule": "constant"}
ASKS_FOR_NOTHING = [("checkpoint.best", "none"), ("update.coefficient", 0.0)]


def check(config: Config, given: dict[str, int]) -> None:
    """Raise UserError for the first idle key with another value than its default.

    ``given`` has the number of the last source (file, or command line) that gives a key, for each key that was given.
    What a base gives, and a later file or the command line makes idle, is left alone.
    """
    for keys, by, needed, words in RULES:
        value = _value(config, by)
        if value is None or needed(value):
            continue
        for key in keys:
            asked, late_enough = _value(config, key), key in given and given[key] >= given.get(by, -1)
            nothing = asked in (None, _value(_defaults(config), key)) or (key, asked) in ASKS_FOR_NOTHING
            if late_enough and not nothing:
                raise UserError(
                    f"{key}={asked} does nothing where {by}={value}: leave it out, or set {by} to what it needs "
                    f"({words})."
                )


def _defaults(config: Config) -> Config:
    """The defaults of a config with the same names of model, game and data."""
    own = {section: type(getattr(config, section))(name=getattr(config, section).name) for section in ("data", "game")}
    return Config(**own)


def _value(config: Config, key: str) -> Any:
    """The value at a dotted key; None where this config has no such key."""
    section, name, *entry = key.split(".")
    value = getattr(getattr(config, section), name, None)
    return value.get(entry[0], NEUTRAL[name]) if entry else value
