"""What time goes into, by clocks that are made up."""

import time

import pytest
import torch

import train
from tests.runs import run
from utils.run.folder import RunFolder
from utils.run.log import records
from utils.run.recorder import Recorder
from utils.run.stopwatch import DATA, NETWORKS, PAUSE, REST, Stopwatch


class Clock:
    """Stands still but for what is told to take time."""

    now = 0.0

    def taking(self, seconds: float, items):
        """The same items, each so many seconds later."""
        for item in items:
            self.now += seconds
            yield item


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", lambda: clock.now)
    return clock


@pytest.fixture
def stream(monkeypatch, clock):
    """A GPU whose events know the time only when the host has waited for it."""

    class Event:
        waited = False

        def __init__(self, enable_timing: bool):
            assert enable_timing

        def record(self):
            self.at = clock.now

        def synchronize(self):
            Event.waited = True

        def elapsed_time(self, end):
            assert Event.waited
            return 1000 * (end.at - self.at)

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    return clock


@pytest.mark.parametrize("device", ["clock", "stream"])
def test_time_goes_into_what_makes_the_items(request, device):
    clock = request.getfixturevalue(device)
    stopwatch = Stopwatch()
    for item in stopwatch.timed(clock.taking(3, "ab"), NETWORKS):
        clock.now += 10 if item == "a" else 20
    assert stopwatch.read() == {NETWORKS: 6, REST: 30}
    clock.now += 7
    assert stopwatch.read() == {REST: 7}


def test_what_was_going_on_goes_on_after_a_pause_and_after_a_reading(clock):
    stopwatch = Stopwatch()
    with stopwatch.during(DATA):
        clock.now += 1
        with stopwatch.during(PAUSE):
            clock.now += 10
            assert stopwatch.read() == {REST: 0, DATA: 1, PAUSE: 10}
            clock.now += 100
        clock.now += 1000
    assert stopwatch.read() == {PAUSE: 100, DATA: 1000, REST: 0}


def test_the_shares_of_a_run(tmp_path, monkeypatch, clock):
    """Of every step 1 s is the data's and 3 s each turn's; statistics take 2 s a turn, and the evaluation 50 s."""
    feed_of, turns, add, draw = train.feed_of, train.turns, Recorder.add, train.Evaluator.draw
    monkeypatch.setattr(train, "feed_of", lambda *given: clock.taking(1, feed_of(*given)))
    monkeypatch.setattr(train, "turns", lambda *given: clock.taking(3, turns(*given)))

    def slow(self, step, turn):
        clock.now += 2
        add(self, step, turn)

    def slower(self, step):
        clock.now += 50
        draw(self, step)

    monkeypatch.setattr(Recorder, "add", slow)
    monkeypatch.setattr(train.Evaluator, "draw", slower)
    words = ["train.steps=4", "log.every=2", "sample.every=1", "evaluate.every=0", "update.rule=alternating"]
    assert run(tmp_path, *words, recipe="configs/ring.yaml") == 0
    lines = [record for record in records(RunFolder(tmp_path / "ring")) if record["kind"] == "train"]
    assert [(line["seconds"], line["outside_networks"], line["waiting_for_data"]) for line in lines] == [
        (2 * 11, pytest.approx(5 / 11), pytest.approx(1 / 11)),
        (4 * 11, pytest.approx(5 / 11), pytest.approx(1 / 11)),
    ]
