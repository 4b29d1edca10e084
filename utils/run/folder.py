"""The folder of a run: its files, and the lock that lets one process write there."""

import fcntl
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import accelerate
import torch

from utils.config.sections import Config
from utils.config.text import to_yaml
from utils.errors import UserError


@dataclass(frozen=True)
class RunFolder:
    """``<run.dir>/<run.name>`` and the paths in it."""

    path: Path

    @classmethod
    def of(cls, config: Config) -> "RunFolder":
        """The folder that ``config`` names."""
        return cls(Path(config.run.dir) / config.run.name)

    @property
    def config(self) -> Path:
        """The resolved config."""
        return self.path / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        """Folder of ``step-XXXXXXXX`` folders."""
        return self.path / "checkpoints"

    def checkpoint_folder(self, weights: str) -> Path:
        """The folder of checkpoints in which these ``players.WEIGHTS`` are found."""
        return self.best if weights == "best" else self.checkpoints

    @property
    def best(self) -> Path:
        """Folder of the one ``step-XXXXXXXX`` folder that is best by ``checkpoint.best``."""
        return self.path / "best"

    @property
    def samples(self) -> Path:
        """Folder of PNG files."""
        return self.path / "samples"

    @property
    def log(self) -> Path:
        """Lines for people, with times."""
        return self.path / "log.txt"

    @property
    def metrics(self) -> Path:
        """One JSON record a line."""
        return self.path / "metrics.jsonl"

    @property
    def tensorboard(self) -> Path:
        """Event files."""
        return self.path / "tensorboard"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder's lock. Raises UserError if another process holds it.

        The lock dies with the process, even where loader workers, which are forked from it, live on for seconds.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            handle = open(self.path / ".lock", "w", encoding="utf-8")  # noqa: SIM115  (closing it releases the lock)
        except OSError as error:
            raise UserError(f"Run folder {self.path} cannot be written ({error}); choose another run.dir.") from None
        os.register_at_fork(after_in_child=handle.close)  # or a worker would hold the lock, too
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UserError(f"{self.path} is in use by another process; wait for it or choose run.name.") from None
            yield

    def record(self, config: Config) -> None:
        """Write the resolved config, with versions and commit, whole or not at all."""
        partial = self.path / ".config.yaml.partial"
        with open(partial, "w", encoding="utf-8") as file:
            file.write(to_yaml(config, header=_provenance(self.path)))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.config)


def _provenance(path: Path) -> str:
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, torchvision {version('torchvision')}"
    return (
        f"Resolved config of {path}. Resume or continue: python train.py {path}/config.yaml\n"
        f"{versions}, accelerate {accelerate.__version__}, git commit {_commit()}"
    )


def _commit() -> str:
    """The commit that is checked out, "+ changes" if files differ from it, "unknown" outside a clone."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", here, *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + (" + changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
