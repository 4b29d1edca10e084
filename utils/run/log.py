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

from utils.errors import UserError
from utils.run.folder import RunFolder


class Log:
    """Writes to the run's folder, inside a ``with`` block.

    Records of steps after ``step`` are dropped when it is made: a resumed run does these steps again.
    """

    def __init__(self, folder: RunFolder, step: int):
        from torch.utils.tensorboard import SummaryWriter  # half a second that only the process that writes needs

        self.folder = folder
        _drop_after(folder, step)

        self.writer = SummaryWriter(folder.tensorboard, purge_step=step + 1)

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        # Where an error is on its way already, a second one about a full disk would hide it.
        with contextlib.suppress(UserError) if error else contextlib.nullcontext():
            self.close()

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

    def metrics(self, step: int, records: list[dict[str, Any]]) -> None:
        """The self-describing records of an evaluation; their values also become TensorBoard points."""
        lines = [json.dumps({"kind": "metric", "step": step, **record}) + "\n" for record in records]
        with _writing(self.folder):
            with open(self.folder.metrics, "a") as file:
                file.write("".join(lines))  # in one piece: a resumed run takes any of them as a sign of all
            for record in records:
                if record["value"] is not None:
                    kind = "oracle" if record.get("oracle") else "metric"
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
    """Turn an OSError, as of a full disk, into a UserError that names the folder."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"The logs in {folder.path} could not be written ({error}); make room, then run the same command: it goes "
            "on from the last checkpoint."
        ) from error


def records(folder: RunFolder) -> list[dict[str, Any]]:
    """The records in metrics.jsonl, in their order; a line that is cut short or damaged is left out."""
    found = []
    if folder.metrics.is_file():
        for line in folder.metrics.read_bytes().split(b"\n"):
            with contextlib.suppress(ValueError):  # no JSON, or no UTF-8
                found.append(json.loads(line.decode()))
    return [x for x in found if isinstance(x, dict) and "kind" in x and isinstance(x.get("step"), int)]


def _drop_after(folder: RunFolder, step: int) -> None:
    """Rewrite metrics.jsonl without records after ``step``, atomically."""
    kept = [record for record in records(folder) if record["step"] <= step]
    partial = folder.metrics.with_name(".metrics.jsonl.partial")
    with open(partial, "w") as file:
        file.writelines(json.dumps(record) + "\n" for record in kept)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder.metrics)
