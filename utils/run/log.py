"""What a run tells: progress for people, ``log.txt``, ``metrics.jsonl``, TensorBoard."""

import contextlib
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from utils.errors import UserError
from utils.run.folder import RunFolder
from utils.training.processes import ProcessGroup


class Log:
    """Writes to the run's folder. Records of steps beyond ``step`` are dropped: a resumed run does these steps anew."""

    def __init__(self, folder: RunFolder, step: int):
        self.folder = folder
        _drop_after(folder, step)
        from torch.utils.tensorboard import SummaryWriter  # half a second that only the process that writes needs

        self.writer = SummaryWriter(folder.tensorboard, purge_step=step + 1)

    def close(self) -> None:
        """Flush and close the event file."""
        with _writing(self.folder):
            self.writer.close()

    def say(self, text: str, quiet: bool = False) -> None:
        """A line for people, on the terminal (unless ``quiet``) and in log.txt."""
        say(self.folder, text, quiet)

    def record(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """One line of metrics.jsonl; numbers also become TensorBoard points ``kind/name``."""
        with _writing(self.folder):
            with open(self.folder.metrics, "a") as file:
                file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
            for name, value in values.items():
                if kind == "train" and isinstance(value, int | float):
                    self.writer.add_scalar(f"train/{name}", value, step)

    def metric(self, step: int, record: dict[str, Any]) -> None:
        """A self-describing metric record; its value also becomes a TensorBoard point."""
        self.record("metric", step, record)
        if record["value"] is not None:
            kind = "oracle" if record.get("oracle") else "metric"
            with _writing(self.folder):
                self.writer.add_scalar(f"{kind}/{record['metric'].replace(' ', '_')}", record["value"], step)

    def scores(self, step: int, scores: dict[str, Tensor]) -> None:
        """Distributions of the critic's scores, by name (real_score)."""
        with _writing(self.folder):
            for name, values in scores.items():
                self.writer.add_histogram(f"scores/{name.removesuffix('_score')}", values, step)

    def picture(self, step: int, name: str, image: Tensor) -> None:
        """A uint8 picture ``[3, H, W]``."""
        with _writing(self.folder):
            self.writer.add_image(name, image, step)

    def config(self, text: str) -> None:
        """The config as text."""
        with _writing(self.folder):
            self.writer.add_text("config", "    " + text.replace("\n", "\n    "))


def say(folder: RunFolder, text: str, quiet: bool = False) -> None:
    """A line for people, on the terminal (unless ``quiet``) and in the run's log.txt."""
    if not quiet:
        with contextlib.suppress(BrokenPipeError):  # nobody reads on, as in "train.py | head": the run goes on
            tqdm.write(text, file=sys.stdout)
            sys.stdout.flush()
    with _writing(folder), open(folder.log, "a") as file:
        file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S}  {text}\n")


@contextlib.contextmanager
def _writing(folder: RunFolder) -> Iterator[None]:
    """What a full disk does to logs becomes a UserError that names the folder; TensorBoard's own names nothing."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"The logs in {folder.path} could not be written ({error}); make room, then run the same command: it goes "
            "on from the last checkpoint."
        ) from error


NEVER = 2**62  # a step that no run comes to


class _Sums:
    """Of the statistics of one kind of turn, on the device: sums ``[Q]``, their number, and the first step ``[Q]`` at
    which each was not finite.
    """

    def __init__(self, values: Tensor):
        self.total, self.count = torch.zeros_like(values), 0
        self.first_bad = torch.full_like(values, NEVER, dtype=torch.int64)

    def add(self, step: int, values: Tensor) -> None:
        self.total += values
        self.count += 1
        self.first_bad.masked_fill_(~values.isfinite() & (self.first_bad == NEVER), step)


class Meter:
    """Sums statistics on the device and keeps in mind when one was not finite; the host waits only to read them."""

    def __init__(self, group: ProcessGroup) -> None:
        self.group = group
        self.sums: dict[tuple[str, ...], _Sums] = {}
        self.scores: dict[str, Tensor] = {}
        self.since = time.perf_counter()

    def add(self, step: int, report: dict[str, Tensor]) -> None:
        """Take in what one turn of a step reports; scores ``[N]`` count with their mean."""
        self.scores |= {name: value for name, value in report.items() if value.ndim}
        values = torch.stack([value.mean() if value.ndim else value for value in map(_floating, report.values())])
        names = tuple(report)
        if names not in self.sums:
            self.sums[names] = _Sums(values)
        self.sums[names].add(step, values)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """The clock stands still inside: pictures, evaluations and checkpoints are no part of the training's speed."""
        begin = time.perf_counter()
        yield
        self.since += time.perf_counter() - begin

    def first_not_finite(self) -> dict[str, int]:
        """Quantities that have been NaN or infinite in any process since the last reading, each with the first step."""
        names = [name for names in self.sums for name in names]
        if not names:
            return {}
        steps = self.group.least(torch.cat([sums.first_bad for sums in self.sums.values()]).tolist())
        found: dict[str, int] = {}
        for name, step in zip(names, steps, strict=True):
            if step < found.get(name, NEVER):
                found[name] = step
        return found

    def read(self, images: int) -> dict[str, float]:
        """Means since the last reading, over all processes, and images per second where ``images`` were seen since."""
        totals: dict[str, float] = defaultdict(float)
        counts: dict[str, int] = defaultdict(int)
        if self.sums:
            sums = torch.cat([kind.total for kind in self.sums.values()]).tolist()
            of_names = [(name, kind.count) for names, kind in self.sums.items() for name in names]
            for (name, count), total in zip(of_names, sums, strict=True):
                totals[name] += total
                counts[name] += count
        means = self.group.means([total / counts[name] for name, total in totals.items()])
        values = dict(zip(totals, means, strict=True))
        values["images_per_second"] = images / (time.perf_counter() - self.since)
        self.sums, self.since = {}, time.perf_counter()
        return values


def gradient_norm(module: nn.Module) -> Tensor:
    """The norm of a network's gradients; NaN or infinite as soon as one of them is. Nothing waits for the device."""
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    return nn.utils.get_total_norm(gradients)


def _floating(value: Tensor) -> Tensor:
    return value if value.dtype == torch.float64 else value.float()


def records(folder: RunFolder) -> list[dict[str, Any]]:
    """What metrics.jsonl holds; a line that a kill has cut short is left out."""
    found = []
    if folder.metrics.is_file():
        for line in folder.metrics.read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                found.append(json.loads(line))
    return [record for record in found if isinstance(record, dict) and {"kind", "step"} <= record.keys()]


def _drop_after(folder: RunFolder, step: int) -> None:
    """Rewrite metrics.jsonl without records after ``step``."""
    kept = [record for record in records(folder) if record["step"] <= step]
    partial = folder.metrics.with_name(".metrics.jsonl.partial")
    with open(partial, "w") as file:
        file.writelines(json.dumps(record) + "\n" for record in kept)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder.metrics)
