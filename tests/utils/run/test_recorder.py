"""What is written at the log interval, and what is warned of there."""

import math
import re
import time

import pytest
import torch

from adversarial.passes import Turn
from tests.runs import alone
from tests.utils.run.scripted import Run, scripted
from utils.run.log import records
from utils.run.meter import OF_MACHINE
from utils.run.recorder import NotFiniteError, Recorder


@pytest.fixture
def run(tmp_path) -> Run:
    run = scripted(tmp_path, [])
    run.config.train.steps, run.config.train.batch_size, run.config.guard.patience = 8, 4, 2
    return run


def turn(real: float = 1.0, fake: float = -1.0, loss: float = 0.5) -> Turn:
    report = {"real_score": torch.full((4,), real), "fake_score": torch.full((4,), fake)}
    return Turn(("generator", "critic"), {**report, "critic_loss": torch.tensor(loss)})


def give_gradients(run: Run, size: float) -> None:
    for network in (run.players.generator, run.players.critic):
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        next(network.parameters()).grad.view(-1)[0] = size


def recorded(recorder: Recorder, *turns: Turn, step: int) -> None:
    """Steps up to ``step``, one for each turn, and then a line of the log."""
    for i, each in enumerate(turns, step - len(turns)):
        recorder.add(i, each)
    recorder.write(step)


def test_the_values_of_a_line(run):
    """Means since the line before; rates and λ of the last step."""
    run.config.update.warmup, run.config.optimizer.generator_lr, run.config.optimizer.critic_lr = 4, 0.1, 0.2
    give_gradients(run, 3.0)
    with run.begun(0) as (recorder, _, _):
        assert next(recorder.steps()) == 0
        recorded(recorder, turn(loss=0.0), turn(loss=1.0), step=2)
        recorded(recorder, turn(real=3.0), step=3)
    first, second = records(run.folder)
    want = {"critic_loss": 0.5, "real_score": 1.0, "fake_score": -1.0, "generator_gradient_norm": 3.0}
    want["score_margin"] = 2.0
    want |= {"critic_gradient_norm": 3.0, "generator_learning_rate": 0.1, "critic_learning_rate": 0.2}
    assert want | {"kind": "train", "step": 2, "coefficient": 0.5} == {
        name: value for name, value in first.items() if name not in OF_MACHINE
    }
    assert (second["real_score"], second["coefficient"]) == (3.0, 0.75)
    assert first["images_per_second"] > 0
    assert 0 < first["seconds"] < second["seconds"]
    assert 0 < first["cpu_seconds"] < second["cpu_seconds"]


def test_a_line_for_people_says_what_steps_cost(run, monkeypatch):
    """A step takes 2 s, and a pause after each line 4 s: those that are left take as long. Of a resumed run the time
    before does not count.
    """
    give_gradients(run, 1.0)
    for begin, steps in ((0, (2, 4)), (4, (5, 7))):
        now = [100.0]
        with monkeypatch.context() as patch:
            patch.setattr(time, "perf_counter", lambda now=now: now[0])
            with run.begun(begin) as (recorder, _, _):
                next(recorder.steps())
                for step, last in zip(steps, (begin, steps[0]), strict=True):
                    now[0] += 2.0 * (step - last)
                    recorded(recorder, *[turn()] * (step - last), step=step)
                    with recorder.paused():
                        now[0] += 4.0
    lines = [line.split("  ", 1)[1] for line in run.folder.log.read_text().splitlines()]
    memory = [f"{record['peak_memory_mib']} MiB" for record in records(run.folder)]
    assert [re.sub(r"(\d/8) .* (?=2 samples)", r"\1 ", line) for line in lines] == [
        f"step 2/8 2 samples/s  2000.0 ms/step  {memory[0]}  00:12 left",  # 6 steps of 2 s
        f"step 4/8 2 samples/s  2000.0 ms/step  {memory[1]}  00:12 left",  # 4 steps of 3 s
        f"step 5/8 2 samples/s  2000.0 ms/step  {memory[2]}  00:06 left",
        f"step 7/8 2 samples/s  2000.0 ms/step  {memory[3]}  00:03 left",  # a step of (3 * 2 + 4) / 3 s
    ]


def test_a_run_without_an_end_has_no_time_left(run, capsys):
    run.config.train.steps = None
    give_gradients(run, 1.0)
    with run.begun(0) as (recorder, _, _):
        next(recorder.steps())
        recorded(recorder, turn(), step=1)
    assert re.search(r"^step 1/\.\.\. .* MiB  no end$", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize(("step", "share"), [(2, 1.0), (3, 1.5), (1, 0.0)])
def test_seconds_go_on_where_a_resumed_run_does(run, step, share):
    """From the last line that is kept; a checkpoint between two lines has taken as much more as it has steps."""
    with run.begun(0) as (recorder, _, _):
        for number, seconds in ((2, 100.0), (4, 200.0)):
            recorder.log.record("train", number, {"seconds": seconds, "cpu_seconds": 3 * seconds})
    with run.begun(step) as (recorder, _, _):
        assert (recorder.meter.seconds, recorder.meter.cpu_seconds) == (100 * share, 300 * share)


def test_sides_have_their_names(run):
    run.task.side_names = ("source", "target")
    give_gradients(run, 1.0)
    with run.begun(0) as (recorder, _, _):
        next(recorder.steps())
        recorder.add(0, Turn(("critic",), {"critic_accuracy_real": torch.tensor(0.5), "fake_score": torch.zeros(4)}))
        recorder.write(1)
    (line,) = records(run.folder)
    assert {"critic_accuracy_source", "target_score", "critic_gradient_norm"} <= line.keys()
    assert not [name for name in line if "real" in name or "fake" in name]


@pytest.mark.parametrize("where", ["loss", "gradient"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_stops_it_before_a_line_is_written(run, where, value):
    with run.begun(4) as (recorder, _, _):
        next(recorder.steps())
        for step in range(4, 8):
            bad = value if step == 6 else 1.0
            give_gradients(run, bad if where == "gradient" else 1.0)
            recorder.add(step, turn(loss=bad if where == "loss" else 1.0))
        with pytest.raises(NotFiniteError, match="became NaN or infinite in step 7") as error:
            recorder.write(8)
        assert error.value.step == 6
    assert records(run.folder) == []


def test_the_critic_must_dominate_in_as_many_lines_as_guard_patience(run, capsys):
    """Over a resumption, too: the lines before it count. One balanced line begins the count again."""
    run.config.guard.score_gap = 10.0
    give_gradients(run, 1.0)
    warned = []
    for begin, fakes in ((0, (-30.0, -9.0, -30.0)), (3, (-30.0, -30.0))):
        with run.begun(begin) as (recorder, _, _):
            next(recorder.steps())
            for step, fake in enumerate(fakes, begin + 1):
                recorded(recorder, turn(real=0.0, fake=fake), step=step)
                if "it has won" in capsys.readouterr().out:
                    warned.append(step)
    assert warned == [4, 5]


@pytest.mark.parametrize(("norm", "warns"), [(1e-12, True), (1e-9, False)])
def test_a_generator_whose_gradient_vanishes_is_warned_of(run, capsys, norm, warns):
    give_gradients(run, norm)
    with run.begun(0) as (recorder, _, _):
        next(recorder.steps())
        recorded(recorder, turn(), step=1)
    assert ("gradient has vanished" in capsys.readouterr().out) is warns


def test_lines_without_a_generators_turn_say_nothing_of_its_gradient(run, capsys):
    run.config.guard.vanished = 1e9
    give_gradients(run, 1.0)
    with run.begun(0) as (recorder, _, _):
        next(recorder.steps())
        recorder.add(0, turn()._replace(players=("critic",)))
        recorder.write(1)
    assert "vanished" not in capsys.readouterr().out


def test_a_process_that_writes_nothing_still_refuses_what_is_not_finite(run):
    recorder = Recorder(run.config, run.task, run.players, None, alone().group, 0)
    give_gradients(run, 1.0)
    recorder.add(0, turn())
    recorder.write(1)
    recorder.add(1, turn(loss=math.nan))
    with pytest.raises(NotFiniteError):
        recorder.check_finite()
    assert not run.folder.metrics.exists()
