"""Checkpoints that are committed or not there.

A checkpoint is a folder ``step-00001000`` of safetensors files, ``state.json`` and ``manifest.json``, which lists the
size and sha256 of every other file. It is written under a temporary name, flushed to disk with the manifest last, and
renamed; older ones are pruned only afterwards. So a folder of that name is whole, unless the disk has lost bytes,
which the manifest reveals. Nothing of it is ever unpickled.

Training waits for the copy to host memory only (``snapshot``); a ``Writer`` does the rest in a thread.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse
from safetensors.torch import save as serialise
from torch import Tensor

from utils.errors import UserError, room
from utils.training.state import RunState

DAMAGED = 2  # damaged checkpoints that are kept: the disk may have failed for a moment only
MANIFEST = "manifest.json"
STATE = "state.json"
_NO_SUCH_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)  # errors that another try would not mend
_STEP = re.compile(r"step-\d{8,}")
_FILE = re.compile(r"\w+\.safetensors|state\.json", re.ASCII)  # no path leads out of the folder
Tensors = dict[str, dict[str, Tensor]]


class Checkpoint(NamedTuple):
    """What was read: the folder, named groups of tensors on the CPU, the run's state, and the manifest's digest."""

    path: Path
    tensors: Tensors
    state: RunState
    sha256: str


def snapshot(tensors: Tensors) -> Tensors:
    """Copies in host memory, in their own layout, that training cannot change any more.

    On a GPU all copies are started before the first is waited for, into pinned memory.
    """
    values = [value for group in tensors.values() for value in group.values()]
    device = next((value.device for value in values if value.is_cuda), None)
    copies = {
        name: {
            key: torch.empty_like(value, device="cpu", pin_memory=value.is_cuda).copy_(value, non_blocking=True)
            for key, value in group.items()
        }
        for name, group in tensors.items()
    }
    if device is not None:
        torch.cuda.synchronize(device)
    return copies


class Writer:
    """Writes files while training goes on, in a thread: one job at a time, in order.

    An error of a job is raised by the next call of any method, and so in the training loop. The thread is a daemon: who
    wants a job to end must wait for it.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._errors: list[BaseException] = []  # of the job that has ended

    def submit(self, job: Callable[[], None]) -> None:
        """Start a job; waits for the one before to end."""
        self.wait()
        self._thread = threading.Thread(target=self._perform, args=(job,), name="checkpoint", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise the error of a job that has failed, without waiting for one that runs."""
        if self._thread is not None and not self._thread.is_alive():
            self.wait()

    def wait(self, seconds: float | None = None) -> None:
        """Return when nothing is left to write. Raises TimeoutError if that takes longer than ``seconds``."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        # For the thread, not for the job alone: PyTorch aborts a process that exits while a thread frees tensors
        # (github.com/pytorch/pytorch/issues/38228).
        thread.join(seconds)
        if thread.is_alive():
            raise TimeoutError
        if self._errors:
            raise self._errors.pop()

    def _perform(self, job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:
            self._errors.append(error)


def save(folder: Path, tensors: Tensors, state: RunState, keep: int | None = None) -> Path:
    """Commit a checkpoint of ``state.step`` to ``folder`` and prune all but the newest ``keep`` (None: prune none).

    Returns its path. Raises UserError if it cannot be written; the previous checkpoints are then untouched.
    """
    final = folder / f"step-{state.step:08d}"
    partial = folder / f".{final.name}.partial"
    try:
        if not folder.exists():
            folder.mkdir(parents=True)
            sync(folder.parent)
        _remove(partial)
        partial.mkdir()
        manifest = {}
        for name, group in tensors.items():
            data = serialise({key: value.cpu().contiguous() for key, value in group.items()})
            manifest[f"{name}.safetensors"] = _write(partial / f"{name}.safetensors", data)
        manifest[STATE] = _write(partial / STATE, state.to_json())
        _write(partial / MANIFEST, json.dumps(manifest, indent=1).encode())
        sync(partial)
        if final.is_file():
            final.rename(_aside(final))  # it is none of ours
        _remove(final)
        partial.rename(final)
        for later in [path for path in _steps(folder) if _number(path) > state.step]:
            # It failed verification, or the run would have gone on from it: it must not count among those kept.
            _remove(_aside(later))
            later.rename(_aside(later))
        sync(folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)  # a full disk needs the room
        raise UserError(
            f"The checkpoint {final} could not be written ({error}); the previous one is kept: {room(error)}, then "
            "run the same command."
        ) from error
    kept = _steps(folder)[-keep:] if keep else _steps(folder)
    remove(folder, lambda number: number < _number(kept[0]))
    damaged = [path for path in folder.glob("damaged-*") if _STEP.fullmatch(path.name.removeprefix("damaged-"))]
    for path in sorted(damaged, key=_number)[:-DAMAGED]:
        shutil.rmtree(path, ignore_errors=True)
    return final


def steps(folder: Path) -> list[int]:
    """The steps of the committed checkpoints in a folder, the oldest first."""
    return [_number(path) for path in _steps(folder)]


def remove(folder: Path, which: Callable[[int], bool]) -> None:
    """Delete the checkpoints of the steps that ``which`` names."""
    for path in _steps(folder):
        if which(_number(path)):
            shutil.rmtree(path, ignore_errors=True)


def newest(folder: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """Read the newest checkpoint that verifies, or None where there is none at all.

    A damaged one is named to ``warn`` and passed over. Raises UserError if there are checkpoints and none is intact, or
    one cannot be read: a run must not start over silently.
    """
    good = next(intact(folder, warn), None)
    if good is None and (found := _steps(folder)):
        raise UserError(
            f"None of the {len(found)} checkpoints in {folder} is intact; to start over, remove that folder or choose "
            "another run.name."
        )
    return good


def newest_state(folder: Path) -> RunState | None:
    """The state that the newest checkpoint names, which takes a millisecond: its tensors are neither read nor verified.

    None where there is no checkpoint, or its state is damaged.
    """
    try:
        return RunState.from_json(_content(_steps(folder)[-1] / STATE))
    except (IndexError, OSError, ValueError, TypeError):
        return None


def of_step(folder: Path, step: int) -> Checkpoint:
    """Read the checkpoint of ``step``. Raises UserError unless it can be read and is intact."""
    path = folder / f"step-{step:08d}"
    try:
        return _read(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(f"Checkpoint {path} is damaged ({error}): choose another step.") from None


def intact(folder: Path, warn: Callable[[str], None]) -> Iterator[Checkpoint]:
    """The checkpoints that verify, the newest first; damaged ones are named to ``warn``.

    Raises UserError for one that cannot be read at present, which says nothing about what it holds.
    """
    for path in reversed(_steps(folder)):
        try:
            found = _read(path)
        except OSError as error:
            if error.errno not in _NO_SUCH_FILE:
                raise _unreadable(path, error) from error
            warn(f"Checkpoint {path} is damaged and passed over: {error}.")
        except (ValueError, KeyError, TypeError, SafetensorError) as error:
            warn(f"Checkpoint {path} is damaged and passed over: {error}.")
        else:
            yield found


def check_fit(ours: dict[str, Tensor], theirs: dict[str, Tensor], source: str) -> None:
    """Raise UserError unless ``theirs``, which were read from ``source``, have the names, shapes and types of ``ours``.

    Values do not matter, so ``ours`` may be on the meta device.
    """
    wrong = sorted(name for name in ours.keys() | theirs.keys() if _form(ours.get(name)) != _form(theirs.get(name)))
    if wrong:
        name = wrong[0]
        raise UserError(
            f"{source} does not fit this run: {name} is {_form(theirs.get(name))} there and must be "
            f"{_form(ours.get(name))} ({len(wrong)} such tensors); continue from another checkpoint, or choose another "
            "run.name."
        )


def _form(tensor: Tensor | None) -> str:
    return "absent" if tensor is None else f"{str(tensor.dtype).removeprefix('torch.')} of shape {list(tensor.shape)}"


def _read(path: Path) -> Checkpoint:
    """Verify every byte against the manifest, then parse.

    Raises ValueError, KeyError, TypeError or SafetensorError for damage, OSError for what cannot be read.
    """
    listed = _content(path / MANIFEST)
    manifest = _json(listed)
    if not isinstance(manifest, dict):
        raise ValueError(f"{MANIFEST} does not list files")
    files = {}
    for name, entry in manifest.items():
        if not _FILE.fullmatch(name) or not isinstance(entry, dict) or type(entry.get("size")) is not int:
            raise ValueError(f"{MANIFEST} has the entry {name!r:.80}, which no checkpoint has")
        files[name] = _content(path / name, entry["size"])
        if hashlib.sha256(files[name]).hexdigest() != entry.get("sha256"):
            raise ValueError(f"{name} differs from the manifest")
    state = RunState.from_json(files.pop(STATE))
    if state.step != _number(path):
        raise ValueError(f"{STATE} is of step {state.step}")
    tensors = {name.removesuffix(".safetensors"): parse(data) for name, data in files.items()}
    return Checkpoint(path, tensors, state, hashlib.sha256(listed).hexdigest())


def _content(path: Path, size: int | None = None) -> bytes:
    """The bytes of a regular file of that ``size`` (None: at most a megabyte). Raises ValueError for any other file."""
    # Without O_NONBLOCK to open a pipe waits for its other end.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        info = os.fstat(file.fileno())
        if not stat.S_ISREG(info.st_mode):
            raise ValueError(f"{path.name} is not a regular file")
        if (info.st_size > 2**20) if size is None else (info.st_size != size):
            raise ValueError(f"{path.name} has {info.st_size} bytes and not those of the manifest")
        return file.read(info.st_size)


def _json(text: bytes) -> Any:
    """Parse JSON. Raises ValueError for whatever is wrong with it."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None


def _write(path: Path, data: bytes) -> dict[str, int | str]:
    """Write a file, flush it to the disk itself, and return its entry in the manifest."""
    path.write_bytes(data)
    sync(path)
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def sync(path: Path) -> None:
    """Flush a file or a folder to the disk itself; a folder if its file system can do that."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # CIFS and some FUSE file systems do not know how, and commit a rename by themselves.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(handle)


def _steps(folder: Path) -> list[Path]:
    """Committed checkpoints, the oldest first; folders of other names are none of ours.

    Raises UserError if ``folder`` is there and cannot be listed.
    """
    try:  # no glob, which takes a folder that cannot be read for an empty one
        names = [entry.name for entry in os.scandir(folder) if _STEP.fullmatch(entry.name) and entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise _unreadable(folder, error) from error
    return sorted((folder / name for name in names), key=_number)


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(
        f"{path} cannot be read at present ({error}); nothing was changed: give the same command again when it can."
    )


def _number(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _aside(path: Path) -> Path:
    """Where something is put that must not count as a checkpoint any more."""
    return path.with_name(f"damaged-{path.name}")
