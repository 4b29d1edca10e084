"""SIGKILL at the n-th write of a run, for every n: the log, records, pictures, curves, checkpoints, the best model."""

import builtins
import io
import itertools
import os
import shutil
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tqdm import tqdm

import train
from adversarial.passes import Turn
from tests.utils.run.scripted import Scripted, scripted
from utils import pictures
from utils.evaluation.records import record
from utils.run.ending import finish, is_finished
from utils.run.log import records
from utils.run.meter import OF_MACHINE
from utils.training import checkpoint

VALUES = {1: 1.0, 2: 5.0, 3: 2.0}  # of the metric "m"; step 2 is the best, and has a checkpoint
STEPS, RECORDS = len(VALUES), 3


class Steps(Scripted):
    """Weights, pictures and metrics tell how many steps were done."""

    def evaluate(self, config, players, *_):
        step = int(next(players.average.parameters()).view(-1)[0])
        names = ("m", *(f"{i}" for i in range(1, RECORDS)))
        return [record(name, VALUES[step], "", "", higher_is_better=True) for name in names]

    def picture(self, config, players, *_):
        step = int(next(players.average.parameters()).view(-1)[0])
        return torch.full((3, 2, 2), step, dtype=torch.uint8)


def cases(folder: Path, seed: int) -> dict[str, Callable[[Path], None]]:
    """Every write of the run."""
    whole = folder / "whole"
    if not (whole / "writes").is_file():
        shutil.rmtree(whole, ignore_errors=True)
        whole.mkdir()
        in_a_process(lambda: (whole / "writes").write_text(str(writes(whole))))
    count, wanted = int((whole / "writes").read_text()), left(whole)
    return {f"write {n} of {count}": lambda own, n=n: survives(own, n, wanted) for n in range(1, count + 1)}


def survives(folder: Path, n: int, whole: dict[str, object]) -> None:
    """Raise AssertionError unless a run that is killed at its ``n``-th write and started again leaves ``whole``."""

    def killed() -> None:
        kill_at(n)
        trained(folder)

    assert in_a_process(killed) != 0, "it was not killed"
    now = time.time  # event files are named by the second, and read in the order of their names
    with patch.object(time, "time", lambda: now() + 2):
        trained(folder)
    assert left(folder) == whole


def writes(folder: Path) -> int:
    """Train, and count the moments at which ``kill_at`` may kill."""
    calls = kill_at(0)
    trained(folder)
    return next(calls) - 1


def trained(folder: Path) -> None:
    """Start the run, or go on from its newest checkpoint, as train.py does."""
    run = scripted(folder, [])
    run.task = Steps([])
    config = run.config
    config.train.steps, config.log.every, config.checkpoint.every = STEPS, 1, 2
    config.sample.every = config.evaluate.every = 1
    saved = checkpoint.newest(run.folder.checkpoints, print)
    begin = saved.state.step if saved else 0
    if is_finished(run.folder, begin, STEPS):
        return
    if saved:
        run.players.restore(saved)
    with patch.object(train, "train_step", train_step), run.begun(begin) as (recorder, saver, evaluator):
        done = begin
        if evaluator.catch_up(begin):
            feed = itertools.repeat([])
            done = train.loop(config, None, run.players, feed, recorder, saver, evaluator, evaluator.stop)
        assert finish(config, done, saver, evaluator, evaluator.stop)


def train_step(cfg, game, players, batches, recorder, step: int) -> None:
    """Stands in for the real one: every weight becomes the number of steps done."""
    for network in (players.generator, players.critic, players.average):
        for parameter in network.parameters():
            parameter.grad = torch.ones_like(parameter)
    for optimizer in players.optimizers.values():
        optimizer.step()  # checkpoints hold their moments
    for network in (players.generator, players.critic, players.average):
        for parameter in network.parameters():
            parameter.data.fill_(step + 1)
    score = torch.full((4,), float(step))
    recorder.add(step, Turn(("generator", "critic"), {"real_score": score, "fake_score": -score}))


def kill_at(call: int) -> Iterator[int]:
    """SIGKILL at the ``call``-th of these moments (0: never): half of a write to a file, before a rename, after one.

    Returns the counter of these moments. Not to be undone: for a process of its own.
    """
    calls = itertools.count(1)

    def dies() -> bool:
        return next(calls) == call

    class File(io.FileIO):
        def write(self, data) -> int:
            if dies():
                super().write(bytes(data)[: len(data) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return super().write(data)

    original = builtins.open

    def open_file(file, mode="r", buffering=-1, encoding=None, *more, **options):
        if isinstance(file, int) or not set(mode) & set("wa"):
            return original(file, mode, buffering, encoding, *more, **options)
        raw = File(file, mode.replace("b", "").replace("t", ""))
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding=encoding)

    def dying(name: str) -> Callable:
        commit = getattr(Path, name)

        def stand_in(path, target):
            if dies():
                os.kill(os.getpid(), signal.SIGKILL)
            done = commit(path, target)
            if dies():
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        return stand_in

    builtins.open = io.open = open_file
    Path.rename, Path.replace = dying("rename"), dying("replace")
    return calls


def in_a_process(what: Callable[[], None]) -> int:
    """The exit status of a function in a process of its own."""
    child = os.fork()
    if child == 0:
        code = 1
        tqdm.set_lock(threading.RLock())  # its own is shared by processes: nobody would open it after a kill
        try:
            what()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1]


def left(folder: Path) -> dict[str, object]:
    """All that a run has left, but for times."""
    run = scripted(folder, []).folder
    events = EventAccumulator(str(run.tensorboard), {"images": 0, "scalars": 0, "histograms": 0}).Reload()
    return {
        "records": [{k: v for k, v in r.items() if k not in OF_MACHINE} for r in records(run)],
        "best": sorted(path.name for path in run.best.iterdir()),
        "chosen": checkpoint.newest(run.best, print).state.best,
        "checkpoints": checkpoint.steps(run.checkpoints),
        "pictures": {path.name: int(pictures.load(path).max()) for path in run.samples.glob("step-*")},
        "curves": {
            tag: [(point.step, point.value) for point in events.Scalars(tag)]
            for tag in events.Tags()["scalars"]
            if tag.removeprefix("train/") not in OF_MACHINE
        },
        "images": [image.step for image in events.Images("samples")],
    }
