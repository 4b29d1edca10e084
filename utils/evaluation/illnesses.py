"""What may be wrong with a run, by its records alone: a pure function for each illness.

To add one: write its function, one line in ``ILLNESSES``, and a run that has it in
tests/utils/evaluation/test_illnesses.py.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any, NamedTuple

from utils.evaluation.domain_critics import verdict
from utils.evaluation.records import Record, readable

RECENT = 5  # log lines that must agree
SURE = 0.98  # accuracy of a critic that is hardly ever wrong
TURNING = -0.5  # cosine between a gradient and the mean of those before it: half of each step takes back the last ones
OFF_BALANCE = 0.2  # nats from uniform over modes; a generator that leaves out one of eight is at 0.13
FEW = 1 / 3  # of what real images get: a recall, coverage or rarest class below it misses most of the data
BY_HEART = 0.8  # critic overfitting from which held-out images look more like generated than like training images
IMPROVES = 0.1  # share by which the last quarter of a run that is not done yet has improved the metric
WAITING = 0.3  # share of the time spent waiting for data; a loader that keeps up is below 0.1
YOUNG = 0.25  # share of the steps in which a generator may still be missing most of the data


@dataclass(frozen=True)
class History:
    """What is known of a run: its config by "section.key", the lines of its log and its metrics, both in the order of
    steps, whether it was finished, and what its log says of an error that stopped it.

    ``data`` says of some training samples how many they are (``samples``), how many differ (``distinct``), and their
    standard deviation (``spread``); None where nobody looked. ``healthy`` are the signs and metrics of a healthy run
    with the same data and networks at this step, where there is one.
    """

    config: Mapping[str, Any]
    lines: list[Record]
    metrics: list[Record]
    finished: bool = False
    stopped: str = ""
    data: Mapping[str, float] | None = None
    healthy: Mapping[str, float] = field(default_factory=dict)

    @property
    def step(self) -> int:
        """The last step of which there is a record."""
        return max((record["step"] for record in [*self.lines, *self.metrics]), default=0)

    @property
    def is_young(self) -> bool:
        """Whether the run has done so little that nothing is wrong with poor samples."""
        steps = self.config.get("train.steps")
        return not self.finished and self.step < YOUNG * (steps or math.inf)

    def series(self, name: str) -> list[float]:
        """The values of a statistic in the lines that have it."""
        return [line[name] for line in self.lines if isinstance(line.get(name), int | float)]

    def measured(self, metric: str) -> list[Record]:
        """The records of a metric that have a value."""
        return [r for r in self.metrics if r["metric"] == metric and r["value"] is not None]


class Finding(NamedTuple):
    """An illness, the numbers that it rests on, and what to try: overrides such as "penalty.r1=1", the best first, of
    which some may not fit the run. ``signs`` are statistics or metrics to compare with a healthy run's.
    """

    name: str
    evidence: str
    remedies: tuple[str, ...]
    signs: tuple[str, ...] = ()


def not_finite(run: History) -> Finding | None:
    """A NaN or an Inf has stopped the run."""
    bad = [f"{r['metric']} at step {r['step']}" for r in run.metrics if not math.isfinite(r["value"] or 0)]
    if "NaN" not in run.stopped and not bad:
        return None
    evidence = run.stopped or f"Not finite: {', '.join(bad)}."
    return Finding("not finite", evidence, (lower(run, "generator_lr", "critic_lr"),), ("generator_gradient_norm",))


def data_problem(run: History) -> Finding | None:
    """The training samples are all alike, or so few that there is nothing to learn."""
    if not run.data:
        return None
    count, distinct, spread = (run.data[name] for name in ("samples", "distinct", "spread"))
    if spread > 0 and distinct > count / 2:
        return None
    evidence = (
        f"Of {count:.0f} training samples {distinct:.0f} differ, and their standard deviation is {spread:.2g}: look at "
        "the files in data.root."
    )
    return Finding("data problem", evidence, ())


def oscillating(run: History) -> Finding | None:
    """The players go round and round: each gradient takes back the ones before, with a force that does not fade."""
    cosines = run.series("generator_gradient_cosine")
    third = len(cosines) // 3
    if is_of_domains(run) or third < RECENT:
        return None
    cosine, norms = median(cosines[-third:]), run.series("generator_gradient_norm")
    before, now = median(norms[:third]), median(norms[-third:])
    if cosine > TURNING or now < before:
        return None
    evidence = (
        f"The generator's gradient points against the mean of those before it (cosine {cosine:.2f}, median of the last "
        f"{third} log lines), and its norm does not fade ({before:.2g} at first, {now:.2g} now)."
    )
    remedies = (raised(run, "r1", 0.1), "penalty.gp=10", lower(run, "generator_lr", "critic_lr"))
    return Finding("oscillating", evidence, remedies, ("generator_gradient_cosine", "generator_gradient_norm"))


def critic_has_won(run: History) -> Finding | None:
    """The critic is hardly ever wrong, or so sure that the generator's gradient is worthless."""
    lines = run.lines[-RECENT:]
    if is_of_domains(run) or len(lines) < RECENT:
        return None
    found = []
    right = [min(line.get(f"critic_accuracy_{side}", 0.0) for side in ("real", "fake")) for line in lines]
    if median(right) > SURE:
        found.append(f"it is right on {100 * median(right):.1f} % of either side")
    if median(line.get("floored", 0.0) for line in lines) > 0.5:
        found.append("it is so sure of most fakes that its loss on them has no slope (floored)")
    gaps = [line.get("score_margin", 0.0) for line in lines]
    if min(gaps) > run.config.get("guard.score_gap", 50.0):
        found.append(f"its mean scores are {min(gaps):.0f} or more apart")
    norms = [line.get("generator_gradient_norm", math.inf) for line in lines]
    if max(norms) < run.config.get("guard.vanished", 1e-10):
        found.append(f"the generator's gradient has vanished (norm {max(norms):.1e} or less)")
    if not found:
        return None
    evidence = f"Of the critic in the last {RECENT} log lines: {', and '.join(found)}."
    remedies = (raised(run, "r1", 0.1), lower(run, "critic_lr"), "model.critic_norm=spectral")
    return Finding("critic has won", evidence, remedies, ("score_margin", "critic_accuracy_real", "ratio_p50"))


def collapsed(run: History) -> Finding | None:
    """The generator makes only a part of what is in the data."""
    if is_of_domains(run) or run.is_young:
        return None
    found = []
    if kl := run.measured("reverse KL")[-1:]:
        modes = run.measured("modes")[-1:]
        if kl[0]["value"] > OFF_BALANCE:
            hit = f", and {modes[0]['value']} modes are hit" if modes else ""
            found.append(f"samples are {kl[0]['value']:.2f} nats from even over the modes{hit}")
    found += [say for name, say in poor(run).items() if not as_healthy(run, name)]
    if not found:
        return None
    evidence = f"At step {run.metrics[-1]['step']}: {'; '.join(found)}."
    remedies = ("game.pack=2", raised(run, "r1", 0.1), "game.objective=relativistic")
    return Finding("generator has collapsed", evidence, remedies, ("reverse KL", "recall", "coverage", "rarest class"))


def memorising(run: History) -> Finding | None:
    """Samples are copies of training images, or the critic knows these by heart."""
    if is_of_domains(run):
        return None
    found = []
    copies = run.measured("nearest training image")[-1:]
    if copies and copies[0].get("copied"):
        found.append(
            f"{copies[0]['value']:.0f} % of the samples are nearer to training images than held-out images are"
        )
    known = run.measured("critic overfitting")[-2:]
    images = len(known) == 2 and "accuracy_held_out" in known[-1]
    if images and min(r["value"] for r in known) > BY_HEART:
        found.append(
            f"the critic takes {known[-1]['accuracy_training']:.0f} % of the training images for real, and "
            f"{known[-1]['accuracy_held_out']:.0f} % of held-out ones (overfitting {known[-1]['value']:.2f}; 1: they "
            "look generated)"
        )
    if not found:
        return None
    evidence = f"At step {run.metrics[-1]['step']}: {'; '.join(found)}."
    remedies = ("augment.name=ada", "augment.name=diffaugment", raised(run, "r1", 0.1))
    return Finding("memorising", evidence, remedies, ("nearest training image", "critic overfitting"))


def domain_critic(run: History) -> Finding | None:
    """The domain critic has learned nothing, or wins. (One that is beaten, as it should be, is no illness.)"""
    said = verdict(run.metrics) if is_of_domains(run) else ""
    coefficient = run.config.get("update.coefficient", 1.0)
    if said.startswith("The critic has learned nothing"):
        remedy = f"optimizer.critic_lr={max(10 * run.config['optimizer.critic_lr'], 1e-3):g}"
        return Finding("critic has learned nothing", said, (remedy,), ("critic accuracy", "probe critic accuracy"))
    if said.startswith("The critic wins"):
        remedy = f"update.coefficient={2 * coefficient or 1:g}"
        return Finding("critic has won", said, (remedy,), ("critic accuracy", "probe critic accuracy"))
    return None


def not_done_yet(run: History) -> Finding | None:
    """The run has ended while its metric still improved, or where healthy runs are as poor."""
    early = [f"{say}, and a healthy run is no better" for name, say in poor(run).items() if as_healthy(run, name)]
    near = run.measured("high quality")[-1:]
    if near and near[0]["value"] < 100 * FEW:
        early.append(f"only {near[0]['value']:.0f} % of the samples are near a mode")
    if run.finished and early:
        evidence = f"At step {run.step}: {'; '.join(early)}."
        return Finding("not done yet", evidence, (f"train.steps={4 * run.step}",), ("recall", "coverage"))
    for name in ("Fréchet distance", "reverse KL"):
        measured = run.measured(name)
        before = [r for r in measured if r["step"] <= 0.75 * run.step][-1:]
        if run.finished and before and measured[-1]["value"] < (1 - IMPROVES) * before[0]["value"]:
            if name == "reverse KL" and measured[-1]["value"] < OFF_BALANCE / 10:
                continue  # the noise of counting, not progress
            evidence = (
                f"The {name} still fell, from {readable(before[0]['value'])} at step {before[0]['step']} to "
                f"{readable(measured[-1]['value'])} at step {measured[-1]['step']}."
            )
            return Finding("not done yet", evidence, (f"train.steps={2 * run.step}",), (name,))
    return None


def waiting_for_data(run: History) -> Finding | None:
    """The data take the time of a run under way, and not the networks."""
    shares = run.series("waiting_for_data")[-RECENT:]
    if run.finished or len(shares) < RECENT or median(shares) < WAITING:
        return None
    evidence = (
        f"{100 * median(shares):.0f} % of the time is spent waiting for data (median of the last {RECENT} log lines)."
    )
    remedies = (f"data.workers={2 * run.config.get('data.workers', 0) or 2}",)
    return Finding("waiting for data", evidence, remedies, ("outside_networks",))


ILLNESSES: dict[str, Callable[[History], Finding | None]] = {
    "not finite": not_finite,
    "data problem": data_problem,
    "oscillating": oscillating,
    "critic has won": critic_has_won,
    "generator has collapsed": collapsed,
    "memorising": memorising,
    "domain critic": domain_critic,
    "not done yet": not_done_yet,
    "waiting for data": waiting_for_data,
}


def findings(run: History) -> list[Finding]:
    """All that is wrong with a run, the most serious first."""
    return [found for illness in ILLNESSES.values() if (found := illness(run))]


def poor(run: History) -> dict[str, str]:
    """The metrics by which samples lack most of what is in the data at the last evaluation, and what to say of each."""
    found = {}
    for name in ("recall", "coverage", "rarest class"):
        last = run.measured(name)[-1:]
        if last and last[0].get("real") and last[0]["value"] < FEW * last[0]["real"]:
            found[name] = f"{name} is {readable(last[0]['value'])} (real images: {readable(last[0]['real'])})"
    return found


def as_healthy(run: History, metric: str) -> bool:
    """Whether a healthy run is hardly better at this step in a metric of which more is better."""
    return metric in run.healthy and run.measured(metric)[-1]["value"] >= 0.5 * run.healthy[metric]


def is_of_domains(run: History) -> bool:
    """Whether the run plays a game of domains, whose critic may well be beaten."""
    return run.config.get("game.name") in ("adaptation", "invariance")


def lower(run: History, *rates: str) -> str:
    """Overrides that divide learning rates by five."""
    return " ".join(f"optimizer.{rate}={run.config.get(f'optimizer.{rate}', 2e-4) / 5:g}" for rate in rates)


def raised(run: History, penalty: str, first: float) -> str:
    """An override that makes a penalty ten times as strong, or begins with ``first``."""
    return f"penalty.{penalty}={10 * run.config.get(f'penalty.{penalty}', 0.0) or first:g}"
