"""What goes wrong in long runs, tried for real: kills, damaged files, full disks, signals at bad moments, NaN."""

import itertools
import json
import os
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import train
from benchmarks import faults
from tests.conftest import forget_accelerator
from tests.faults import moments
from tests.launch import forked
from tests.runs import ROOT, at_step, fingerprint, run, signal_at
from utils.errors import NotFiniteError, UserError
from utils.tasks.adaptation import Adaptation
from utils.tasks.generation import Generation
from utils.training import checkpoint

ADAPTIVE = ["augment.name=ada", "augment.images=200", "augment.target=0"]
STEADY = ["optimizer.schedule=constant"]


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "digits/checkpoints").iterdir())


def test_kills_at_random_moments_do_not_change_a_bit(tmp_path, monkeypatch, capsys):
    """The short form of the benchmark: two variants, one of them with workers that decode images ahead."""
    monkeypatch.setattr(moments, "STEPS", 30)
    monkeypatch.setattr(Generation, "check_evaluation", lambda *_: None)
    monkeypatch.setattr(Generation, "evaluate", lambda *_: [])  # it would take more time than the steps
    assert faults.main(["--cases=2", "--only=random", f"--folder={tmp_path}"]) == 0, capsys.readouterr().out
    assert "| 10 | 2 | 2 | 0 |" in capsys.readouterr().out
    assert "2 workers" in (tmp_path / "0/results.jsonl").read_text()


def test_the_benchmark_tells_what_failed_and_tries_nothing_twice(tmp_path, monkeypatch, capsys):
    def cases(folder: Path, seed: int) -> dict[str, Callable[[Path], None]]:
        return {"good": lambda own: (tmp_path / "tried").open("a").write("x"), "bad": lambda own: Path("/none").stat()}

    monkeypatch.setattr(faults, "KINDS", {"a kind": cases})
    for _ in range(2):
        assert faults.main([f"--folder={tmp_path}"]) == 1
        output = capsys.readouterr().out
        assert "| a kind | 2 | 2 | 1 | 1 |" in output
        assert "- `bad`: FileNotFoundError" in output
    assert (tmp_path / "tried").read_text() == "x"


# --- Files that the disk has lost or changed


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run of ten steps, with an adaptive augmentation, and its checkpoints of step 5 and of step 10."""
    folder = tmp_path_factory.mktemp("whole")
    assert run(folder, "train.steps=10", *ADAPTIVE, *STEADY) == 0
    forget_accelerator()
    return folder


NETWORKS = ["generator", "critic", "generator_ema"]
FILES = [*NETWORKS, "generator_optimizer", "critic_optimizer", "scalars", "state.json", "manifest.json"]
DAMAGE = {
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "flipped": lambda path: path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:]),
    "removed": Path.unlink,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_named_and_the_previous_checkpoint_is_used(tmp_path, capsys, whole, damage):
    """Each file in turn; the run does the lost steps again and ends with the same bits."""
    for i, name in enumerate(FILES):
        folder = tmp_path / name
        shutil.copytree(whole, folder)
        file = name if name.endswith("json") else f"{name}.safetensors"
        DAMAGE[damage](folder / "digits/checkpoints/step-00000010" / file)
        forget_accelerator()
        if i:  # one run to the end is enough, of the others the choice of the checkpoint
            saved = checkpoint.newest(folder / "digits/checkpoints", warn=print)
            assert saved.state.step == 5
        else:
            assert run(folder, "train.steps=10", *ADAPTIVE, *STEADY) == 0
            assert fingerprint(folder) == fingerprint(whole)
        assert "step-00000010 is damaged and passed over" in capsys.readouterr().out


def test_a_run_whose_checkpoints_are_all_damaged_does_not_start_over(tmp_path, whole):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    for path in (tmp_path / "digits/checkpoints").iterdir():
        (path / "generator.safetensors").unlink()
    with pytest.raises(UserError, match="None of the 2 checkpoints"):
        run(tmp_path, "train.steps=20", *ADAPTIVE, *STEADY)
    assert checkpoints(tmp_path) == ["step-00000005", "step-00000010"]


# --- Disks that take nothing more


def in_a_process(main: Callable[[], int], output: Path) -> int:
    """The exit code of a function in a separate process, as a script would end."""
    process = forked(output, main)
    process.join()
    return process.exitcode


def once_saved(folder: Path, what: Callable[[], None]) -> None:
    """Do something in step 8, when the checkpoint of step 5 has been written behind the training."""

    def then(players) -> None:
        while not (folder / "digits/checkpoints/step-00000005").is_dir():
            time.sleep(0.001)
        what()

    at_step(pytest.MonkeyPatch(), 7, then)  # in a process that ends with the run


@pytest.mark.parametrize(("logs", "words"), [("log.every=4", "logs in"), ("log.every=100", "step-00000010 could not")])
def test_a_full_disk_stops_the_run_and_the_previous_checkpoint_goes_on(tmp_path, logs, words):
    """No file may grow beyond 4 KB from step 8 on, as on a disk that is full: logs find it first, or the checkpoint."""

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))

    def main() -> int:
        once_saved(tmp_path, fill)
        return run(tmp_path, "train.steps=10", logs, *STEADY)

    assert in_a_process(main, tmp_path / "output.txt") == 2
    error = [line for line in (tmp_path / "output.txt").read_text().splitlines() if line.startswith("error: ")]
    assert len(error) == 1
    assert words in error[0]
    assert checkpoints(tmp_path) == ["step-00000005"]
    assert run(tmp_path / "whole", "train.steps=10", logs, *STEADY) == 0
    assert run(tmp_path, "train.steps=10", logs, *STEADY) == 0
    assert fingerprint(tmp_path) == fingerprint(tmp_path / "whole")


FILES_GONE = {
    "handles": (lambda folder: allow_no_more_files(), "Too many open files", "ulimit -n"),
    "folder": (lambda folder: shutil.rmtree(folder / "digits/tensorboard"), "No such file", "leave the folder in its"),
}


@pytest.mark.parametrize("what", FILES_GONE)
def test_logs_that_cannot_be_opened_any_more_end_the_run_with_a_sentence(tmp_path, what):
    """From step 8 on. TensorBoard writes in a thread, which must not show its trace; no checkpoint is lost.

    Which file is the first to lack a handle, one of the logs or the checkpoint, is up to the threads.
    """
    lose, said, advice = FILES_GONE[what]

    def main() -> int:
        once_saved(tmp_path, lambda: lose(tmp_path))
        return run(tmp_path, "train.steps=10", "log.every=4", *STEADY)

    assert in_a_process(main, tmp_path / "output.txt") == 2
    output = (tmp_path / "output.txt").read_text()
    assert "Traceback" not in output
    (error,) = (line for line in output.splitlines() if line.startswith("error: "))
    assert said in error
    assert advice in error
    assert checkpoints(tmp_path)[0] == "step-00000005"
    assert run(tmp_path, "train.steps=10", *STEADY) == 0


def allow_no_more_files() -> None:
    """No file can be opened: the next handle is over the limit."""
    handle = os.open(ROOT, os.O_RDONLY)
    os.close(handle)
    resource.setrlimit(resource.RLIMIT_NOFILE, (handle, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def test_a_folder_that_becomes_read_only_stops_the_run(whole):
    """Root may write anywhere, so the run is somebody else's."""
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o777)

        def main() -> int:
            if os.getuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            once_saved(folder, lambda: (folder / "digits/checkpoints").chmod(0o555))
            return run(folder, "train.steps=10", *ADAPTIVE, *STEADY)

        assert in_a_process(main, folder / "output.txt") == 2
        said = (folder / "output.txt").read_text()
        assert "step-00000010 could not be written" in said
        assert "allow writing there" in said
        (folder / "digits/checkpoints").chmod(0o777)
        assert checkpoints(folder) == ["step-00000005"]
        assert run(folder, "train.steps=10", *ADAPTIVE, *STEADY) == 0
        assert fingerprint(folder) == fingerprint(whole)
    finally:
        shutil.rmtree(folder)


# --- Signals while the loop does something else


SHOWING = ["sample.every=6", "evaluate.every=6", "checkpoint.every=5", *STEADY]


@pytest.fixture(scope="module")
def shown(tmp_path_factory) -> Path:
    """A run that draws and evaluates on its way, and that nobody stopped."""
    folder = tmp_path_factory.mktemp("shown")
    assert run(folder, *SHOWING) == 0
    return folder


@pytest.mark.parametrize("what", ["picture", "evaluate"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_interrupts_sampling_and_evaluation_and_saves(tmp_path, monkeypatch, shown, what, number):
    """A minute's work is given up at once, the step's checkpoint written; the next start redoes it."""
    with monkeypatch.context() as patch:

        def last_long(*given):
            os.kill(os.getpid(), number)
            time.sleep(60)
            raise AssertionError("it was not interrupted")

        patch.setattr(Generation, what, last_long)
        begin = time.monotonic()
        assert run(tmp_path, *SHOWING) == 75
        assert time.monotonic() - begin < 30
    assert checkpoints(tmp_path) == ["step-00000005", "step-00000006"]
    assert run(tmp_path, *SHOWING) == 0
    assert fingerprint(tmp_path) == fingerprint(shown)
    assert measured(tmp_path) == measured(shown)
    assert (tmp_path / "digits/samples/step-00000006.png").is_file()


def test_a_signal_in_the_last_evaluation_leaves_a_run_that_is_not_finished(tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(Generation, "evaluate", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        assert run(tmp_path) == 75
    assert "Stopped before the last evaluation" in capsys.readouterr().out
    assert run(tmp_path) == 0
    assert "Finished at step 12" in capsys.readouterr().out


def test_a_signal_while_a_resumed_run_catches_up_loses_nothing(tmp_path, monkeypatch, shown):
    """Stopped in step 6, whose evaluation is due, and again while the next start redoes it."""
    with monkeypatch.context() as patch:
        signal_at(patch, 5)
        assert run(tmp_path, *SHOWING) == 75
    with monkeypatch.context() as patch:
        patch.setattr(Generation, "evaluate", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        assert run(tmp_path, *SHOWING) == 75
    assert run(tmp_path, *SHOWING) == 0
    assert measured(tmp_path) == measured(shown)


def measured(folder: Path) -> list[tuple]:
    lines = (folder / "digits/metrics.jsonl").read_text().splitlines()
    return [(r["step"], r["metric"], r["value"]) for r in map(json.loads, lines) if r["kind"] == "metric"]


# --- NaN and Inf


def poison(monkeypatch, *steps: int) -> None:
    """Batches of these steps hold a NaN."""
    original = train.rounds

    def poisoned(cfg, samples, start, *more) -> Iterator:
        for step, batches in enumerate(original(cfg, samples, start, *more), start):
            if step in steps:
                batches[0][0].x[0] = float("nan")
            yield batches

    monkeypatch.setattr(train, "rounds", poisoned)


@pytest.mark.parametrize("rule", train.RULES)
def test_a_nan_is_named_with_its_step_and_no_checkpoint_holds_it(tmp_path, monkeypatch, rule):
    poison(monkeypatch, 6)
    with pytest.raises(UserError, match=r"critic_loss.* became NaN or infinite in step 7; .*guard.rollbacks"):
        run(tmp_path, f"update.rule={rule}", "checkpoint.every=2", "log.every=12")
    assert checkpoints(tmp_path) == ["step-00000004", "step-00000006"]
    for path in (tmp_path / "digits/checkpoints").glob("step-*/*.safetensors"):
        assert all(bool(torch.isfinite(x).all()) for x in load_file(path).values())


def test_a_run_rolls_back_and_leaves_the_bad_step_out(tmp_path, monkeypatch, capsys):
    """Twice, and killed in between: the same bits as a run that nobody killed, and as one without those steps."""
    poison(monkeypatch, 0, 7)
    words = ["guard.rollbacks=2", "checkpoint.every=2", *STEADY]
    assert run(tmp_path / "whole", *words) == 0
    output = capsys.readouterr().out
    assert "Rolling back to step 0, to leave out step 1" in output
    assert "Rolling back to step 6, to leave out step 8" in output
    state = checkpoint.newest(tmp_path / "whole/digits/checkpoints", warn=print).state
    assert state.skipped == (0, 7)

    for stop in (3, 9):
        with monkeypatch.context() as patch:
            signal_at(patch, stop)
            run(tmp_path / "parts", *words)
    assert run(tmp_path / "parts", *words) == 0
    assert fingerprint(tmp_path / "parts") == fingerprint(tmp_path / "whole")

    log = (tmp_path / "whole/digits/log.txt").read_text()
    assert "Stopped" not in log
    with pytest.raises(UserError, match="in step 8"):
        run(tmp_path / "once", "guard.rollbacks=1", "checkpoint.every=2", *STEADY)


def test_a_checkpoint_of_skipped_steps_alone_can_be_rolled_back_to(tmp_path, monkeypatch):
    """The optimisers have not stepped yet, so they have no moments."""
    poison(monkeypatch, 0, 1)
    assert run(tmp_path, "guard.rollbacks=2", "checkpoint.every=1", *STEADY) == 0
    assert checkpoint.newest(tmp_path / "digits/checkpoints", warn=print).state.skipped == (0, 1)


@pytest.mark.parametrize("recipe", ["digits", "ring"])
def test_a_nan_reaches_neither_the_best_model_nor_the_pictures(tmp_path, monkeypatch, recipe):
    """The next line of the log and the next checkpoint are far; an evaluation is near."""
    poison(monkeypatch, 2)
    metric = {"digits": "Fréchet distance", "ring": "modes"}[recipe]
    words = ["log.every=12", "checkpoint.every=12", "evaluate.every=2", "sample.every=2", *STEADY]
    words = [*words, "evaluate.samples=64", f"checkpoint.best={metric}"]
    with pytest.raises(UserError, match="became NaN or infinite in step 3; "):
        run(tmp_path, *words, recipe=f"configs/{recipe}.yaml")
    folder = tmp_path / recipe
    assert [path.name for path in (folder / "best").iterdir()] == ["step-00000002"]
    assert all(bool(torch.isfinite(x).all()) for path in folder.glob("best/*/*.st*") for x in load_file(path).values())
    assert [path.name for path in (folder / "samples").glob("step-*")] == ["step-00000002.png"]


@pytest.mark.parametrize("words", [["evaluate.every=3"], ["sample.every=3"], ["checkpoint.every=3"]], ids=str)
def test_weights_that_become_infinite_in_a_finite_step_are_rolled_back(tmp_path, monkeypatch, words, capsys):
    """Its loss and its gradients are finite; what asks first, for a checkpoint, a picture or a record, finds them."""

    def overflow(players) -> None:
        next(players.critic.parameters()).data.view(-1)[0] = float("inf")

    at_step(monkeypatch, 2, overflow)
    every = ["sample.every=0", "evaluate.every=0", "checkpoint.every=12", "log.every=12"]
    assert run(tmp_path, *every, *words, "guard.rollbacks=1", *STEADY) == 0
    assert "Rolling back to step 0, to leave out step 3: critic: " in capsys.readouterr().out
    assert checkpoint.newest(tmp_path / "digits/checkpoints", warn=print).state.skipped == (2,)


@pytest.mark.parametrize("end", [False, True], ids=["on the way", "at the end"])
def test_features_that_are_not_finite_are_rolled_back(tmp_path, monkeypatch, capsys, end):
    """An evaluation may overflow where the weights do not."""
    original, calls = Adaptation.evaluate, itertools.count()

    def overflows_once(*given):
        if next(calls) == 0:
            raise NotFiniteError("The features became NaN or infinite.")
        return original(*given)

    monkeypatch.setattr(Adaptation, "evaluate", overflows_once)
    words = ["train.steps=6", f"evaluate.every={0 if end else 3}", "checkpoint.every=2", "guard.rollbacks=1", *STEADY]
    assert run(tmp_path, *words, recipe="configs/moons.yaml") == 0
    step, back = (6, 4) if end else (3, 2)
    assert f"Rolling back to step {back}, to leave out step {step}" in capsys.readouterr().out


# --- Errors that end a run


@pytest.mark.parametrize(
    ("error", "said"),
    [(MemoryError(), "Not enough memory"), (ConnectionResetError(104, "reset"), "A process that loads data"),
     (RuntimeError("shapes"), "RuntimeError: shapes"), (ZeroDivisionError("zero"), "ZeroDivisionError: zero")],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("where", ["feed_of", "train_step"])
def test_every_error_is_in_the_log(tmp_path, monkeypatch, where, error, said):
    def fail(*_):
        raise error

    monkeypatch.setattr(train, where, fail)
    with pytest.raises(type(error)):
        run(tmp_path)
    assert f"  Stopped: {said}" in (tmp_path / "digits/log.txt").read_text().splitlines()[-1]


# --- A game that is lost


def test_a_critic_that_has_won_is_warned_of_after_a_while(tmp_path, capsys):
    """Three log lines, of steps 4, 8 and 12, are needed; over a resumption, too."""
    assert run(tmp_path, "guard.score_gap=0", "guard.patience=3", *STEADY) == 0
    output = capsys.readouterr().out
    assert output.count("it has won") == 1
    assert "step 12  warning" in output
    assert run(tmp_path, "guard.score_gap=0", "guard.patience=4", "train.steps=16", *STEADY) == 0
    assert "step 16  warning" in capsys.readouterr().out


def test_a_gradient_that_has_vanished_is_warned_of(tmp_path, capsys):
    assert run(tmp_path, "guard.vanished=1e9") == 0
    assert "the generator's gradient has vanished" in capsys.readouterr().out
