"""A run of a tiny game whose metric "m" has the values that a test sets, for tests of what surrounds the loop."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from models import mlp
from tests.runs import alone
from utils.config.sections import Config
from utils.data.samples import DataSet, Resident
from utils.evaluation.records import record
from utils.run.evaluator import Evaluator
from utils.run.folder import RunFolder
from utils.run.log import Log
from utils.run.recorder import Recorder
from utils.run.saver import Saver, best_metric
from utils.tasks.generation import Generation
from utils.training.players import Players
from utils.training.state import RunState

DATA = DataSet("ring", (2,), 8, Resident(torch.zeros(4, 2), torch.arange(4)), None)


class Scripted(Generation):
    """The generation game with the metric "m", of which more is better."""

    metrics, best = ("m",), ""

    def __init__(self, values: list[float | None]):
        self.values = iter(values)

    def offered(self, *_):
        return self.metrics

    def evaluate(self, *_):
        return [record("m", next(self.values), "", "", higher_is_better=True)]


@dataclass
class Run:
    """What a run of the game is made of."""

    config: Config
    task: Scripted
    folder: RunFolder
    players: Players

    @contextmanager
    def begun(self, step: int) -> Iterator[tuple[Recorder, Saver, Evaluator]]:
        """Recorder, saver and evaluator of a run that starts from ``step``."""
        config, task, players, stop = self.config, self.task, self.players, alone()
        with (
            self.folder.locked(),
            Log(self.folder, step) as log,
            Saver(config, self.folder, players, RunState(step), best_metric(config, task, DATA), True) as saver,
            Recorder(config, task, players, log, stop.group, step) as recorder,
        ):
            yield recorder, saver, Evaluator(config, task, DATA, players, log, saver, stop)

    def networks(self, *_) -> tuple[torch.nn.Module, torch.nn.Module]:
        """Fresh networks of the game."""
        return self.task.networks(self.config, self.task.sizes(DATA))

    def kept(self) -> list[str]:
        """The best models on the disk."""
        return sorted(path.name for path in self.folder.best.iterdir())


def scripted(folder: Path, values: list[float | None], best: str = "m") -> Run:
    """A run in ``folder`` whose evaluations give ``values``, with ``checkpoint.best=best``."""
    config = Config(model=mlp.Config(width=4))
    config.run.dir, config.run.name, config.checkpoint.best = str(folder), "a", best
    task = Scripted(values)
    players = Players.build(config, *task.networks(config, task.sizes(DATA)), torch.device("cpu"))
    run = Run(config, task, RunFolder.of(config), players)
    run.folder.path.mkdir(exist_ok=True)
    return run
