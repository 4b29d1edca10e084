"""The best model: which one is kept, and what is left of it by kills at any moment."""

import json
import math
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

from tests.utils.run.scripted import scripted
from utils.errors import UserError
from utils.run.log import records
from utils.training import checkpoint
from utils.training.players import Players
from utils.training.state import BestRecord, RunState


@pytest.mark.parametrize(("best", "auto", "step"), [("m", "", 3), ("auto", "m", 3), ("auto", "", 0), ("none", "m", 0)])
def test_the_best_networks_are_kept(tmp_path, best, auto, step):
    """Step 3 stays when a later one is worse, and replaces steps 1 and 2; at step 0 nothing is kept."""
    run = scripted(tmp_path, [1.0, 5.0, 5.0, None, 2.0], best)
    run.task.best_metric = auto
    with run.begun(0) as (_, saver, evaluator):
        for i in range(1, 6):
            with torch.no_grad():
                next(run.players.average.parameters()).fill_(i)
            evaluator.evaluate(i)
        saver.save(5)
    if not step:
        assert not run.folder.best.exists()
        return
    assert run.kept() == [f"step-{step:08d}"]
    loaded, state = Players.load(run.config, run.folder.best, run.networks, print)
    assert bool((next(loaded.average.parameters()) == step).all())
    assert state.step == step
    assert state.best == BestRecord("m", 5.0, step, higher_is_better=True)


@pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None], ids=str)
def test_what_is_no_number_is_never_the_best(tmp_path, value, first):
    """Before any other value and after one."""
    run = scripted(tmp_path, [value, 1.0, value] if first else [1.0, value])
    with run.begun(0) as (_, saver, evaluator):
        for i in range(1, 4 if first else 3):
            evaluator.evaluate(i)
        saver.save(3)
    assert run.kept() == ["step-00000002" if first else "step-00000001"]
    with run.begun(3) as (_, saver, _):
        assert saver.best.value == 1.0


def test_a_resumed_run_has_the_best_of_the_steps_before_it(tmp_path):
    """Killed after its best step 3 with its last checkpoint at 1: the best is step 1 again, until 3 is done again."""
    run = scripted(tmp_path, [5.0, 1.0, 9.0, 1.0, 9.0])
    with run.begun(0) as (_, saver, evaluator):
        evaluator.evaluate(1)
        saver.save(1)
        evaluator.evaluate(2)
        evaluator.evaluate(3)
    assert run.kept() == ["step-00000001", "step-00000003"]
    with run.begun(1) as (_, saver, evaluator):
        assert run.kept() == ["step-00000001"]
        evaluator.evaluate(2)
        assert saver.best.step == 1
        evaluator.evaluate(3)
        saver.save(3)
    assert run.kept() == ["step-00000003"]


def test_a_best_model_that_a_kill_kept_from_the_disk_is_saved_on_resumption(tmp_path):
    """Its record was written; the checkpoint of the same step, which came before it in the writer's queue, holds it."""
    run = scripted(tmp_path, [5.0])
    with run.begun(0) as (_, saver, evaluator):
        saver.save(1)
        evaluator.evaluate(1)
    shutil.rmtree(run.folder.best)
    with run.begun(1) as (_, _, evaluator):
        assert evaluator.catch_up(1)
    assert run.kept() == ["step-00000001"]


@pytest.mark.parametrize("value", [math.nan, 4.0])
def test_what_was_measured_and_is_not_the_best_is_not_saved_on_resumption(tmp_path, value):
    run = scripted(tmp_path, [5.0, value])
    with run.begun(0) as (_, saver, evaluator):
        evaluator.evaluate(1)
        saver.save(2)
        evaluator.evaluate(2)
    with run.begun(2) as (_, _, evaluator):
        assert evaluator.catch_up(2)
    assert run.kept() == ["step-00000001"]


def test_a_better_record_of_another_metric_does_not_count(tmp_path):
    """checkpoint.best may change on the way: the best by the new metric is sought from there on."""
    run = scripted(tmp_path, [5.0])
    with run.begun(0) as (_, saver, evaluator):
        evaluator.evaluate(1)
        saver.save(1)
    run.config.checkpoint.best, run.task.metrics = "other", ("m", "other")
    with run.begun(1) as (_, saver, _):
        assert saver.best is None
        saver.keep_if_best(2, [{"metric": "other", "value": 1.0, "higher_is_better": True}])
        saver.save(2)
    assert run.kept() == ["step-00000002"]


def test_the_best_model_of_an_earlier_format_is_known_by_the_records(tmp_path):
    """It did not hold its record; a worse one must not replace it."""
    run = scripted(tmp_path, [5.0, 4.0, 6.0])
    with run.begun(0) as (_, saver, evaluator):
        evaluator.evaluate(1)
        saver.save(1)
    networks = checkpoint.newest(run.folder.best, print).tensors
    checkpoint.save(run.folder.best, networks, RunState(1))  # without the record
    with run.begun(1) as (_, saver, evaluator):
        assert saver.best == BestRecord("m", 5.0, 1, higher_is_better=True)
        evaluator.evaluate(2)
        saver.save(2)
        assert saver.best.step == 1
        evaluator.evaluate(3)
        saver.save(3)
    assert run.kept() == ["step-00000003"]


def test_a_damaged_best_model_is_named_and_the_next_one_replaces_it(tmp_path, capsys):
    run = scripted(tmp_path, [5.0, 4.0])
    with run.begun(0) as (_, saver, evaluator):
        evaluator.evaluate(1)
        saver.save(1)
    (run.folder.best / "step-00000001/generator.safetensors").write_bytes(b"")
    with run.begun(1) as (_, saver, evaluator):
        assert "best/step-00000001 is damaged" in capsys.readouterr().out
        evaluator.evaluate(2)
        saver.save(2)
    assert run.kept() == ["step-00000002"]


VALUES = [3.0, 1.0, 5.0, 4.0, 5.0, 2.0]  # of steps 1 to 6: the best is the second 5.0


def saved_every_other_step(folder, begin: int) -> None:
    run = scripted(folder, VALUES[begin:])
    with run.begun(begin) as (_, saver, evaluator):
        if begin:
            saver.keep_if_best(begin, [r for r in records(run.folder) if r["step"] == begin])
        for step in range(begin + 1, 7):
            if step % 2 == 0:
                saver.save(step)
            evaluator.evaluate(step)
        saver.save(6)


@pytest.mark.parametrize("name", ["rename", "replace"])
def test_the_best_survives_a_kill_at_any_commit(tmp_path, name):
    """SIGKILL before and after every rename, of checkpoints, best models and records; then the run goes on."""
    for call in range(1, 30):
        for when in ("before", "after"):
            folder = tmp_path / f"{call}-{when}"
            folder.mkdir()
            child = os.fork()
            if child == 0:
                original, calls = getattr(Path, name), iter(range(1, 1000))

                def stand_in(path, target, call=call, when=when, original=original, calls=calls):
                    last = next(calls) == call
                    if last and when == "before":
                        os.kill(os.getpid(), signal.SIGKILL)
                    done = original(path, target)
                    if last:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return done

                setattr(Path, name, stand_in)
                saved_every_other_step(folder, 0)
                os._exit(0)
            if os.waitpid(child, 0)[1] == 0:
                assert call > 1
                return
            found = checkpoint.newest(folder / "a/checkpoints", print)
            saved_every_other_step(folder, found.state.step if found else 0)
            run = scripted(folder, [])
            assert run.kept() == ["step-00000005"], (call, when)
            state = json.loads((run.folder.best / "step-00000005/state.json").read_text())
            assert (state["best"]["value"], state["best"]["step"]) == (5.0, 5)
    raise AssertionError("it never came to its end")


@pytest.mark.parametrize("what", ["checkpoint", "best"])
def test_nothing_is_saved_once_the_lock_is_gone(tmp_path, what):
    """Another process may have the folder by then."""
    run = scripted(tmp_path, [1.0])
    with run.begun(0) as (_, saver, evaluator):
        run.folder.lock.unlink()
        with pytest.raises(UserError, match="deleted or replaced"):
            saver.save(1) if what == "checkpoint" else evaluator.evaluate(1)
    assert not run.folder.checkpoints.exists()
    assert not run.folder.best.exists()
