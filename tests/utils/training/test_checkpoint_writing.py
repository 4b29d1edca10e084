"""A checkpoint is committed or it is not there, whatever happens while it is written."""

import errno
import os
import resource
import shutil
import signal
import stat
import threading
import time
from pathlib import Path

import pytest
import torch

from tests.utils.training.checkpoints import FILES, KEEP, Warnings, assert_reads, steps_in, write
from utils.errors import UserError
from utils.training.checkpoint import Writer, newest, save, snapshot
from utils.training.state import RunState

LEFTOVERS = {
    "empty": lambda path: path.mkdir(),
    "half-written": lambda path: (path.mkdir(), (path / "generator.safetensors").write_bytes(b"half")),
    "complete": lambda path: shutil.copytree(path.parent / "step-00000001", path),
    "a-file": lambda path: path.write_text("x"),
    "a-link": lambda path: path.symlink_to("step-00000001"),
    "a-dangling-link": lambda path: path.symlink_to("nowhere"),
    "with-folders-in-it": lambda path: (path / "a" / "b").mkdir(parents=True),
}


@pytest.mark.parametrize("leave", LEFTOVERS.values(), ids=LEFTOVERS)
def test_a_leftover_is_harmless_and_replaced(tmp_path, leave):
    write(tmp_path, 1)
    leave(tmp_path / ".step-00000002.partial")
    assert_reads(tmp_path, 1)
    write(tmp_path, 2)
    assert_reads(tmp_path, 2)
    assert steps_in(tmp_path) == ["step-00000001", "step-00000002"]


def test_only_a_leftover_is_no_checkpoint(tmp_path):
    (tmp_path / ".step-00000002.partial").mkdir()
    assert newest(tmp_path, Warnings()) is None


def half_of_a_file(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data[: len(data) // 2])


def half_of_a_folder(path: Path, **options) -> None:
    first = next(Path(path).iterdir(), None)
    if first is not None:
        first.unlink()


# Everything that a save does to the disk, and what half of it looks like where it can be cut in two.
VISIBLE = {
    "mkdir": (Path, None),
    "write_bytes": (Path, half_of_a_file),
    "fsync": (os, None),
    "rename": (Path, None),
    "rmtree": (shutil, half_of_a_folder),
}


def kill_at(name: str, call: int, when: str) -> None:
    """SIGKILL this process before, halfway through, or after the ``call``-th call of a function."""
    where, half = VISIBLE[name]
    original, calls = getattr(where, name), iter(range(1, 10**6))

    def stand_in(*arguments, **options):
        if next(calls) != call:
            return original(*arguments, **options)
        if when == "after":
            original(*arguments, **options)
        elif when == "halfway":
            half(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")

    setattr(where, name, stand_in)


def killed(folder: Path, step: int, name: str, call: int, when: str) -> bool:
    """Save in a process that is killed at that moment; False if that moment was never reached."""
    child = os.fork()
    if child == 0:
        kill_at(name, call, when)
        write(folder, step)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL)
    return status == signal.SIGKILL


MOMENTS = [(name, when) for when in ("before", "halfway", "after") for name in VISIBLE]


@pytest.mark.parametrize(("name", "when"), [m for m in MOMENTS if m[1] != "halfway" or VISIBLE[m[0]][1]])
def test_a_save_that_is_killed_is_committed_or_not_there(tmp_path, name, when):
    """At every call of everything that touches the disk: files, manifest, rename, pruning. The folder has a leftover
    of another kill to remove, and a checkpoint to prune.
    """
    for call in range(1, 100):
        folder = tmp_path / str(call)
        write(folder, 1, 2)
        (folder / ".step-00000003.partial").mkdir()
        (folder / ".step-00000003.partial" / "x").touch()
        if not killed(folder, 3, name, call, when):
            break  # every such call has been tried
        assert_reads(folder, 3 if (folder / "step-00000003").is_dir() else 2)  # without a warning
        write(folder, 3)
        assert_reads(folder, 3)
        write(folder, 4)
        assert steps_in(folder) == ["step-00000003", "step-00000004"]
    assert call > 1


def test_the_first_save_that_is_killed_leaves_an_empty_folder(tmp_path):
    assert killed(tmp_path, 1, "rename", 1, "before")
    assert newest(tmp_path, Warnings()) is None
    write(tmp_path, 1)
    assert_reads(tmp_path, 1)


def test_everything_is_on_the_disk_before_the_rename_and_the_rename_before_the_pruning(tmp_path, monkeypatch):
    """A power cut keeps no order among writes but that of fsync."""
    folder, events = tmp_path / "checkpoints", []
    write(folder, 1, 2)
    sync, rename, rmtree = os.fsync, Path.rename, shutil.rmtree

    def noted_sync(handle):
        events.append(("sync", os.fstat(handle).st_ino))
        sync(handle)

    def noted_rename(path, target):
        inside = {file.name: file.stat().st_ino for file in path.iterdir()}
        events.append(("rename", inside, path.stat().st_ino))
        return rename(path, target)

    def noted_rmtree(path, **options):
        events.append(("remove", Path(path).name))
        rmtree(path, **options)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(Path, "rename", noted_rename)
    monkeypatch.setattr(shutil, "rmtree", noted_rmtree)
    write(folder, 3)

    kinds = [event[0] for event in events]
    at = kinds.index("rename")
    _, inside, partial = events[at]
    assert kinds.count("rename") == 1
    assert inside.keys() == set(FILES)
    before = [event[1] for event in events[:at]]
    assert all(number in before for number in inside.values())
    assert partial in before
    data = [before.index(number) for name, number in inside.items() if name != "manifest.json"]
    assert before.index(inside["manifest.json"]) > max(data)
    assert events[at + 1 :] == [("sync", folder.stat().st_ino), ("remove", "step-00000001")]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT], ids=errno.errorcode.get)
@pytest.mark.parametrize("name", ["mkdir", "write_bytes", "fsync", "rename"])
def test_a_failure_to_write_is_a_sentence_and_keeps_the_previous_one(tmp_path, monkeypatch, name, code):
    write(tmp_path, 1, 2)

    def fail(*arguments, **options):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(VISIBLE[name][0], name, fail)
    with pytest.raises(UserError) as caught:
        write(tmp_path, 3)
    text = str(caught.value)
    assert "step-00000003" in text
    assert os.strerror(code) in text
    assert "\n" not in text
    monkeypatch.undo()
    assert_reads(tmp_path, 2)
    write(tmp_path, 3)
    assert_reads(tmp_path, 3)


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP], ids=errno.errorcode.get)
@pytest.mark.parametrize("kind", ["folders", "files"])
def test_a_file_system_that_cannot_flush_folders_takes_checkpoints(tmp_path, monkeypatch, code, kind):
    """CIFS; but files must be flushed."""
    sync = os.fsync

    def fail(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode) == (kind == "folders"):
            raise OSError(code, os.strerror(code))
        sync(handle)

    monkeypatch.setattr(os, "fsync", fail)
    if kind == "folders":
        write(tmp_path / "new", 1, 2, 3)
        assert_reads(tmp_path / "new", 3)
    else:
        with pytest.raises(UserError, match=os.strerror(code)):
            write(tmp_path / "new", 1)


def test_a_disk_that_is_really_full(tmp_path):
    """A limit on file sizes stands for it."""
    write(tmp_path, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**14, hard))
    try:
        with pytest.raises(UserError) as caught:
            save(tmp_path, {"generator": {"x": torch.zeros(2**16)}}, RunState(2), KEEP)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert_reads(tmp_path, 1)


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(UserError, match="checkpoints"):
        write(tmp_path / "checkpoints", 1)


def test_a_pruning_that_fails_is_no_failure(tmp_path, monkeypatch):
    """The checkpoint is committed by then."""
    write(tmp_path, 1, 2)
    rmdir = os.rmdir

    def fail(path, *arguments, **options):
        if "step-00000001" in str(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        rmdir(path, *arguments, **options)

    monkeypatch.setattr(os, "rmdir", fail)
    write(tmp_path, 3)
    assert_reads(tmp_path, 3)


def test_a_snapshot_does_not_follow_the_training():
    x = torch.arange(24.0).reshape(1, 2, 3, 4).contiguous(memory_format=torch.channels_last)
    copies = snapshot({"a": {"x": x}, "b": {}})
    x.zero_()
    assert torch.equal(copies["a"]["x"], torch.arange(24.0).reshape(1, 2, 3, 4))
    assert copies["b"] == {}


def test_jobs_are_done_one_after_the_other_and_nobody_waits_for_the_first():
    writer, done, gate = Writer(), [], threading.Event()

    def first():
        gate.wait(60)
        done.append(1)

    writer.submit(first)
    writer.check()
    assert done == []
    gate.set()
    writer.submit(lambda: done.append(2))  # at most one is in flight
    assert done[0] == 1
    writer.wait()
    assert done == [1, 2]


@pytest.mark.parametrize("method", ["check", "wait", "submit"])
def test_an_error_of_a_job_is_raised_in_the_loop_once(method):
    writer = Writer()

    def fail():
        raise UserError("the disk is full")

    writer.submit(fail)
    writer._thread.join()
    with pytest.raises(UserError, match="the disk is full"):
        getattr(writer, method)(*[lambda: None] * (method == "submit"))
    writer.check()
    writer.wait()


def test_whoever_waits_for_a_job_waits_until_its_thread_has_freed_what_it_held():
    # PyTorch aborts a process that exits while another thread frees tensors.
    freed, gate = threading.Event(), threading.Event()

    class Held:
        def __del__(self):
            time.sleep(0.05)  # lets other threads run
            freed.set()

    def job_that_holds(held):
        return lambda: gate.wait(60) and held and None

    writer = Writer()
    writer.submit(job_that_holds(Held()))
    gate.set()  # by now nobody but the thread holds it
    writer.wait()
    assert freed.is_set()
