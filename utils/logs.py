"""What a run tells: progress for people, ``log.txt``, ``metrics.jsonl``, TensorBoard."""

import contextlib
import json
import math
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from utils.run import RunFolder


class Log:
    """Writes to the run's folder. Records of steps beyond ``step`` are dropped: a resumed run does these steps anew."""

    def __init__(self, folder: RunFolder, step: int):
        self.folder = folder
        _drop_after(folder, step)
        self.writer = SummaryWriter(folder.tensorboard, purge_step=step + 1)

    def close(self) -> None:
        """Flush and close the event file."""
        self.writer.close()

    def say(self, text: str, quiet: bool = False) -> None:
        """A line for people, on the terminal (unless ``quiet``) and in log.txt."""
        say(self.folder, text, quiet)

    def record(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """One line of metrics.jsonl; numbers also become TensorBoard points ``kind/name``."""
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
            self.writer.add_scalar(f"{kind}/{record['metric'].replace(' ', '_')}", record["value"], step)

    def scores(self, step: int, scores: dict[str, Tensor]) -> None:
        """Distributions of the critic's scores, by name (real_score)."""
        for name, values in scores.items():
            self.writer.add_histogram(f"scores/{name.removesuffix('_score')}", values, step)

    def picture(self, step: int, name: str, image: Tensor) -> None:
        """A uint8 picture ``[3, H, W]``."""
        self.writer.add_image(name, image, step)

    def config(self, text: str) -> None:
        """The config as text."""
        self.writer.add_text("config", "    " + text.replace("\n", "\n    "))


def say(folder: RunFolder, text: str, quiet: bool = False) -> None:
    """A line for people, on the terminal (unless ``quiet``) and in the run's log.txt."""
    if not quiet:
        with contextlib.suppress(BrokenPipeError):  # nobody reads on, as in "train.py | head": the run goes on
            tqdm.write(text, file=sys.stdout)
            sys.stdout.flush()
    with open(folder.log, "a") as file:
        file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S}  {text}\n")


class Meter:
    """Sums statistics on the device; the host waits for them only when they are read."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.scores: dict[str, Tensor] = {}
        self.since = time.perf_counter()

    def add(self, report: dict[str, Tensor]) -> None:
        """Take in a turn's report; scores ``[N]`` count with their mean."""
        for name, value in report.items():
            if value.ndim:
                self.scores[name] = value
                value = value.mean()
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1

    def add_gradient_norm(self, player: str, module: nn.Module) -> None:
        """Take in the norm of a network's gradients."""
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        self.add({f"{player}_gradient_norm": nn.utils.get_total_norm(gradients)})

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """The clock stands still inside: pictures, evaluations and checkpoints are no part of the training's speed."""
        begin = time.perf_counter()
        yield
        self.since += time.perf_counter() - begin

    def read(self, images: int) -> dict[str, float]:
        """Means since the last reading, and images per second where ``images`` were seen since."""
        names = list(self.sums)
        sums = torch.stack([self.sums[name].float() for name in names]).tolist()  # the one host sync
        means = {name: total / self.counts[name] for name, total in zip(names, sums, strict=True)}
        means["images_per_second"] = images / (time.perf_counter() - self.since)
        self.sums, self.counts, self.since = {}, {}, time.perf_counter()
        return means


def not_finite(values: dict[str, float]) -> list[str]:
    """Names of the values that are NaN or infinite."""
    return [name for name, value in values.items() if not math.isfinite(value)]


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
    partial.write_text("".join(json.dumps(record) + "\n" for record in kept))
    partial.replace(folder.metrics)
