"""The end of a run: when it is reached, and what the best values of its metrics were."""

import math

import pytest

from utils.run.ending import best_records, is_finished, summary
from utils.run.folder import RunFolder
from utils.run.log import Log
from utils.training.state import BestRecord


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    return RunFolder(tmp_path)


def metric(step: int, value: float | None, name: str = "FD", higher_is_better: bool = False) -> dict:
    return {"kind": "metric", "step": step, "metric": name, "value": value, "higher_is_better": higher_is_better}


@pytest.mark.parametrize(("higher_is_better", "step"), [(False, 2), (True, 3)])
def test_the_best_record_of_a_metric(higher_is_better, step):
    values = ((1, 5.0), (2, -1.0), (3, 7.0), (4, 6.0))
    assert best_records([metric(i, value, "m", higher_is_better) for i, value in values])["m"].step == step


@pytest.mark.parametrize(("higher_is_better", "step"), [(False, 2), (True, 4)])
def test_the_latest_of_equals_is_the_best(higher_is_better, step):
    """The longest trained one among models that measure the same."""
    values = ((1, -1.0), (2, -1.0), (3, 7.0), (4, 7.0), (6, 0.0))
    assert best_records([metric(i, value, "m", higher_is_better) for i, value in values])["m"].step == step


def test_each_metric_has_its_best_and_none_is_none():
    measured = [metric(1, None), metric(1, 3.0, "modes", True), metric(2, 9.0), metric(2, 2.0, "modes", True)]
    assert {name: record.step for name, record in best_records(measured).items()} == {"FD": 2, "modes": 1}


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf], ids=str)
def test_what_is_no_number_is_never_the_best(value):
    assert best_records([]) == best_records([metric(1, value)]) == {}
    assert best_records([metric(1, value), metric(2, 5.0), metric(3, value)])["FD"].step == 2


def test_the_summary_sets_the_choice_beside_the_oracles(folder):
    with Log(folder, 0) as log:
        for step, value, right in ((1, 2.0, 70.0), (2, 3.0, 60.0), (3, 1.0, 80.0)):
            oracle = {"metric": "target", "value": right, "higher_is_better": True, "oracle": True}
            log.metrics(step, [{"metric": "m", "value": value, "higher_is_better": True}, oracle])
    chosen = BestRecord("m", 3.0, 2, True)
    assert summary(folder, ("m",), chosen) == ["best m: 3.00 at step 2; last: 1.00 at step 3"]  # its model is not there
    (folder.best / "step-00000002").mkdir(parents=True)
    best, choice = summary(folder, ("m", "never measured"), chosen)
    assert best == "best m: 3.00 at step 2; last: 1.00 at step 3"
    assert choice == (
        "Chosen by m: step 2, which an oracle finds to be right on 60.00 % of the target; the last step on 80.00 %; "
        "the oracle's own choice, step 3, on 80.00 %."
    )
    assert summary(folder, ("m",), None) == [best]
    assert summary(folder, ("m", "target"), None) == [best, "best at the last step: target"]


@pytest.mark.parametrize(
    ("step", "steps", "finished"),
    [(5, 5, True), (5, 6, False), (6, 5, False), (4, 5, False), (0, 5, False), (5, None, False)],
    ids=["all-done", "more-asked-for", "went-further", "not-there-yet", "not-begun", "without-an-end"],
)
def test_a_run_is_finished_when_its_end_is_recorded(folder, step, steps, finished):
    """A run that was killed between its last checkpoint and its last evaluation is not."""
    with Log(folder, 10) as log:
        log.record("train", 4, {})
        log.record("finished", 5, {})
    assert is_finished(folder, step, steps) is finished


def test_a_run_without_that_record_is_not_finished(folder):
    with Log(folder, 10) as log:
        log.record("train", 5, {})
        log.metrics(5, [{"metric": "FD", "value": 1.0, "higher_is_better": False}])
    assert not is_finished(folder, 5, 5)
    assert not is_finished(RunFolder(folder.path / "absent"), 5, 5)
