"""Pictures and evaluations on the way: when they are due, and which are redone on resumption."""

import pytest
import torch

from tests.utils.run.scripted import scripted
from utils.errors import NotFiniteError, UserError
from utils.evaluation.features import Features
from utils.evaluation.generation import Share
from utils.run.evaluator import due
from utils.run.log import records
from utils.tasks.task import Explanation


@pytest.mark.parametrize(
    ("every", "steps"), [(1, [1, 2, 3, 4, 5, 6]), (2, [2, 4, 6]), (4, [4]), (7, []), (0, [])], ids=str
)
def test_due(every, steps):
    assert [step for step in range(1, 7) if due(every, step)] == steps


@pytest.fixture
def run(tmp_path):
    """A run that draws every 2 and measures every 3 steps."""
    run = scripted(tmp_path, [1.0, 2.0, 3.0])
    run.config.sample.every, run.config.evaluate.every = 2, 3
    return run


def shown(run) -> tuple[list[str], list[int]]:
    """The pictures, and the steps of the records."""
    return sorted(path.name for path in run.folder.samples.glob("*")), [r["step"] for r in records(run.folder)]


def test_what_is_due_is_shown(run):
    with run.begun(0) as (_, _, evaluator):
        assert all(evaluator.show(step) for step in range(1, 7))
    assert shown(run) == ([f"step-0000000{step}.png" for step in (2, 4, 6)], [3, 6])


@pytest.mark.parametrize("step", [1, 2, 3, 6])
def test_what_was_interrupted_is_redone_on_resumption_and_nothing_twice(run, step):
    with run.begun(step) as (_, _, evaluator):
        assert evaluator.catch_up(step)
    want = ([f"step-0000000{step}.png"] if step % 2 == 0 else [], [step] if step % 3 == 0 else [])
    assert shown(run) == want
    with run.begun(step) as (_, _, evaluator):
        run.task.picture = None  # would fail
        assert evaluator.catch_up(step)
    assert shown(run) == want


def test_a_run_that_begins_and_one_at_its_end_have_nothing_to_redo(run):
    run.config.train.steps = 6
    for step in (0, 6):
        with run.begun(step) as (_, _, evaluator):
            assert evaluator.catch_up(step)
        assert shown(run) == ([], [])


def test_a_signal_ends_it_before_anything_is_drawn(run):
    with run.begun(6) as (_, _, evaluator):
        evaluator.stop.name = "SIGTERM"
        assert not evaluator.catch_up(6)
        assert not evaluator.show(6)
        assert evaluator.show(1)  # nothing is due: the loop asks by itself
    assert shown(run) == ([], [])


def explained(run) -> list[str]:
    return sorted(path.name for path in run.folder.explanations.glob("*"))


def test_explanations_are_made_when_due_and_redone_on_resumption(run):
    run.config.explain.every = 3
    run.task.explain = lambda *_: Explanation({"critic": torch.zeros(3, 4, 4, dtype=torch.uint8)}, [])
    with run.begun(0) as (_, _, evaluator):
        assert all(evaluator.show(step) for step in range(1, 5))
        assert explained(run) == ["critic-step-00000003-ema.png"]
    with run.begun(6) as (_, _, evaluator):
        assert evaluator.catch_up(6)
    assert explained(run) == [f"critic-step-0000000{step}-ema.png" for step in (3, 6)]


def test_explanations_are_made_at_the_end_only_if_asked_for(run):
    run.task.explain = lambda *_: Explanation({"critic": torch.zeros(3, 4, 4, dtype=torch.uint8)}, [])
    for every, names in ((0, []), (7, ["critic-step-00000006-ema.png"])):
        run.config.explain.every = every
        with run.begun(6) as (_, _, evaluator):
            assert evaluator.end(6)
        assert explained(run) == names


def test_a_score_without_gradient_is_said_and_ends_nothing(run):
    def explain(*_):
        raise UserError("The score has no gradient.")

    run.config.explain.every, run.task.explain = 1, explain
    with run.begun(0) as (_, _, evaluator):
        assert evaluator.show(1)
    assert "step 1  Nothing is explained: The score has no gradient." in run.folder.log.read_text()
    assert explained(run) == []


class OneOfTwo:
    """Stands in for the group of the first of two processes; ``other`` is what the second one answers each time."""

    size, rank = 2, 0

    def __init__(self, other: list[bool], network: str = "a"):
        self.other, self.network = iter(other), network

    def any(self, mine: bool) -> bool:
        return next(self.other, False) or mine

    def copy_of_first(self, tensors) -> None:
        pass

    def gathered(self, mine: torch.Tensor | None) -> list[torch.Tensor]:
        """As if the second process had the same features, by its own network."""
        if mine is None:
            return []
        return [mine, mine if mine.is_floating_point() else torch.full_like(mine, ord(self.network))]


SHARE = Share(Features(torch.arange(6.0).reshape(3, 2), None, None), "a" * 64)


@pytest.fixture
def given(run) -> list:
    """What the task is given to evaluate, of its share of three images and as many of the other process."""
    given = []
    run.task.share = lambda *_: SHARE
    run.task.evaluate = lambda *_, **more: given.append(more) or []
    return given


def test_shares_of_all_processes_are_evaluated(run, given):
    with run.begun(0) as (_, _, evaluator):
        evaluator.stop.group = OneOfTwo([])
        assert evaluator.show(3)
        run.task.share = lambda *_: None  # as of points
        assert evaluator.show(6)
    assert given[0].keys() == {"made"}
    assert torch.equal(given[0]["made"].x, torch.cat([SHARE.features.x] * 2))
    assert given[1] == {}


def test_no_share_is_drawn_of_what_is_there_or_not_asked_for(run, given):
    run.task.share = None  # would fail
    with run.begun(3) as (_, _, evaluator):
        evaluator.stop.group, evaluator.evaluated = OneOfTwo([]), 3
        assert evaluator.show(2)
        assert evaluator.show(3)
    assert given == []


def test_a_process_that_is_interrupted_in_its_share_ends_the_evaluation_of_all(run, given):
    with run.begun(0) as (_, _, evaluator):
        evaluator.stop.group = OneOfTwo([False, True, False, True])  # it evaluates, was interrupted, has no NaN, stops
        assert not evaluator.show(6)
    assert shown(run) == ([], [])
    assert given == []


@pytest.mark.parametrize("here", [True, False])
def test_nan_in_a_share_is_an_error_in_all_processes(run, given, here):
    def broken(*_):
        raise NotFiniteError("NaN here.")

    if here:
        run.task.share = broken
    with run.begun(0) as (_, _, evaluator):
        evaluator.stop.group = OneOfTwo([False, not here, not here])
        with pytest.raises(NotFiniteError, match=r"NaN here\." if here else "Another process has met NaN") as caught:
            evaluator.show(3)
    assert caught.value.step == 2
    assert given == []


def test_shares_in_different_feature_spaces_are_refused(run, given):
    with run.begun(0) as (_, _, evaluator):
        evaluator.stop.group = OneOfTwo([], network="b")
        with pytest.raises(UserError, match=r"different feature networks: .* evaluate\.features_file"):
            evaluator.show(3)
    assert given == []
