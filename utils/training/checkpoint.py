"""Checkpoints that are committed or not there.

A checkpoint is a folder ``step-00001000`` of safetensors files, ``state.json`` and ``manifest.json``, which lists the
size and sha256 of every other file. It is written under a temporary name, flushed to disk with the manifest last, and
renamed; older ones are pruned only afterwards. So a folder of that name is whole, unless the disk has lost bytes,
which the manifest reveals. Nothing is ever unpickled.

Training waits for the copy to host memory only (``snapshot``); a ``Writer`` does the rest in a thread.
"""

import hashlib
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse
from safetensors.torch import save as serialise
from torch import Tensor, nn

from utils.errors import UserError
from utils.training.state import RunState

MANIFEST = "manifest.json"
STATE = "state.json"
_STEP = re.compile(r"step-\d{8,}")
Tensors = dict[str, dict[str, Tensor]]


class Checkpoint(NamedTuple):
    """What was read: the folder, named groups of tensors on the CPU, and the run's state."""

    path: Path
    tensors: Tensors
    state: RunState


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
        self._job: Future[None] | None = None

    def submit(self, job: Callable[[], None]) -> None:
        """Start a job; waits for the one before to end."""
        self.wait()
        self._job = Future()
        threading.Thread(target=_fulfil, args=(self._job, job), name="checkpoint", daemon=True).start()

    def check(self) -> None:
        """Raise the error of a job that has failed, without waiting for one that runs."""
        if self._job is not None and self._job.done():
            self.wait()

    def wait(self, seconds: float | None = None) -> None:
        """Return when nothing is left to write. Raises TimeoutError if that takes longer than ``seconds``."""
        job, self._job = self._job, None
        if job is not None:
            job.result(seconds)


def _fulfil(future: Future[None], job: Callable[[], None]) -> None:
    try:
        future.set_result(job())
    except BaseException as error:
        future.set_exception(error)


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
        _remove(final)
        partial.rename(final)
        for later in [path for path in _steps(folder) if _number(path) > state.step]:
            # It failed verification, or the run would have gone on from it: it must not count among those kept.
            _remove(damaged := later.with_name(f"damaged-{later.name}"))
            later.rename(damaged)
        sync(folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)  # a full disk needs the room
        raise UserError(f"The checkpoint {final} could not be written ({error}); the previous one is kept.") from error
    kept = _steps(folder)[-keep:] if keep else _steps(folder)
    remove(folder, lambda number: number < _number(kept[0]))
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

    A damaged one is named to ``warn`` and passed over. Raises UserError if there are checkpoints and none is intact: a
    run must not start over silently.
    """
    good = next(intact(folder, warn), None)
    if good is None and (found := _steps(folder)):
        raise UserError(
            f"None of the {len(found)} checkpoints in {folder} is intact; to start over, remove that folder or choose "
            "another run.name."
        )
    return good


def intact(folder: Path, warn: Callable[[str], None]) -> Iterator[Checkpoint]:
    """The checkpoints that verify, the newest first; damaged ones are named to ``warn``."""
    for path in reversed(_steps(folder)):
        try:
            found = _read(path)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            warn(f"Checkpoint {path} is damaged and passed over: {error}.")
        else:
            yield found


def check_fit(module: nn.Module, tensors: dict[str, Tensor], source: str) -> None:
    """Raise UserError unless ``tensors`` have the names and shapes of the module's state."""
    ours = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    theirs = {name: tuple(value.shape) for name, value in tensors.items()}
    wrong = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    if wrong:
        name = wrong[0]
        raise UserError(
            f"{source} does not fit the network: {name} has shape {theirs.get(name)} in the file and "
            f"{ours.get(name)} in the network ({len(wrong)} such tensors)."
        )


def _read(path: Path) -> Checkpoint:
    """Verify every byte against the manifest, then parse. Raises ValueError or OSError for damage."""
    manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    files = {name: (path / name).read_bytes() for name in manifest}
    for name, data in files.items():
        if len(data) != manifest[name]["size"] or hashlib.sha256(data).hexdigest() != manifest[name]["sha256"]:
            raise ValueError(f"{name} differs from the manifest")
    state = RunState.from_json(files.pop(STATE))
    if state.step != _number(path):
        raise ValueError(f"{STATE} is of step {state.step}")
    return Checkpoint(path, {name.removesuffix(".safetensors"): parse(data) for name, data in files.items()}, state)


def _write(path: Path, data: bytes) -> dict[str, int | str]:
    """Write a file, flush it to the disk itself, and return its entry in the manifest."""
    path.write_bytes(data)
    sync(path)
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def sync(path: Path) -> None:
    """Flush a file or a folder to the disk itself."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _steps(folder: Path) -> list[Path]:
    """Committed checkpoints, the oldest first; folders of other names are none of ours."""
    return sorted((path for path in folder.glob("step-*") if _STEP.fullmatch(path.name) and path.is_dir()), key=_number)


def _number(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _remove(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)
