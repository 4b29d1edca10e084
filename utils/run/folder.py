"""The folder of a run: its files, and the lock that lets one process write there."""

import errno
import itertools
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TextIO

import accelerate
import torch

from utils.config.sections import Config
from utils.config.text import to_yaml
from utils.errors import UserError
from utils.paths import path_of

_HELD = (errno.EWOULDBLOCK, errno.EACCES)  # errors that say that another process has the lock
EARLIER = 20  # former versions that the header of a config.yaml names


@dataclass(frozen=True)
class RunFolder:
    """``<run.dir>/<run.name>`` and the paths in it."""

    path: Path

    @classmethod
    def of(cls, config: Config) -> "RunFolder":
        """The folder that ``config`` names."""
        return cls(path_of(config.run.dir) / config.run.name)

    @property
    def lock(self) -> Path:
        """Names the process that writes in the folder."""
        return self.path / ".lock"

    @property
    def signs(self) -> Path:
        """Files in which processes that train together give signs of life."""
        return self.path / ".processes"

    @property
    def config(self) -> Path:
        """The resolved config."""
        return self.path / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        """Folder of ``step-XXXXXXXX`` folders."""
        return self.path / "checkpoints"

    def checkpoint_folder(self, weights: str) -> Path:
        """The folder of checkpoints in which these ``players.WEIGHTS`` are found.

        Raises UserError for the best ones of a run that has chosen none.
        """
        if weights == "best" and not any(self.best.glob("step-*")):
            raise UserError(
                f"{self.path} has no chosen model: train with evaluate.every=1000 and checkpoint.best=auto (or a "
                "metric) for one to be kept, or use --weights ema."
            )
        return self.best if weights == "best" else self.checkpoints

    @property
    def best(self) -> Path:
        """Folder of the one ``step-XXXXXXXX`` folder that is best by ``checkpoint.best``."""
        return self.path / "best"

    @property
    def features(self) -> Path:
        """Folder of feature networks and features of real images, of all runs beside this one."""
        return self.path.parent / ".features"

    @property
    def samples(self) -> Path:
        """Folder of PNG files."""
        return self.path / "samples"

    @property
    def explanations(self) -> Path:
        """Folder of PNG files and records of what networks look at."""
        return self.path / "explain"

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
        """Hold the folder's lock, a file that names this process.

        Raises UserError if another process holds it, or the file system has no locks. The lock dies with the process,
        even where loader workers, which are forked from it, live on for seconds.
        """
        while not _is_at(handle := _locked_file(self.path), self.lock):
            handle.close()  # the file was deleted meanwhile, and the next process would lock another one
        os.register_at_fork(after_in_child=handle.close)  # or a worker would hold the lock, too
        with handle:
            handle.truncate(0)
            handle.write(_this_process())
            handle.flush()
            yield

    def owner(self) -> str:
        """The process that holds the folder's lock; "" for nobody."""
        try:
            import fcntl

            with open(self.lock, encoding="utf-8") as handle:
                try:
                    fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except OSError as error:
                    return (handle.read().strip() or "another process") if error.errno in _HELD else ""
        except (ImportError, OSError):  # no locks here, or none was ever held
            pass
        return ""

    def check_lock(self) -> None:
        """Raise UserError if the lock of this process was deleted or replaced: another one may write here by now."""
        try:
            owner = self.lock.read_text(encoding="utf-8")
        except FileNotFoundError:
            owner = "nobody"
        if owner != _this_process():
            raise UserError(
                f"{self.lock} was deleted or replaced while this process ({_this_process()}) held it, and names "
                f"{owner} now: this run stops before two write there; start it again when no other process does."
            )

    def record(self, config: Config, history: tuple[str, ...] = ()) -> None:
        """Write the resolved config, whole or not at all.

        Above it stand the ``history`` of its weights, and versions and commit of this start and earlier ones.
        """
        former = self._versions()
        now = _versions()
        header = [f"Resolved config of {self.path}. Resume or continue: python train.py {self.path}/config.yaml", now]
        header += [f"Earlier: {text}" for text in former[former[:1] == [now] :][:EARLIER]]
        header += [f"History: {text}" for text in history]
        partial = self.path / ".config.yaml.partial"
        with open(partial, "w", encoding="utf-8") as file:
            file.write(to_yaml(config, header="\n".join(header)))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.config)

    def _versions(self) -> list[str]:
        """The versions with which the run was started before, the latest first."""
        if not self.config.is_file():
            return []
        header = itertools.takewhile(
            lambda line: line.startswith("#"), self.config.read_text(encoding="utf-8").splitlines()
        )
        return [line.removeprefix("# ").removeprefix("Earlier: ") for line in header if "git commit" in line]


def _locked_file(folder: Path) -> TextIO:
    """The open and locked ``.lock`` of a folder."""
    try:
        import fcntl  # here, for a sentence where there is none
    except ImportError:
        raise UserError(
            "Run folders are locked by fcntl, which Windows does not have: use Linux, macOS or WSL."
        ) from None
    path = RunFolder(folder).lock
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = open(path, "a+", encoding="utf-8")  # noqa: SIM115  (closing it releases the lock)
    except OSError as error:
        raise UserError(f"Run folder {folder} cannot be written ({error}); choose another run.dir.") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        with handle:
            handle.seek(0)
            owner = handle.read().strip() or "another process"
        if error.errno not in _HELD:
            raise UserError(
                f"{path} cannot be locked ({error}), so two processes could write there: choose a run.dir on a file "
                "system with locks, or have this one mounted with them."
            ) from None
        raise UserError(f"{folder} is in use by {owner}; wait for it or choose run.name.") from None
    return handle


def _is_at(handle: TextIO, path: Path) -> bool:
    """Whether an open file is still the one at ``path``."""
    return path.exists() and os.path.samestat(os.fstat(handle.fileno()), path.stat())


def _this_process() -> str:
    return f"process {os.getpid()} on {platform.node()}"


def _versions() -> str:
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, torchvision {version('torchvision')}"
    return f"{versions}, accelerate {accelerate.__version__}, git commit {_commit()}"


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
