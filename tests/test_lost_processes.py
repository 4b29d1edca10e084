"""Processes that are killed, stopped or end with an error: the others name them, end soon, and the run goes on."""

import os
import signal
import time

import pytest

import train
from tests.launch import Launch
from tests.runs import arguments, run
from utils.errors import UserError
from utils.run import watch
from utils.tasks.generation import Generation
from utils.training import checkpoint

STEADY = ["optimizer.schedule=constant", "sample.every=0"]
LONG = [*STEADY, "train.steps=100000", "checkpoint.every=3", "log.every=1000", "run.timeout=4"]


def train_watched(words: list[str]) -> int:
    """Train, with a sign of life every tenth of a second: one is missed after half of run.timeout, or much sooner where
    the connection has broken.
    """
    watch.BEAT = 0.1
    return train.main(words)


@pytest.mark.parametrize(("what", "lost"), [(signal.SIGKILL, 1), (signal.SIGSTOP, 0)], ids=["killed", "stopped"])
def test_a_lost_process_is_named_and_the_run_goes_on(tmp_path, what, lost):
    """The first process keeps the log; where it is the one that is lost, the second writes the sentence."""
    launch = Launch(tmp_path, 2, train_watched, arguments(tmp_path, *LONG))
    checkpoints = tmp_path / "digits/checkpoints"
    launch.wait_for(lambda: bool(list(checkpoints.glob("step-*"))))
    victim, other = launch.processes[lost], launch.processes[1 - lost]
    os.kill(victim.pid, what)
    other.join(20)
    victim.kill()
    assert other.exitcode == 2
    error = [line for line in launch.output.read_text().splitlines() if not line.startswith("Begins")]
    assert len(error) == 1
    assert error[0].startswith(f"error: Process {lost} ({victim.pid} on ")
    assert error[0].endswith("run the same command again: it goes on from the last checkpoint.")
    assert (tmp_path / "digits/log.txt").read_text().splitlines()[-1].endswith(error[0].replace("error", "Stopped"))
    victim.join()
    saved = checkpoint.newest(checkpoints, warn=pytest.fail).state.step
    assert run(tmp_path, *LONG, f"train.steps={saved + 1}") == 0


def test_long_work_of_one_loses_nobody_and_the_error_of_one_ends_all(tmp_path):
    """The first process evaluates for longer than one may be silent; then the second meets an error of its own."""
    launch = Launch(tmp_path, 2, train_with_an_error_of_one, arguments(tmp_path, *LONG, "evaluate.every=2"))
    assert launch.end() == [2, 2]
    output = launch.output.read_text()
    assert "step 2  Nothing is measured" in output
    own, quoted = (line for line in output.splitlines() if line.startswith("error: "))
    assert own == "error: The sky is green."
    assert quoted.startswith(f"error: Process 1 ({launch.processes[1].pid} on ")
    assert quoted.endswith(" has ended with an error: The sky is green.")


def train_with_an_error_of_one(words: list[str]) -> int:
    """Train, with an evaluation of three seconds and an error of the second process in step 3."""
    Generation.share, Generation.evaluate = lambda *_: None, lambda *_: time.sleep(3) or []
    original = train.train_step

    def train_step(cfg, game, players, batches, recorder, step):
        if step == 2 and os.environ["RANK"] == "1":
            raise UserError("The sky is green.")
        original(cfg, game, players, batches, recorder, step)

    train.train_step = train_step
    return train_watched(words)


def test_a_run_folder_in_use_ends_all(tmp_path):
    """The first process is refused before the others have met it; the signs of the run that is there stay."""
    launch = Launch(tmp_path, 2, train_watched, arguments(tmp_path, *LONG))
    launch.wait_for(lambda: bool(list((tmp_path / "digits/.processes").glob("1"))))
    second = Launch(tmp_path / "second", 2, train_watched, arguments(tmp_path, *LONG))
    assert second.end() == [2, 2]
    output = second.output.read_text()
    assert output.count("is in use by process") == 1
    assert output.count("error: Another process has ended") == 1
    assert [process.exitcode for process in launch.processes] == [None, None]
