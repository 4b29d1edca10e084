"""What identifies a run, so that a checkpoint is only resumed by the config that made it."""

import dataclasses
import re
from pathlib import Path
from typing import Any

from utils.config.former import renewed
from utils.config.sections import Config, kinds
from utils.errors import UserError

# What may change when a run is resumed. Everything else identifies the run.
RUNTIME_KEYS = (
    "run", "log", "guard", "sample", "explain", "evaluate", "checkpoint", "train.steps", "train.compile",
    "train.channels_last", "train.accumulate",
    "data.root", "data.photos", "data.download", "data.workers", "data.resident_gib",
)  # fmt: skip

# What may differ from process to process of one run: where things lie, and how a process gets at its share of them.
# Everything else says when and how all of them act together.
PROCESS_KEYS = (
    "run.dir", "run.device", "run.threads",
    "data.root", "data.photos", "data.download", "data.workers", "data.resident_gib",
)  # fmt: skip

# What runs of versions without a key did, where that is not the key's default of today.
FORMERLY = {"data.validation": 0.0}


def identity(config: Config) -> dict[str, Any]:
    """What identifies a run, as {"section.key": value}: a run that differs in it is another run."""
    runtime = tuple(f"{name}." for name in RUNTIME_KEYS)
    return {key: value for key, value in flat(config).items() if not f"{key}.".startswith(runtime)}


def in_common(config: Config) -> dict[str, Any]:
    """What all processes of a run must have in common, as {"section.key": value}."""
    return {key: value for key, value in flat(config).items() if key not in PROCESS_KEYS}


def flat(config: Config) -> dict[str, Any]:
    """Every key of a config, as {"section.key": value}."""
    found: dict[str, Any] = {}
    for section, value in dataclasses.asdict(config).items():
        found |= {f"{section}.{key}": v for key, v in value.items()} if isinstance(value, dict) else {section: value}
    return found


def differences(old: dict[str, Any], new: dict[str, Any]) -> dict[str, str]:
    """Where two identities differ, as {"section.key": "section.key: old -> new"}.

    A key that only one of them has counts as its default in the other, so that a run of an older version, which lacks
    newer keys, is still the same run. A key of ``old`` that no section has any more is always a difference.
    """
    found, old = {}, renewed(old)
    if old.get("data.name") == new.get("data.name"):
        old = {**{key: value for key, value in FORMERLY.items() if key in new}, **old}
    for key in {**old, **new}:
        if key in old and key in new:
            if old[key] != new[key]:
                found[key] = f"{key}: {old[key]} -> {new[key]}"
        elif not (defaults := _defaults(key, old if key in old else new)):
            found[key] = f"{key}: {old[key]} -> no longer a key" if key in old else f"{key}: no key yet -> {new[key]}"
        elif key in old and old[key] not in defaults and not _renamed(key, old, new):
            found[key] = f"{key}: {old[key]} -> no key of {_name_of(key, new)}"
        elif key in new and new[key] not in defaults and not _renamed(key, old, new):
            found[key] = f"{key}: {defaults[0]} -> {new[key]}"
    return found


def check_same_run(saved: dict[str, Any], config: Config, checkpoint: Path) -> None:
    """Raise UserError if the identity ``saved`` in a checkpoint is not that of ``config``."""
    now = identity(config)
    if different := differences(saved, now):
        name = suggested_name(config.run.name, {key: now[key] for key in different if key in now})
        raise UserError(
            f"{checkpoint} is of a run with another config ({'; '.join(different.values())}); choose another run.name, "
            f"such as run.name={name}, which trains from the beginning."
        )


def suggested_name(name: str, changed: dict[str, Any]) -> str:
    """A run's name with up to three of the changed keys and their values in it: digits becomes digits-seed-1.

    A value that the name has of the same key is replaced, so names do not grow with every suggestion.
    """
    old = re.sub(r"-new\d*$", "", name)
    stem, suffix = old, ""
    for key, value in list(changed.items())[:3]:
        word = short_name(key)
        stem = re.sub(rf"-{word}-[^-]*", "", stem)
        suffix += f"-{word}-{re.sub(r'[^a-z0-9.]+', '_', str(value).lower()).strip('_')[:20]}"
    if stem + suffix != old:
        return stem + suffix
    count = re.search(r"-new(\d*)$", name)
    return f"{old}-new{int(count.group(1) or 1) + 1 if count else ''}"


def short_name(key: str) -> str:
    """The telling word of a key: of model.name the section, of optimizer.critic_lr the key."""
    return key.removesuffix(".name").rpartition(".")[2]


def _defaults(key: str, names: dict[str, Any]) -> list[Any]:
    """The defaults of a key: in the section that the identity ``names`` names, else in every section that has it."""
    section, _, name = key.partition(".")
    if not name:
        return [getattr(Config(), section)] if section in Config.__dataclass_fields__ else []
    owners = [kind(name=kind_name) for kind_name, kind in kinds(section)] or [getattr(Config(), section, None)]
    owners = [keys for keys in owners if name in getattr(keys, "__dataclass_fields__", {})]
    own = [keys for keys in owners if getattr(keys, "name", None) == names.get(f"{section}.name")]
    return [getattr(keys, name) for keys in own or owners]


def _renamed(key: str, old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether the section of ``key`` has another name in ``new``: that difference says it all."""
    name = f"{key.partition('.')[0]}.name"
    return old.get(name) != new.get(name)


def _name_of(key: str, names: dict[str, Any]) -> str:
    section = key.partition(".")[0]
    return f"{section}.name={names.get(f'{section}.name')}"
