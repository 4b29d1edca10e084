"""The folder of a run: who may write there, and for which config."""

import copy
import multiprocessing
import os
import platform
import signal

import accelerate
import pytest
import torch
import yaml

from utils import run
from utils.config import Config, load_run
from utils.errors import UserError
from utils.run import RunFolder


@pytest.fixture
def config(tmp_path) -> Config:
    config = Config()
    config.run.dir, config.run.name = str(tmp_path), "digits"
    return config


@pytest.fixture
def folder(config) -> RunFolder:
    return RunFolder.of(config)


def refusal(folder: RunFolder, config: Config) -> str:
    with pytest.raises(UserError) as caught, folder.locked(config):
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


def hold(folder: RunFolder, config: Config, line) -> None:
    with folder.locked(config):
        line.send("held")
        line.recv()


@pytest.fixture
def holder(folder, config):
    """Another process that holds the folder until it is told anything."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=hold, args=(folder, config, theirs))
    process.start()
    assert ours.poll(60)
    process.line = ours
    yield process
    process.kill()
    process.join()


def test_a_second_process_is_refused(folder, config, holder):
    text = refusal(folder, config)
    assert str(folder.path) in text
    assert "in use" in text
    assert "run.name" in text


def test_a_refused_process_changes_nothing(folder, config, holder):
    before = folder.config.read_bytes()
    config.seed = 77
    refusal(folder, config)
    assert folder.config.read_bytes() == before


def test_the_folder_is_free_when_the_other_is_done(folder, config, holder):
    holder.line.send("let go")
    holder.join(60)
    with folder.locked(config):
        pass


def test_the_lock_dies_with_its_process(folder, config, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.join(60)
    with folder.locked(config):
        pass


def test_another_run_is_not_in_the_way(config, holder):
    config.run.name = "other"
    with RunFolder.of(config).locked(config):
        pass


def test_the_same_process_cannot_hold_a_folder_twice(folder, config):
    with folder.locked(config):
        assert "in use" in refusal(folder, config)
    with folder.locked(config):
        pass


def test_the_lock_is_given_back_after_an_error(folder, config):
    with pytest.raises(RuntimeError), folder.locked(config):
        raise RuntimeError
    with folder.locked(config):
        pass


def test_a_folder_that_cannot_be_made_is_a_sentence(folder, config, tmp_path):
    (tmp_path / "digits").write_text("a file")
    text = refusal(folder, config)
    assert str(tmp_path / "digits") in text
    assert "run.dir" in text


# --- The config


@pytest.fixture
def trained(folder, config) -> RunFolder:
    """A run with a checkpoint."""
    with folder.locked(config):
        (folder.checkpoints / "step-00000005").mkdir(parents=True)
    return folder


def test_the_config_is_recorded_and_read_again(folder, config):
    with folder.locked(config):
        assert load_run(folder.path) == config
    assert {path.name for path in folder.path.iterdir()} == {"config.yaml", ".lock"}


def test_the_header_says_the_versions(folder, config):
    with folder.locked(config):
        header = [line for line in folder.config.read_text().splitlines() if line.startswith("# ")]
    text = "\n".join(header)
    assert str(folder.path) in text
    assert f"Python {platform.python_version()}" in text
    assert f"torch {torch.__version__}" in text
    assert f"accelerate {accelerate.__version__}" in text
    assert "git commit" in text
    assert f"python train.py {folder.path}/config.yaml" in text


def test_outside_a_clone_the_commit_is_unknown(folder, config, monkeypatch, tmp_path):
    monkeypatch.setattr(run, "__file__", str(tmp_path / "utils" / "run.py"))
    with folder.locked(config):
        assert "git commit unknown" in folder.config.read_text()


def test_the_same_config_resumes(trained, config):
    with trained.locked(copy.deepcopy(config)):
        pass


def test_another_config_is_refused_by_the_keys_that_differ(trained, config):
    before = trained.config.read_bytes()
    config.seed, config.optimizer.critic_lr, config.update.rule = 7, 1e-3, "alternating"
    text = refusal(trained, config)
    assert "seed: 0 -> 7" in text
    assert "optimizer.critic_lr: 0.0002 -> 0.001" in text
    assert "update.rule: single_pass -> alternating" in text
    assert "train.batch_size" not in text
    assert "run.name=" in text
    assert trained.config.read_bytes() == before


def test_a_refused_config_gives_the_lock_back(trained, config):
    other = copy.deepcopy(config)
    other.seed = 7
    refusal(trained, other)
    with trained.locked(config):
        pass


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("train", "steps", 99),
        ("log", "every", 7),
        ("data", "workers", 0),
        ("run", "device", "cpu"),
        ("checkpoint", "keep", 5),
    ],
)
def test_what_is_only_runtime_may_change_and_is_recorded(trained, config, section, key, value):
    setattr(getattr(config, section), key, value)
    with trained.locked(config):
        assert yaml.safe_load(trained.config.read_text())[section][key] == value


def test_a_run_without_checkpoints_may_change_altogether(folder, config):
    with folder.locked(config):
        pass
    config.seed = 7
    with folder.locked(config):
        assert load_run(folder.path).seed == 7


def test_a_moved_run_is_still_that_run(trained, config, tmp_path):
    trained.path.rename(tmp_path / "moved")
    config.run.name = "moved"
    with RunFolder.of(config).locked(config):
        pass


def test_a_config_that_cannot_be_read_any_more_is_a_sentence(trained, config):
    with open(trained.config, "a") as file:
        file.write("from_a_later_version: 1\n")
    assert "from_a_later_version" in refusal(trained, config)


def test_the_config_is_whole_or_the_former_one(trained, config, monkeypatch):
    """A kill while it is written must not leave a run that cannot be resumed."""
    before = trained.config.read_bytes()
    monkeypatch.setattr(run.Path, "replace", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt), trained.locked(config):
        pass
    assert trained.config.read_bytes() == before
