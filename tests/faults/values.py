"""Values of all keys of all kinds of sections, from their types and bounds, each really trained for two steps: the run
must come to its end, or stop with one sentence that names the key.

Left out is what only costs time (thousands of threads, workers and steps, the compiler) and what is a place.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import astuple
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt

import train
from tests.faults.outcome import ends_or_says_why
from tests.runs import DEVICE, QUICK, ROOT, SMALL, TINY
from tests.utils.config.configs import keys_of, value_of
from utils.config import fields
from utils.config.fields import OneOf
from utils.config.loading import load
from utils.config.sections import Config

LEFT_OUT = {
    "run.name", "run.dir", "run.threads", "data.root", "data.photos", "data.download", "data.workers", "data.source",
    "data.target", "train.steps", "train.compile", "data.name", "model.name", "game.name",
}  # fmt: skip
NONSENSE = ("null", "x", "", "[]", "{a: 1}")
CHEAP = ["evaluate.features=lite0", "evaluate.reference_samples=16"]  # no classifier is trained for each case
BASES = {
    "digits, dcgan": ("digits", "dcgan", CHEAP),
    "digits, resnet_gan": (
        "digits", "resnet_gan", ["model.name=resnet_gan", "data.resolution=32", "data.fit=pad", *CHEAP],
    ),
    "digits, r3gan": ("digits", "r3gan", ["model.name=r3gan", *CHEAP]),
    "digits, stylegan2": ("digits", "stylegan2", ["model.name=stylegan2", "update.rule=alternating", *CHEAP]),
    "ring, mlp": ("ring", "mlp", []),
    "moons, dense": ("moons", "dense", []),
    "digit_patches, lenet": ("digit_patches", "lenet", []),
    "digit_cameras, lenet": ("digit_cameras", "lenet", []),
}  # fmt: skip


def cases(folder: Path, seed: int) -> dict[str, Callable[[Path], None]]:
    """Every base with every value of every key of its own sections; the sections that all have with those of one."""
    found = {}
    for base, (recipe, family, words) in BASES.items():
        command = [
            str(ROOT / f"configs/{recipe}.yaml"),
            *words,
            *TINY[family],
            *SMALL,
            *QUICK,
            *DEVICE,
            "train.steps=2",
        ]
        config = load(Path(command[0]), command[1:])
        for key in keys_of(config):
            if key in LEFT_OUT or (found and key.partition(".")[0] not in ("data", "model", "game")):
                continue
            for value in dict.fromkeys(values_of(hint_of(config, key))):
                found[f"{base}: {key}={value}"] = lambda own, command=command, key=key, value=value: ends_or_says_why(
                    lambda: train.main([*command, f"run.dir={own}", f"{key}={value}"]), key.rpartition(".")[2]
                )
    names = list(found)
    random.Random(seed).shuffle(names)
    return {name: found[name] for name in names}


def hint_of(config: Config, key: str) -> Any:
    """The annotation of a dotted key."""
    section, _, name = key.rpartition(".")
    return fields.hints(type(value_of(config, section) if section else config))[name]


def values_of(hint: Any) -> Iterator[str]:
    """Values for a key of that type, as a command line has them: valid ones, its bounds, beyond, nonsense."""
    yield from NONSENSE
    if get_origin(hint) in (Union, UnionType):
        (hint,) = (option for option in get_args(hint) if option is not type(None))
    hint, *constraints = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    bounds = [bound for c in constraints for bound in astuple(c) if isinstance(c, Ge | Gt | Le | Lt)]
    for constraint in constraints:
        if isinstance(constraint, OneOf):
            yield from map(str, constraint.names)
    if get_origin(hint) is Literal:
        yield from map(str, get_args(hint))
    elif hint is bool:
        yield from ("true", "false")
    elif hint is int:
        yield from map(str, [*bounds, *(b - 1 for b in bounds), *(b + 1 for b in bounds), -1, 3, 100, 2**63])
    elif hint is float:
        yield from map(str, [*bounds, *(b - 1e-3 for b in bounds), *(b + 1e-3 for b in bounds)])
        yield from ("0", "1e-12", "0.5", "1", "3", "1000000.0", "1e30", "1e308", "nan", "inf")
    elif get_origin(hint) is list:
        inner = list(values_of(get_args(hint)[0]))
        yield from (f"[{value}]" for value in inner)
        yield from (f"[{value}, {value}]" for value in inner)
    elif get_origin(hint) is dict:
        names, _ = get_args(hint)
        yield from (f"{{{k}: {v}}}" for k in values_of(names) if k.isidentifier() for v in ("1", "16", "constant", "0"))
