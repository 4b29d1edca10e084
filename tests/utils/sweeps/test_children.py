"""How the rows of a sweep are run: a stand-in for train.py that starts in no time does what its words say."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch

from tests.runs import ROOT
from utils.run.signals import STOPPED
from utils.sweeps import children
from utils.sweeps.rows import Row, rows_of

TRAIN = """
import signal, sys, time
from pathlib import Path
here = Path(sys.argv[0]).parent
seed = next(word for word in sys.argv if word.startswith("seed="))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
with open(here / "began.txt", "a") as file:
    file.write(f"{seed}\\n")
if seed == "seed=1":
    print("warning: first", "error: it is broken.", sep="\\n", file=sys.stderr)
    sys.exit(2)
if seed == "seed=9":
    time.sleep(60)
"""


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    (tmp_path / "train.py").write_text(TRAIN)
    monkeypatch.setattr(children, "ROOT", tmp_path)
    monkeypatch.setattr(children, "PAUSE", 0.01)
    return tmp_path


def rows(here: Path, seeds: str) -> list[Row]:
    return rows_of([ROOT / "configs/ring.yaml"], [f"run.dir={here}", f"seed={seeds},"])


def began(here: Path) -> list[str]:
    return sorted((here / "began.txt").read_text().splitlines()) if (here / "began.txt").exists() else []


@pytest.mark.parametrize(("given", "jobs", "threads"), [(None, 1, None), (None, 2, "3"), (None, 8, "1"), ("7", 2, "7")])
def test_children_share_the_cores(monkeypatch, given, jobs, threads):
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    monkeypatch.delenv("OMP_NUM_THREADS")
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert children.environment_of(jobs, 0).get("OMP_NUM_THREADS") == threads


@pytest.mark.parametrize(
    ("visible", "jobs", "devices"),
    [(None, 3, ["0", "1", "0"]), ("4,7", 3, ["4", "7", "4"]), ("4,7", 1, ["4,7"])],
)
def test_children_take_gpus_in_turns(monkeypatch, visible, jobs, devices):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    given = [children.environment_of(jobs, place)["CUDA_VISIBLE_DEVICES"] for place in range(jobs)]
    assert given == devices


def test_several_run_at_a_time(here):
    assert children.perform(rows(here, "0,2,3"), 2) == 0
    assert began(here) == ["seed=0", "seed=2", "seed=3"]


def test_what_failed_is_said(here, capsys):
    assert children.perform(rows(here, "1,2"), 1) == 1
    first, second, last = capsys.readouterr().out.splitlines()
    assert first.startswith(f"failed    {here}/ring-seed=1")
    assert first.endswith("s: error: it is broken.")
    assert second.startswith(f"finished  {here}/ring-seed=2")
    assert last == "1 of 2 runs are finished, 1 failed."


def test_finished_runs_are_not_started(here, monkeypatch, capsys):
    monkeypatch.setattr(Row, "is_finished", lambda row: row.config.seed != 2)
    assert children.perform(rows(here, "0,1,2"), 1) == 0
    assert began(here) == ["seed=2"]
    assert "3 of 3 runs are finished." in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_children_and_starts_no_more(here, capsys, number):
    def interrupt():
        while not began(here):
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert children.perform(rows(here, "9,2"), 1) == STOPPED
    thread.join()
    assert began(here) == ["seed=9"]
    stopped, last = capsys.readouterr().out.splitlines()
    assert stopped.startswith("stopped")
    assert last == f"Stopped by {signal.Signals(number).name}; the same command does the rest."


def test_a_second_interrupt_leaves_no_child(here, monkeypatch):
    (here / "train.py").write_text(TRAIN.replace("sys.exit(75)", "None"))  # deaf
    started = []
    start = children.start
    monkeypatch.setattr(children, "start", lambda *words: started.append(start(*words)) or started[-1])

    def interrupt():
        while not began(here):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        children.perform(rows(here, "9,2"), 1)
    thread.join()
    assert [child.process.returncode for child in started] == [-signal.SIGKILL]
