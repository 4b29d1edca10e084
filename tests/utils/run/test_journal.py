"""What happens every so often: when, what counts as the best, and when a run is over."""

import shutil

import pytest
import torch

from models import mlp
from tests.runs import alone
from utils.config.sections import Config
from utils.data.datasets import DataSet, Resident
from utils.evaluation.generation import record
from utils.run.folder import RunFolder
from utils.run.journal import Journal, best_metrics, best_step, due, is_finished
from utils.run.log import Log
from utils.tasks.generation import Generation
from utils.training import players


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    return RunFolder(tmp_path)


def log(folder: RunFolder, *records: tuple[str, int, dict]) -> None:
    log = Log(folder, 10**6)
    for kind, step, values in records:
        log.record(kind, step, values)
    log.close()


def metric(step: int, value: float | None, name: str = "FD", higher_is_better: bool = False) -> tuple[str, int, dict]:
    return "metric", step, {"metric": name, "value": value, "higher_is_better": higher_is_better}


@pytest.mark.parametrize(
    ("every", "steps"), [(1, [1, 2, 3, 4, 5, 6]), (2, [2, 4, 6]), (4, [4]), (7, []), (0, [])], ids=str
)
def test_due(every, steps):
    assert [step for step in range(1, 7) if due(every, step)] == steps


@pytest.mark.parametrize(("higher_is_better", "step"), [(False, 2), (True, 3)])
def test_the_best_record_of_a_metric(folder, higher_is_better, step):
    log(folder, *(metric(i, value, "m", higher_is_better) for i, value in ((1, 5.0), (2, -1.0), (3, 7.0), (4, 6.0))))
    assert best_metrics(folder)["m"]["step"] == step


def test_the_latest_of_equals_is_the_best(folder):
    log(folder, metric(1, 5.0), metric(2, 5.0))
    assert best_metrics(folder)["FD"]["step"] == 2


def test_each_metric_has_a_best_of_its_own_and_none_is_none(folder):
    log(folder, metric(1, None), metric(1, 3.0, "modes", True), metric(2, 9.0), metric(2, 2.0, "modes", True))
    log(folder, ("train", 3, {"loss": 0.0}))
    best = best_metrics(folder)
    assert {name: record["step"] for name, record in best.items()} == {"FD": 2, "modes": 1}


def test_nothing_measured_has_no_best(folder):
    assert best_metrics(folder) == {}
    log(folder, metric(1, None))
    assert best_metrics(folder) == {}


@pytest.mark.parametrize(("higher_is_better", "step"), [(False, 2), (True, 4)])
def test_the_step_of_the_best_is_the_latest_of_equals(folder, higher_is_better, step):
    """The longest trained one among models that measure the same."""
    assert best_step(folder, "m") is None
    log(folder, metric(5, None, "m"), metric(5, 0.0))
    assert best_step(folder, "m") is None
    values = ((1, -1.0), (2, -1.0), (3, 7.0), (4, 7.0), (6, 0.0))
    log(folder, *(metric(i, value, "m", higher_is_better) for i, value in values))
    assert best_step(folder, "m") == step


class Scripted(Generation):
    """A game whose metric goes as it is told."""

    metrics = ("m",)
    values = iter(())

    def evaluate(self, *_):
        return [record("m", next(self.values), "", "", higher_is_better=True)]


@pytest.mark.parametrize(("best", "auto", "step"), [("m", "", 3), ("auto", "m", 3), ("auto", "", 0), ("none", "m", 0)])
def test_the_best_networks_are_kept(tmp_path, monkeypatch, best, auto, step):
    """Step 3 stays when a later one is worse, and replaces steps 1 and 2; at step 0 nothing is kept."""
    config = Config(model=mlp.Config(width=4))
    config.run.dir, config.run.name, config.checkpoint.best = str(tmp_path), "a", best
    data = DataSet("ring", (2,), 8, Resident(torch.zeros(4, 2), torch.arange(4)), None)
    task, folder = Scripted(), RunFolder.of(config)
    monkeypatch.setattr(Scripted, "values", iter([1.0, 5.0, 5.0, None, 2.0]))
    monkeypatch.setattr(Scripted, "best", auto)
    folder.path.mkdir()
    team = players.build(config, *task.networks(config, task.sizes(data)), torch.device("cpu"))
    with Journal(config, task, folder, data, team, 0, True, alone()) as journal:
        for i in range(1, 6):
            with torch.no_grad():
                next(team.average.parameters()).fill_(i)
            journal.evaluate(i)
        journal.save(5)
    if not step:
        assert not folder.best.exists()
        return
    assert [path.name for path in folder.best.iterdir()] == [f"step-{step:08d}"]
    loaded, state = players.load(config, folder.best, task.networks, print)
    assert bool((next(loaded.average.parameters()) == step).all())
    assert state["step"] == step


def test_a_resumed_run_has_the_best_of_the_steps_before_it(tmp_path, monkeypatch):
    """Killed after its best step 3 with its last checkpoint at 1: the best is step 1 again, until 3 is done anew."""
    config = Config(model=mlp.Config(width=4))
    config.run.dir, config.run.name, config.checkpoint.best = str(tmp_path), "a", "m"
    data = DataSet("ring", (2,), 8, Resident(torch.zeros(4, 2), torch.arange(4)), None)
    task, folder = Scripted(), RunFolder.of(config)
    monkeypatch.setattr(Scripted, "values", iter([5.0, 1.0, 9.0, 1.0, 9.0]))
    folder.path.mkdir()
    team = players.build(config, *task.networks(config, task.sizes(data)), torch.device("cpu"))

    def kept() -> list[str]:
        return sorted(path.name for path in folder.best.iterdir())

    with Journal(config, task, folder, data, team, 0, True, alone()) as journal:
        journal.evaluate(1)
        journal.save(1)
        journal.evaluate(2)
        journal.evaluate(3)
    assert kept() == ["step-00000001", "step-00000003"]
    with Journal(config, task, folder, data, team, 1, True, alone()) as journal:
        assert kept() == ["step-00000001"]
        journal.evaluate(2)
        assert best_step(folder, "m") == 1
        journal.evaluate(3)
        journal.save(3)
    assert kept() == ["step-00000003"]


def test_a_best_model_that_a_kill_kept_from_the_disk_is_saved_on_resumption(tmp_path, monkeypatch):
    """Its record was written; the checkpoint of the same step, which lay before it in the writer's queue, holds it."""
    config = Config(model=mlp.Config(width=4))
    config.run.dir, config.run.name, config.checkpoint.best = str(tmp_path), "a", "m"
    data = DataSet("ring", (2,), 8, Resident(torch.zeros(4, 2), torch.arange(4)), None)
    task, folder = Scripted(), RunFolder.of(config)
    monkeypatch.setattr(Scripted, "values", iter([5.0]))
    folder.path.mkdir()
    team = players.build(config, *task.networks(config, task.sizes(data)), torch.device("cpu"))
    with Journal(config, task, folder, data, team, 0, True, alone()) as journal:
        journal.save(1)
        journal.evaluate(1)
    shutil.rmtree(folder.best)
    with Journal(config, task, folder, data, team, 1, True, alone()) as journal:
        next(journal.steps())
    assert [path.name for path in folder.best.iterdir()] == ["step-00000001"]


@pytest.mark.parametrize(
    ("step", "steps", "finished"),
    [(5, 5, True), (5, 6, False), (6, 5, False), (4, 5, False), (0, 5, False), (5, None, False)],
    ids=["all-done", "more-asked-for", "went-further", "not-there-yet", "not-begun", "without-an-end"],
)
def test_a_run_is_finished_when_its_end_is_recorded(folder, step, steps, finished):
    """A run that was killed between its last checkpoint and its last evaluation is not."""
    log(folder, ("train", 4, {}), ("finished", 5, {}))
    assert is_finished(folder, step, steps) is finished


def test_a_run_without_that_record_is_not_finished(folder):
    log(folder, ("train", 5, {}), metric(5, 1.0))
    assert not is_finished(folder, 5, 5)
    assert not is_finished(RunFolder(folder.path / "absent"), 5, 5)
