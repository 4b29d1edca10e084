"""Each illness on histories that are made up, and on those of real runs that docs/reference keeps."""

import math
from dataclasses import replace

import pytest

from tests.runs import ROOT
from utils.evaluation.illnesses import ILLNESSES, History, findings
from utils.run.examination import Reference, read_reference

CONFIG = {"game.name": "generation", "train.steps": 2000, "optimizer.critic_lr": 1e-3, "optimizer.generator_lr": 1e-3}
FINE = {
    "score_margin": 0.7, "critic_accuracy_real": 0.7,
    "critic_accuracy_fake": 0.8, "generator_gradient_norm": 1.0, "generator_gradient_cosine": 0.3, "floored": 0.0,
}  # fmt: skip
GOOD = {"recall": (0.8, 0.9), "coverage": (0.9, 0.95), "rarest class": (8.0, 9.5), "Fréchet distance": (5.0, 4.0)}


def line(step: int, **values: float) -> dict:
    return {"kind": "train", "step": step, **FINE, **values}


def metric(step: int, name: str, value: float, real: float | None = None, **about) -> dict:
    return {"kind": "metric", "step": step, "metric": name, "value": value, "real": real, **about}


def measured(step: int, **changed: float) -> list[dict]:
    return [metric(step, name, changed.get(name.split()[0], value), real) for name, (value, real) in GOOD.items()]


def made(finished: bool = True, metrics: list[dict] | None = None, **values: float) -> History:
    """A run of 2,000 steps that is healthy but for what is given."""
    lines = [line(step, **values) for step in range(100, 2100, 100)]
    metrics = measured(1000) + measured(2000) if metrics is None else metrics
    return History(CONFIG, lines, metrics, finished)


def domains(own: float, probe: float) -> History:
    """A game of domains whose critic, and a fresh one, are right on so many per cent."""
    pairs = [("critic accuracy", own), ("probe critic accuracy", probe)]
    metrics = [metric(step, name, x, chance=50.0) for step in (500, 1000, 1500, 2000) for name, x in pairs]
    lines = [{"kind": "train", "step": 2000, "source_score": 90.0, "target_score": -90.0}]
    return History({**CONFIG, "game.name": "adaptation"}, lines, metrics, True)


COPIES = metric(2000, "nearest training image", 90.0, 50.0, copied=True)
BY_HEART = [metric(s, "critic overfitting", 0.9, accuracy_training=99.0, accuracy_held_out=10.0) for s in (1500, 2000)]
ILL = {
    "not finite": replace(made(), stopped="critic_loss became NaN or infinite in step 7; no checkpoint holds it."),
    "not finite: a metric": made(metrics=[metric(2000, "recall", math.nan, 0.9)]),
    "data problem": replace(made(), data={"samples": 500, "distinct": 1, "spread": 0.0}),
    "data problem: many twins": replace(made(), data={"samples": 500, "distinct": 240, "spread": 0.5}),
    "oscillating": made(generator_gradient_cosine=-0.9),
    "critic has won": made(critic_accuracy_real=0.99, critic_accuracy_fake=1.0),
    "critic has won: apart": made(score_margin=60.0),
    "critic has won: vanished": made(generator_gradient_norm=1e-12),
    "critic has won: floored": made(floored=0.9),
    "critic has won: domains": domains(99.0, 99.0),
    "generator has collapsed": made(metrics=measured(1000) + measured(2000, rarest=0.1)),
    "generator has collapsed: recall": made(metrics=measured(1000) + measured(2000, recall=0.1)),
    "generator has collapsed: points": made(metrics=[metric(2000, "reverse KL", 0.5), metric(2000, "modes", 6)]),
    "memorising": made(metrics=[*measured(1000), *measured(2000), COPIES]),
    "memorising: critic": made(metrics=[*measured(1000), *measured(2000), *BY_HEART]),
    "critic has learned nothing": domains(50.0, 99.0),
    "not done yet: points": made(metrics=[metric(2000, "high quality", 2.0), metric(2000, "modes", 0)]),
    "not done yet": made(metrics=measured(1000, Fréchet=9.0) + measured(2000)),
    "waiting for data": made(finished=False, waiting_for_data=0.6),
}


@pytest.mark.parametrize("name", ILL)
def test_an_illness_is_found_alone(name):
    assert [found.name for found in findings(ILL[name])] == [name.partition(":")[0]]


def test_every_illness_is_tested():
    found = {illness for illness, function in ILLNESSES.items() if any(map(function, ILL.values()))}
    assert found == ILLNESSES.keys()


WELL = {
    "as made": made(),
    "under way": made(finished=False),
    "a critic that is beaten": domains(52.0, 55.0),
    "no records of an older version": History(CONFIG, [{"kind": "train", "step": 100, "critic_loss": 1.0}], [], True),
    "nothing": History(CONFIG, [], []),
    "one line": replace(made(), lines=[line(100, critic_accuracy_real=1.0, critic_accuracy_fake=1.0)]),
    "young": replace(
        made(False, [], generator_gradient_norm=1.0), lines=[line(100)], metrics=measured(100, recall=0.0)
    ),
    "turns, and fades": replace(
        made(), lines=[line(s, generator_gradient_cosine=-0.9, generator_gradient_norm=1 / s) for s in range(1, 40)]
    ),
    "one line of a sure critic": replace(
        made(), lines=[line(s, critic_accuracy_real=0.9 + s % 2 / 10, critic_accuracy_fake=0.95) for s in range(10)]
    ),
    "overfitting at one evaluation": made(metrics=[*measured(1000), *measured(2000), *BY_HEART[1:]]),
    "overfitting of points": made(metrics=[metric(s, "critic overfitting", 3.0) for s in (1500, 2000)]),
    "finer than counting can tell": made(
        metrics=[metric(1000, "reverse KL", 0.008), metric(2000, "reverse KL", 0.002)]
    ),
    "waited for data, and is done": made(waiting_for_data=0.6),
    "a loader that keeps up": made(finished=False, waiting_for_data=0.1),
    "a loader that has only begun": replace(
        made(False), lines=[line(s, waiting_for_data=0.9 if s < 3 else 0.1) for s in range(6)]
    ),
    "good data": replace(made(), data={"samples": 500, "distinct": 499, "spread": 0.4}),
}


@pytest.mark.parametrize("name", WELL)
def test_nothing_is_found_in_a_healthy_run(name):
    assert findings(WELL[name]) == []


def test_as_poor_as_healthy_runs_at_that_step_is_not_done_yet():
    ill = made(metrics=measured(2000, recall=0.2))
    assert findings(ill)[0].name == "generator has collapsed"
    early = findings(replace(ill, healthy={"recall": 0.3}))
    assert [(found.name, found.remedies) for found in early] == [("not done yet", ("train.steps=8000",))]
    assert findings(replace(ill, finished=False, healthy={"recall": 0.3})) == []
    assert findings(replace(ill, healthy={"recall": 0.5}))[0].name == "generator has collapsed"


REFERENCES = sorted((ROOT / "docs/reference").glob("*.jsonl"))
SICK = {
    "critic_won": "critic has won",
    "collapsed": "generator has collapsed",
    "memorising": "memorising",
    "oscillating": "oscillating",
    "dead_domain_critic": "critic has learned nothing",
}


@pytest.mark.parametrize("path", REFERENCES, ids=lambda path: path.stem)
def test_reference_runs_are_healthy(path):
    run = read_reference(path)
    assert run.finished
    assert findings(run) == []


@pytest.mark.parametrize("name", SICK)
def test_sick_runs_have_what_they_were_made_for(name):
    run = read_reference(ROOT / f"docs/reference/sick/{name}.jsonl")
    assert findings(run)[0].name == SICK[name]


def test_all_sick_runs_are_tested_and_the_files_are_small():
    assert {path.stem for path in (ROOT / "docs/reference/sick").glob("*.jsonl")} == SICK.keys()
    assert {"mnist_5k", "digits", "ring", "moons"} <= {path.stem for path in REFERENCES}
    assert max(path.stat().st_size for path in (ROOT / "docs/reference").rglob("*.jsonl")) < 13_000


def test_a_reference_is_asked_about_steps_that_it_knows():
    """Its digits were first measured at step 1,600 or later: nothing is known of coverage at 300, but of losses is."""
    reference = Reference("digits", read_reference(ROOT / "docs/reference/digits.jsonl"))
    assert reference.at("coverage", 300) is None
    assert reference.at("critic_loss", 300) == reference.at("critic_loss", 400)
    assert reference.at("coverage", 8000) == reference.run.measured("coverage")[-1]["value"]
    assert reference.at("no such sign", 8000) is None
