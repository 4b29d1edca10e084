"""What is known of a run when it is looked at from outside: its records, its data, and how a healthy run went."""

import contextlib
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from utils import errors
from utils.config import loading
from utils.config.identity import differences, flat, identity
from utils.config.sections import Config
from utils.errors import UserError
from utils.evaluation.illnesses import Finding, History
from utils.evaluation.predictions import prepared_batches, subset
from utils.evaluation.records import Record, readable
from utils.run.ending import FINISHED
from utils.run.folder import RunFolder
from utils.run.log import parsed, records
from utils.tasks.registry import check_sizes, task_of
from utils.training.players import Players

GOES_ON = ("train.steps=", "data.workers=")  # remedies that the run itself may take
REFERENCES = Path(__file__).parents[2] / "docs/reference"  # records of healthy runs, by recipe
RECIPES = Path(__file__).parents[2] / "configs"
SAME = ("game.name", "model.name", "data.name", "data.source", "data.target")  # what a reference shares with a run
LOOKED_AT = 1000  # training samples that are compared with each other
SIGNS = (
    "critic_loss", "generator_loss", "score_margin", "critic_accuracy_real", "critic_accuracy_fake",
    "critic_gradient_norm", "generator_gradient_norm", "generator_gradient_cosine", "ratio_p10", "ratio_p50",
    "ratio_p90", "floored", "coefficient", "outside_networks", "waiting_for_data", "peak_memory_mib",
)  # fmt: skip
SIDES = {"real": "source", "fake": "target"}  # what games of domains call them


def history_of(folder: RunFolder, config: Config) -> History:
    """The history that a run has left in its folder. Raises UserError where it has none yet."""
    done = records(folder)
    stopped = _stopped(folder)
    if not any(record["kind"] in ("train", "metric") for record in done) and not stopped:
        raise UserError(
            f"{folder.path} has no log lines yet: train until the first one, at step {config.log.every} (log.every)."
        )
    return _history(flat(config), done, stopped)


def _history(config: dict[str, Any], done: list[Record], stopped: str = "") -> History:
    lines = [with_margin(record) for record in done if record["kind"] == "train"]
    metrics = [record for record in done if record["kind"] == "metric"]
    last = max((record["step"] for record in lines), default=0)
    finished = any(record["kind"] == FINISHED and record["step"] >= last for record in done)
    return History(config, lines, metrics, finished, stopped)


def with_margin(line: Record) -> Record:
    """Lines of older versions say both scores, and not the difference."""
    for real, fake in (SIDES.keys(), SIDES.values()):
        if {f"{real}_score", f"{fake}_score"} <= line.keys():
            return {"score_margin": line[f"{real}_score"] - line[f"{fake}_score"], **line}
    return line


def _stopped(folder: RunFolder) -> str:
    """What log.txt says of the error that ended the last start of the run; "" where there was none."""
    said = ""
    if folder.log.is_file():
        for line in folder.log.read_text(encoding="utf-8", errors="replace").splitlines():
            text = line.partition("  ")[2]
            if text.startswith("Stopped: "):
                said = text.removeprefix("Stopped: ")
            elif text.startswith("Begins: "):
                said = ""
    return said


def looked_at(config: Config, folder: RunFolder, run: History) -> tuple[History, str]:
    """The history, with what the data and the newest checkpoint say: the former's samples are compared, and the latter
    is measured unless the records say it all. And why that was not done, as where the data are out of reach.
    """
    task = task_of(config)
    try:
        data = task.load(config)
        samples = subset(data.train, LOOKED_AT)
        x = torch.cat(list(prepared_batches(samples, torch.device("cpu")))).flatten(1)
        facts = {"samples": len(x), "distinct": len(x.unique(dim=0)), "spread": float(x.std())}
        measured = run.metrics
        if not measured:
            players, state = Players.load(config, folder.checkpoints, task.networks, errors.warn)
            check_sizes(config, state.sizes, data)
            found = task.evaluate(config, players, data, folder.features)
            measured = [{"kind": "metric", "step": state.step, "weights": "ema", **record} for record in found]
    except UserError as error:
        return run, str(error)
    return replace(run, metrics=measured, data=facts), ""


# --- comparison ------------------------------------------------------------------------------------------------------


class Reference(NamedTuple):
    """A healthy run on the same data with the same kind of networks."""

    name: str
    run: History

    def at(self, sign: str, step: int) -> float | None:
        """The value of a statistic or metric near ``step``; None where it is not known there."""
        found = [
            (line["step"], line[name]) for line in self.run.lines for name in (sign, own_name(sign)) if name in line
        ]
        found += [(record["step"], record["value"]) for record in self.run.measured(sign)]
        near, value = min(found, key=lambda point: abs(point[0] - step), default=(math.inf, None))
        return value if abs(near - step) <= max(step / 4, self.run.step / 50) else None

    def values_at(self, step: int) -> dict[str, float]:
        """The values of all signs and metrics near ``step``."""
        names = {*SIGNS, *(record["metric"] for record in self.run.metrics)}
        return {name: value for name in names if (value := self.at(name, step)) is not None}


def read_reference(path: Path) -> History:
    """A reference history: a line with the config, and then lines of a metrics.jsonl."""
    first, _, rest = path.read_bytes().partition(b"\n")
    return _history(json.loads(first)["config"], parsed(rest))


def reference_of(config: Config) -> Reference | None:
    """The healthy run to compare with, or None where there is none for this game, data and model."""
    ours = flat(config)
    for path in sorted(REFERENCES.glob("*.jsonl")):
        run = read_reference(path)
        if all(ours.get(key) == run.config.get(key) for key in SAME):
            return Reference(path.stem, run)
    return None


def compared(finding: Finding, run: History, reference: Reference | None) -> str:
    """What a healthy run showed at this step of what the finding rests on; "" where nothing is known."""
    if reference is None:
        return ""
    values = {sign: reference.at(sign, run.step) for sign in finding.signs}
    known = ", ".join(f"{sign} {readable(value)}" for sign, value in values.items() if value is not None)
    return f"A healthy run ({reference.name}) at that step: {known}." if known else ""


def recipe_of(config: Config) -> tuple[str, list[str]]:
    """The recipe on the same data that differs least from a config, and how: "section.key: recipe's -> run's"."""
    found = {}
    for path in RECIPES.glob("*.yaml"):
        if path == loading.DEFAULT_RECIPE or _says(path, f"name: {config.data.name}"):
            found[path.stem] = list(differences(identity(loading.load(path, [])), identity(config)).values())
    name = min(found, key=lambda stem: (len(found[stem]), stem))
    return name, found[name]


def own_name(sign: str) -> str:
    """The name of a sign in games of domains: critic_accuracy_real is critic_accuracy_source."""
    return "_".join(SIDES.get(word, word) for word in sign.split("_"))


def _says(recipe: Path, words: str) -> bool:
    """Whether a recipe or one of its bases has these words: to load them all would take seconds."""
    text = recipe.read_text(encoding="utf-8")
    base = re.search(r"^base: *(\S+)", text, re.MULTILINE)
    return words in text or (base is not None and _says(recipe.parent / base[1], words))


# --- what to try -----------------------------------------------------------------------------------------------------


def command(folder: RunFolder, finding: Finding) -> str:
    """The first of a finding's remedies that the run's config takes, as a command; "" where there is none.

    It starts a run beside this one, but where the remedy is to go on.
    """
    file = folder.path / "config.yaml"
    for remedy in finding.remedies:
        words = remedy.split()
        if not remedy.startswith(GOES_ON):
            words = [f"run.name={_free_name(folder)}", *words]
        with contextlib.suppress(UserError):
            loading.load(file, words)
            return " ".join(["python train.py", str(file), *words])
    return ""


def _free_name(folder: RunFolder) -> str:
    number = 2
    while (folder.path.parent / f"{folder.path.name}-{number}").exists():
        number += 1
    return f"{folder.path.name}-{number}"
