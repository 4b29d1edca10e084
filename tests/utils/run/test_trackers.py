"""What trackers are sent: everything once, whatever a run goes through."""

import importlib.machinery
import json
import sys
from types import ModuleType, SimpleNamespace
from typing import get_args

import pytest
import torch
from accelerate import tracking

from tests.runs import run, signal_at
from utils import pictures
from utils.config.sections import Tracker
from utils.errors import UserError
from utils.run.folder import RunFolder
from utils.run.log import records
from utils.run.trackers import NOTE, OPTIONS

QUICK = ["log.trackers=[wandb]", "train.steps=12", "log.every=2", "checkpoint.every=4", "sample.every=6"]
QUICK += ["evaluate.every=6"]


class StandIn(tracking.GeneralTracker):
    """A tracker that keeps what it is sent, for all runs of a test; of its methods those of ``kind`` fail."""

    name, requires_logging_directory, main_process_only = "wandb", False, False
    started: list[tuple[str, dict]] = []  # noqa: RUF012
    stored: list[dict] = []  # noqa: RUF012
    sent: list[tuple[int, tuple[str, ...]]] = []  # noqa: RUF012
    finished, broken_at = 0, None

    def __init__(self, project: str, **options):
        super().__init__()
        self.project, self.options = project, options

    @property
    def tracker(self):
        return SimpleNamespace(info=SimpleNamespace(run_id="given"))

    def start(self):
        StandIn.started.append((self.project, self.options))

    def store_init_configuration(self, values):
        StandIn.stored.append(values)

    def log(self, values, step=None):
        if StandIn.broken_at == step:
            raise OSError("no network")
        StandIn.sent.append((step, tuple(values)))

    def log_images(self, values, step=None):
        assert [image.ndim for image in values["samples"]] == [3]
        StandIn.sent.append((step, ("picture",)))

    def finish(self):
        StandIn.finished += 1


@pytest.fixture(autouse=True)
def stand_in(monkeypatch) -> type[StandIn]:
    for name in ("wandb", "mlflow"):
        module = ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, name, StandIn)
    blank = torch.zeros(3, 4, 4, dtype=torch.uint8)
    monkeypatch.setattr(pictures, "picture", lambda *_, **__: blank)  # Matplotlib would take longer than the runs
    StandIn.started, StandIn.stored, StandIn.sent, StandIn.finished, StandIn.broken_at = [], [], [], 0, None
    return StandIn


def train(folder, *words: str) -> int:
    return run(folder, *QUICK, *words, recipe="configs/ring.yaml")


def expected(folder) -> list[tuple[int, str]]:
    """Steps and kinds of all records that have a value, and of all pictures, of a finished run."""
    noted = [
        r for r in records(RunFolder(folder / "ring")) if r["kind"] != "finished" and r.get("value", 0) is not None
    ]
    found = [(r["step"], r["kind"]) for r in noted]
    found += [(int(path.stem[5:]), "picture") for path in (folder / "ring/samples").glob("step-*")]
    return sorted(found, key=lambda event: (event[0], ["train", "picture", "metric"].index(event[1])))


def kinds(sent: list[tuple[int, tuple[str, ...]]]) -> list[tuple[int, str]]:
    return [(step, names[0].partition("/")[0]) for step, names in sent]


def test_a_run_is_sent_with_its_config_and_pictures(tmp_path, stand_in):
    assert train(tmp_path, "run.name=ring", "log.project=mine") == 0
    assert kinds(stand_in.sent) == expected(tmp_path)
    assert {"train", "picture", "metric"} == {kind for _, kind in kinds(stand_in.sent)}
    ((project, options),) = stand_in.started
    assert (project, options["name"], options["resume"], len(options["id"])) == ("mine", "ring", "allow", 32)
    (config,) = stand_in.stored
    assert [config[key] for key in ("train.steps", "game.pack", "optimizer.betas")] == [12, 1, "[0.0, 0.99]"]
    assert stand_in.finished == 1


@pytest.mark.parametrize("step", [2, 5])
def test_a_stopped_run_goes_on_there_and_nothing_is_sent_twice(tmp_path, stand_in, monkeypatch, step):
    with monkeypatch.context() as patch:
        signal_at(patch, step)
        assert train(tmp_path) == 75
    assert max(at for at, _ in stand_in.sent) <= step + 1  # what the checkpoint of the stop has committed
    assert train(tmp_path) == 0
    assert kinds(stand_in.sent) == expected(tmp_path)
    assert len({options["id"] for _, options in stand_in.started}) == 1


def test_what_no_checkpoint_holds_is_not_sent(tmp_path, stand_in, monkeypatch):
    """A kill, in the place of which an error ends the run in step 7: the checkpoint is of step 4."""
    import train as script

    original = script.train_step

    def train_step(cfg, game, players, batches, recorder, step):
        if step == 6 and not stand_in.finished:
            raise RuntimeError("killed")
        original(cfg, game, players, batches, recorder, step)

    monkeypatch.setattr(script, "train_step", train_step)
    with pytest.raises(RuntimeError, match="killed"):
        train(tmp_path)
    assert {at for at, _ in stand_in.sent} == {2, 4}
    assert train(tmp_path) == 0
    assert kinds(stand_in.sent) == expected(tmp_path)


def test_a_tracker_that_fails_ends_no_run_and_gets_the_rest_later(tmp_path, stand_in, capsys):
    stand_in.broken_at = 8
    assert train(tmp_path) == 0
    assert "wandb cannot be reached (no network)" in capsys.readouterr().out
    assert max(at for at, _ in stand_in.sent) == 6
    stand_in.broken_at = None
    assert train(tmp_path, "train.steps=14") == 0
    assert kinds(stand_in.sent) == expected(tmp_path)


def test_mlflow_is_told_the_id_that_it_gave(tmp_path, stand_in):
    assert train(tmp_path, "log.trackers=[mlflow]") == 0
    assert train(tmp_path, "log.trackers=[mlflow]", "train.steps=14") == 0
    assert [options["run_id"] for _, options in stand_in.started] == [None, "given"]
    assert len(stand_in.stored) == 1  # it would refuse another number of steps
    assert json.loads((tmp_path / "ring" / NOTE).read_text())["mlflow"]["sent"] >= len(stand_in.sent)


def test_a_missing_package_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="'comet_ml', which is not installed: pip install comet-ml"):
        train(tmp_path, "log.trackers=[comet_ml]")
    with pytest.raises(UserError, match="did you mean 'wandb'"):
        train(tmp_path, "log.trackers=[wandbb]")


def test_all_of_accelerates_trackers_can_be_named():
    """TensorBoard's event files are written in any case."""
    names = get_args(Tracker)[1].names
    assert sorted(names) == sorted(tracking.LOGGER_TYPE_TO_CLASS.keys() - {"tensorboard"})
    assert OPTIONS.keys() <= set(names)
