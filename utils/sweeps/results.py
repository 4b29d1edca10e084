"""What runs have recorded: their configs, and their metrics over steps and seconds."""

import glob
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from utils.config.identity import flat
from utils.config.loading import load_run, name_a_run
from utils.errors import UserError, nearest
from utils.evaluation.records import PROTOCOL, Record
from utils.paths import path_of
from utils.run.ending import FINISHED, best_records
from utils.run.folder import RunFolder
from utils.run.log import parsed

Protocol = tuple[Any, ...]  # the values of PROTOCOL in a record


@dataclass(frozen=True)
class Result:
    """One run: its folder, its config as {"section.key": value}, its last step, and its records."""

    folder: RunFolder
    config: dict[str, Any]
    finished: bool
    step: int
    records: list[Record]

    def measured(self, metric: str) -> list[Record]:
        """The records of a metric that have a finite value, by step."""
        found = [r for r in self.records if r["kind"] == "metric" and r.get("metric") == metric]
        return [r for r in found if isinstance(r.get("value"), int | float) and math.isfinite(r["value"])]

    def best_step(self, metric: str, steps: Collection[int]) -> int | None:
        """The one of these steps at which a metric is best, the latest among equals; None if it was not measured."""
        best = best_records([r for r in self.measured(metric) if r["step"] in steps]).get(metric)
        return best.step if best else None

    def seconds_at(self, step: int, clock: str = "seconds") -> float | None:
        """Seconds of training until ``step``, linear between two lines of the log; None in runs that have none.

        ``clock`` is ``seconds`` or ``cpu_seconds``.
        """
        lines = [(r["step"], r[clock]) for r in self.records if r["kind"] == "train" and clock in r]
        for (begin, before), (end, after) in pairwise([(0, 0.0), *lines]):
            if begin <= step <= end:
                return before + (after - before) * (step - begin) / (end - begin)
        return lines[-1][1] * step / lines[-1][0] if lines else None  # the last steps may have no line


def protocol(record: Record) -> Protocol:
    """How a value was measured."""
    return tuple(record.get(name) for name in PROTOCOL)


def results_of(words: list[str], warn: Callable[[str], None]) -> list[Result]:
    """The runs that folders, globs and folders of runs name, each once.

    Those that are unfinished or damaged are told to ``warn``. Raises UserError for a word that names no run.
    """
    folders = dict.fromkeys(folder.resolve() for word in words for folder in folders_of(word))
    here = Path.cwd()
    shown = [folder.relative_to(here) if folder.is_relative_to(here) else folder for folder in folders]
    return [result for folder in shown if (result := read(folder, warn)) is not None]


def folders_of(word: str) -> list[Path]:
    """The folders of runs that a word of the command line names."""
    path = path_of(word)
    found = [path] if path.exists() else [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
    if not found:
        there = [run.name for run in _children(path.parent)]
        hint = f"; {nearest(path.name, there)} (in {path.parent})" if there else f": {name_a_run(path)}"
        raise UserError(f"'{word}' names nothing{hint}.")
    runs = [run for folder in found for run in ([folder] if _is_run(folder) else _children(folder))]
    if not runs:
        raise UserError(f"'{word}' holds no run, which has a config.yaml: name the folder of a run, or one of runs.")
    return runs


def read(path: Path, warn: Callable[[str], None]) -> Result | None:
    """One run; None, which ``warn`` is told, where its config cannot be read or nothing is recorded."""
    folder = RunFolder(path)
    try:
        config = flat(load_run(path, []))
        text = folder.metrics.read_bytes() if folder.metrics.is_file() else b""
    except (UserError, OSError) as error:
        warn(f"{path} is left out: {error}")
        return None
    records = parsed(text)
    if not records:
        warn(f"{path} is left out: nothing is recorded there yet.")
        return None
    # What follows the last end of line is being written at this moment.
    damaged = sum(bool(line.strip()) for line in text.split(b"\n")[:-1]) - len(parsed(text[: text.rfind(b"\n") + 1]))
    if damaged:
        warn(f"{path}: {damaged} damaged lines of {folder.metrics.name} are left out.")
    step, steps = max(record["step"] for record in records), config["train.steps"]
    finished = any(record["kind"] == FINISHED and record["step"] == step for record in records) and step == steps
    if not finished:
        warn(f"{path} is not finished: it is at step {step}{f' of {steps}' if steps else ''}, and has its own row.")
    return Result(folder, config, finished, step, records)


def _is_run(path: Path) -> bool:
    return (path / "config.yaml").is_file()


def _children(path: Path) -> list[Path]:
    return sorted(child for child in path.iterdir() if _is_run(child)) if path.is_dir() else []
