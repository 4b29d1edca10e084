"""The folder of a run: who may write there, and for which config."""

import errno
import fcntl
import multiprocessing
import os
import platform
import signal
import sys

import accelerate
import pytest
import torch

from utils.config.loading import load_run
from utils.config.sections import Config
from utils.errors import UserError
from utils.run import folder as run
from utils.run.folder import RunFolder


@pytest.fixture
def config(tmp_path) -> Config:
    config = Config()
    config.run.dir, config.run.name = str(tmp_path), "digits"
    return config


@pytest.fixture
def folder(config) -> RunFolder:
    return RunFolder.of(config)


def refusal(folder: RunFolder) -> str:
    with pytest.raises(UserError) as caught, folder.locked():
        pytest.fail("the folder was given away")
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


def test_what_lies_where(folder, tmp_path):
    assert folder.path == tmp_path / "digits"
    places = ["config", "checkpoints", "samples", "log", "metrics", "tensorboard"]
    names = ["config.yaml", "checkpoints", "samples", "log.txt", "metrics.jsonl", "tensorboard"]
    assert [getattr(folder, place) for place in places] == [folder.path / name for name in names]


# --- The lock


def hold(folder: RunFolder, line) -> None:
    with folder.locked():
        line.send("held")
        line.recv()


@pytest.fixture
def holder(folder, config):
    """Another process that holds the folder until it is told anything."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=hold, args=(folder, theirs))
    process.start()
    assert ours.poll(60)
    process.line = ours
    yield process
    process.kill()
    process.join()


def test_a_second_process_is_refused(folder, config, holder):
    text = refusal(folder)
    assert str(folder.path) in text
    assert "in use" in text
    assert "run.name" in text


def test_the_owner_is_named(folder, holder):
    assert f"in use by process {holder.pid} on {platform.node()};" in refusal(folder)
    assert folder.lock.read_text() == f"process {holder.pid} on {platform.node()}"  # a refused process changes nothing
    with pytest.raises(UserError):
        folder.check_lock()


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def test_a_file_system_without_locks_is_not_taken_for_another_process(folder, monkeypatch, code):
    def fail(*arguments):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", fail)
    text = refusal(folder)
    assert "in use" not in text
    assert os.strerror(code) in text
    assert "run.dir" in text


def test_a_lock_that_was_deleted_does_not_give_two_owners(folder):
    """The second one gets the folder, and the first one finds out before its next save."""
    with folder.locked():
        folder.check_lock()
        folder.lock.unlink()
        with pytest.raises(UserError, match=r"was deleted or replaced .* names nobody now") as caught:
            folder.check_lock()
        assert "\n" not in str(caught.value)
    folder.lock.write_text("process 1 on elsewhere")
    with pytest.raises(UserError, match="names process 1 on elsewhere now"):
        folder.check_lock()


def test_a_lock_that_is_deleted_while_it_is_taken_is_taken_again(folder, monkeypatch):
    """Between opening and locking, the file's owner may have gone and somebody deleted it."""
    original, calls = fcntl.flock, []

    def flock(handle, how):
        calls.append(handle)
        if len(calls) == 1:
            folder.lock.unlink()
        original(handle, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with folder.locked():
        assert len(calls) == 2
        folder.check_lock()
        assert "in use" in refusal(folder)


def test_the_folder_is_free_when_the_other_is_done(folder, config, holder):
    holder.line.send("let go")
    holder.join(60)
    with folder.locked():
        pass


def test_the_lock_dies_with_its_process(folder, config, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.join(60)
    with folder.locked():
        pass


def hold_with_a_worker(folder: RunFolder, line) -> None:
    with folder.locked():
        worker = os.fork()
        if worker == 0:
            signal.pause()
        line.send(worker)
        line.recv()


def test_the_lock_dies_with_its_owner_while_a_loader_worker_lives_on(folder, config):
    """Workers are forked from the trainer, and notice only after seconds that it was killed."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    owner = context.Process(target=hold_with_a_worker, args=(folder, theirs))
    owner.start()
    worker = ours.recv()
    try:
        owner.kill()
        owner.join()
        os.kill(worker, 0)  # it is there
        with folder.locked():
            pass
    finally:
        os.kill(worker, signal.SIGKILL)


def test_another_run_is_not_in_the_way(config, holder):
    config.run.name = "other"
    with RunFolder.of(config).locked():
        pass


def test_the_same_process_cannot_hold_a_folder_twice(folder, config):
    with folder.locked():
        assert "in use" in refusal(folder)
    with folder.locked():
        pass


def test_the_lock_is_given_back_after_an_error(folder, config):
    with pytest.raises(RuntimeError), folder.locked():
        raise RuntimeError
    with folder.locked():
        pass


def test_a_folder_that_cannot_be_made_is_a_sentence(folder, config, tmp_path):
    (tmp_path / "digits").write_text("a file")
    text = refusal(folder)
    assert str(tmp_path / "digits") in text
    assert "run.dir" in text


# --- The config


@pytest.fixture
def recorded(folder, config) -> RunFolder:
    """A run whose config is written down."""
    with folder.locked():
        folder.record(config)
    return folder


def test_the_config_is_recorded_and_read_again(recorded, config):
    assert load_run(recorded.path, []) == config
    assert {path.name for path in recorded.path.iterdir()} == {"config.yaml", ".lock"}
    config.seed = 7
    recorded.record(config)
    assert load_run(recorded.path, []).seed == 7
    assert load_run(recorded.path, ["seed=9"]).seed == 9


def test_the_header_says_the_versions(recorded):
    header = [line for line in recorded.config.read_text().splitlines() if line.startswith("# ")]
    text = "\n".join(header)
    assert str(recorded.path) in text
    assert f"Python {platform.python_version()}" in text
    assert f"torch {torch.__version__}" in text
    assert f"accelerate {accelerate.__version__}" in text
    assert "git commit" in text
    assert f"python train.py {recorded.path}/config.yaml" in text


def test_outside_a_clone_the_commit_is_unknown(recorded, config, monkeypatch, tmp_path):
    monkeypatch.setattr(run, "__file__", str(tmp_path / "utils" / "run.py"))
    recorded.record(config)
    assert "git commit unknown" in recorded.config.read_text()


def test_the_config_is_whole_or_the_former_one(recorded, config, monkeypatch):
    """A kill while it is written must not leave a run without a config."""
    before = recorded.config.read_bytes()
    monkeypatch.setattr(run.Path, "replace", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        recorded.record(config)
    assert recorded.config.read_bytes() == before


def test_former_versions_stay_in_the_header(folder, config, monkeypatch):
    """The newest first, each once for every change, and no more than so many."""
    folder.path.mkdir()
    for commit in ("a", "a", "b", "a", "a"):
        monkeypatch.setattr(run, "_commit", lambda commit=commit: commit)
        folder.record(config)
    header = [line for line in folder.config.read_text().splitlines() if line.startswith("# ")]
    assert [line.split("git commit ")[-1] for line in header[1:]] == ["a", "b", "a"]
    assert [line.startswith("# Earlier: Python ") for line in header] == [False, False, True, True]
    assert load_run(folder.path, []) == config
    for number in range(50):
        monkeypatch.setattr(run, "_commit", lambda number=number: str(number))
        folder.record(config)
    header = [line for line in folder.config.read_text().splitlines() if line.startswith("# ")]
    assert [line.split("git commit ")[-1] for line in header[1:]] == [str(i) for i in range(49, 28, -1)]


def test_a_system_without_locks_is_refused_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)  # as on Windows
    with pytest.raises(UserError, match="Windows"), RunFolder(tmp_path / "a").locked():
        pass
