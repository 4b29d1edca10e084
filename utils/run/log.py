"""The log of a run: lines for people in ``log.txt``, records in ``metrics.jsonl``, curves for TensorBoard."""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from torch import Tensor
from tqdm import tqdm

from utils.errors import UserError, room
from utils.run.folder import RunFolder
from utils.run.points import points_of
from utils.run.trackers import Trackers
from utils.training.checkpoint import sync


class Log:
    """Writes to the run's folder, inside a ``with`` block.

    Records of steps after ``step``, from which the run goes on, are dropped when it is made: they are done again.
    ``trackers`` are sent what checkpoints have committed.
    """

    def __init__(self, folder: RunFolder, step: int, trackers: Trackers | None = None):
        from torch.utils.tensorboard import SummaryWriter  # half a second that only the process that writes needs

        self.folder, self.begin, self.trackers = folder, step, trackers
        kept = _up_to(folder, step)
        _replace_records(folder, kept)
        # Nobody knows which points of ``step`` itself a kill has let through: they are drawn anew, each of them once.
        self.writer = SummaryWriter(folder.tensorboard, purge_step=step)
        for record in kept:
            if record["step"] == step:
                self._draw(record)

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if kind is KeyboardInterrupt:  # a second Ctrl-C: the event file's thread may hang with the disk
            return
        # Where an error is on its way already, a second one about a full disk would hide it.
        with contextlib.suppress(UserError) if error else contextlib.nullcontext():
            self.close()

    def close(self) -> None:
        """Flush and close the event file, and end what trackers follow."""
        with _writing(self.folder):
            self.writer.close()
        if self.trackers and self.trackers.started:
            self.trackers.send(records(self.folder))  # the last evaluation comes after the last checkpoint
            self.trackers.close()

    def send(self) -> None:
        """Let trackers have what checkpoints have committed since the last call."""
        if self.trackers and self.trackers.newly_committed():
            self.trackers.send(records(self.folder))

    @contextlib.contextmanager
    def _at_once(self) -> Iterator[None]:
        """What is written inside survives a kill, curves as well as records. Raises UserError as of a full disk."""
        with _writing(self.folder):
            yield
            self.writer.flush()

    def say(self, text: str, quiet: bool = False) -> None:
        """A line for people, on the terminal (unless ``quiet``) and in log.txt."""
        say(self.folder, text, quiet)

    def record(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """One line of metrics.jsonl; numbers also become TensorBoard points ``kind/name``."""
        record = {"kind": kind, "step": step, **values}
        with self._at_once():
            with open(self.folder.metrics, "a", encoding="utf-8") as file:
                file.write(_line(record))
            self._draw(record)

    def metrics(self, step: int, measured: list[dict[str, Any]]) -> None:
        """The self-describing records of an evaluation, all or none; their values also become TensorBoard points."""
        found = [{"kind": "metric", "step": step, **record} for record in measured]
        with self._at_once():
            # By a rename: a resumed run takes any of them as a sign of all, and a kill may cut an append anywhere.
            _replace_records(self.folder, records(self.folder) + found)
            for record in found:
                self._draw(record)

    def _draw(self, record: dict[str, Any]) -> None:
        """The TensorBoard points of a record."""
        for name, value in points_of(record).items():
            self.writer.add_scalar(name, value, record["step"])

    def scores(self, step: int, scores: dict[str, Tensor]) -> None:
        """Distributions of the critic's scores, by name (real_score)."""
        with self._at_once():
            for name, values in scores.items():
                self.writer.add_histogram(f"scores/{name.removesuffix('_score')}", values, step)

    def picture(self, step: int, name: str, image: Tensor) -> None:
        """A uint8 picture ``[3, H, W]``."""
        with self._at_once():
            self.writer.add_image(name, image, step)

    def config(self, text: str) -> None:
        """The config as text."""
        with self._at_once():
            self.writer.add_text("config", "    " + text.replace("\n", "\n    "), self.begin)


def say(folder: RunFolder, text: str, quiet: bool = False) -> None:
    """A line for people, on the terminal (unless ``quiet``) and in the run's log.txt."""
    if not quiet:
        # Nobody reads on, as in "train.py | head" or when a terminal is closed: the run goes on.
        with contextlib.suppress(OSError):
            tqdm.write(text, file=sys.stdout)
            sys.stdout.flush()
    with _writing(folder), open(folder.log, "a", encoding="utf-8") as file:
        file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S}  {text}\n")


@contextlib.contextmanager
def _writing(folder: RunFolder) -> Iterator[None]:
    """Turn an OSError, as of a full disk, into a UserError that names the folder."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"The logs in {folder.path} could not be written ({error}); {room(error)}, then run "
            "the same command: it goes on from the last checkpoint."
        ) from error


def records(folder: RunFolder) -> list[dict[str, Any]]:
    """The records in metrics.jsonl, in their order; a line that is cut short or damaged is left out."""
    return parsed(folder.metrics.read_bytes()) if folder.metrics.is_file() else []


def parsed(lines: bytes) -> list[dict[str, Any]]:
    """The records in the text of a metrics.jsonl, without lines that hold none."""
    found = []
    for line in lines.split(b"\n"):
        with contextlib.suppress(ValueError):  # no JSON, or no UTF-8
            found.append(json.loads(line.decode()))
    return [x for x in found if isinstance(x, dict) and "kind" in x and isinstance(x.get("step"), int)]


def sync_records(folder: RunFolder) -> None:
    """Flush metrics.jsonl to the disk itself. Raises UserError where it cannot be written."""
    with _writing(folder):
        if folder.metrics.exists():
            sync(folder.metrics)
            sync(folder.path)


def training_lines(folder: RunFolder, step: int) -> int:
    """The number of records of the training up to ``step``."""
    return sum(record["kind"] == "train" for record in _up_to(folder, step))


def _up_to(folder: RunFolder, step: int) -> list[dict[str, Any]]:
    return [record for record in records(folder) if record["step"] <= step]


def _replace_records(folder: RunFolder, kept: list[dict[str, Any]]) -> None:
    """Make these the records in metrics.jsonl, all at once."""
    partial = folder.metrics.with_name(".metrics.jsonl.partial")
    with open(partial, "w", encoding="utf-8") as file:
        file.writelines(map(_line, kept))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder.metrics)


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record) + "\n"
