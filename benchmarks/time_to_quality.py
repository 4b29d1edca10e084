"""Which way of playing a recipe is first at a quality, by steps and by seconds?

    python benchmarks/time_to_quality.py --root data                       # trains what is missing: days of CPU time
    python benchmarks/time_to_quality.py --root data --only ring mnist_dcgan --jobs 2
    python benchmarks/time_to_quality.py --tell                            # from the committed results alone

``QUESTIONS`` holds the runs. They lie in ``--runs``; the same command again goes on where it was stopped. What finished
runs have measured goes to ``benchmarks/time_to_quality.jsonl``, a line a run; from it come the tables that are printed
and the picture ``docs/performance.png``. ``benchmarks/time_to_quality.md`` tells what came out.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

sys.path.insert(0, str(Path(__file__).parent.parent))

from utils import errors
from utils.sweeps.children import perform
from utils.sweeps.results import Result, results_of
from utils.sweeps.rows import Row, rows_of
from utils.sweeps.tables import Means, Table

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks/time_to_quality.jsonl"
PICTURE = ROOT / "docs/performance.png"

FRESH, REUSED = "alternating, fresh fakes", "alternating, reused fakes"
ALTERNATING = "alternating"  # of two domains, where nothing fresh is drawn
TOGETHER, TOGETHER_AHEAD = "simultaneous", "simultaneous, critic ahead"
SINGLE, AHEAD = "single pass", "single pass, critic ahead"
TOGETHER_FADING, FADING = f"{TOGETHER_AHEAD} at first", f"{AHEAD} at first"
TOGETHER_BOTH, BOTH = f"{TOGETHER}, both ahead", f"{SINGLE}, both ahead"  # the critic at first
GENERATOR_AHEAD = f"{SINGLE}, generator ahead"
_NOBODY = ["update.lookahead=0", "update.generator_lookahead=0"]
_PLAIN = ["update.reuse_fakes=false", *_NOBODY]
_GENERATOR = ["update.reuse_fakes=false", "update.lookahead=0", "update.generator_lookahead=1"]
_CRITIC = ["update.reuse_fakes=false", "update.generator_lookahead=0", "update.lookahead=1"]
_AHEAD, _FADING = ([*_CRITIC, f"update.lookahead_schedule={schedule}"] for schedule in ("constant", "cosine_decay"))
_BOTH = [*_FADING, "update.generator_lookahead=1"]
WAYS = {
    FRESH: ["update.rule=alternating", *_PLAIN],
    REUSED: ["update.rule=alternating", "update.reuse_fakes=true", *_NOBODY],
    ALTERNATING: ["update.rule=alternating", *_PLAIN],
    TOGETHER: ["update.rule=simultaneous", *_PLAIN],
    TOGETHER_AHEAD: ["update.rule=simultaneous", *_AHEAD],
    TOGETHER_FADING: ["update.rule=simultaneous", *_FADING],
    TOGETHER_BOTH: ["update.rule=simultaneous", *_BOTH],
    SINGLE: ["update.rule=single_pass", *_PLAIN],
    AHEAD: ["update.rule=single_pass", *_AHEAD],
    FADING: ["update.rule=single_pass", *_FADING],
    BOTH: ["update.rule=single_pass", *_BOTH],
    GENERATOR_AHEAD: ["update.rule=single_pass", *_GENERATOR],
}
COLOURS = {FRESH: "C0", ALTERNATING: "C4", REUSED: "C2", SINGLE: "C1", AHEAD: "C3", FADING: "C5", BOTH: "C6"}
SIGN = {"reverse KL": -1, "Fréchet distance": -1, "modes": 1, "target accuracy (oracle)": 1}  # 1: more is better
# Forwards of a network that a step takes, as adversarial/rules.py counts them.
WORK = {FRESH: 12, ALTERNATING: 12, REUSED: 11} | {
    **dict.fromkeys((TOGETHER, TOGETHER_AHEAD, TOGETHER_FADING, TOGETHER_BOTH), 10),
    **dict.fromkeys((SINGLE, AHEAD, FADING, BOTH, GENERATOR_AHEAD), 9),
}
PICTURED = ("ring_gan", "mnist_dcgan", "mnist_5k", "moons")  # which have these ways alone


@dataclass(frozen=True)
class Question:
    """A recipe, ways of playing it, the seeds of each, what is measured (the quality first), and keys to change."""

    recipe: str
    ways: tuple[str, ...]
    seeds: int
    metrics: tuple[str, ...]
    words: tuple[str, ...] = ()

    def rows(self, name: str, way: str, root: str, runs: Path) -> list[Row]:
        """The runs of one way."""
        own = [word.replace("ROOT", root) for word in self.words]
        seeds = "seed=" + ",".join(map(str, range(self.seeds))) + ","  # the last comma: a list, of one seed too
        folder = f"run.dir={runs / name / way.replace(', ', '-').replace(' ', '-')}"
        common = ["sample.every=0", "run.threads=1", folder]
        return rows_of([ROOT / f"configs/{self.recipe}.yaml"], [*own, *WAYS[way], *common, seeds])


GAN_WAYS = (FRESH, REUSED, SINGLE, AHEAD, FADING, BOTH)
COUPLED_WAYS = (FRESH, REUSED, TOGETHER, TOGETHER_AHEAD, TOGETHER_FADING, TOGETHER_BOTH)  # a critic with BatchNorm
STACKED_WAYS = (FRESH, TOGETHER_AHEAD, TOGETHER_FADING, TOGETHER_BOTH)
DOMAIN_WAYS = (ALTERNATING, SINGLE, AHEAD, FADING, BOTH)
POINTS, IMAGES, DOMAINS = ("reverse KL", "high quality", "modes"), ("Fréchet distance",), ("target accuracy (oracle)",)
MODES = ("modes", "reverse KL")
OFTEN = ("evaluate.every=400", "checkpoint.every=4000")
SELDOM = ("evaluate.every=2000", "checkpoint.every=10000")
# Twice the recipe's rates for ring_gan and ring_pacgan, for stacked_mnist_dcgan; half of those of stacked_mnist_r3gan.
DOUBLE, DOUBLE_STACKED, HALF_R3GAN = (
    (f"optimizer.generator_lr={rate}", f"optimizer.critic_lr={rate}") for rate in (0.008, 0.0004, 0.0001)
)
MNIST = ("data.root=ROOT", "evaluate.every=600")
NARROW = ("model.generator_width=16", "model.critic_width=16")
STACKED = (
    *NARROW, "train.batch_size=64", "data.root=ROOT", "train.steps=6000", "evaluate.every=3000",
    "checkpoint.every=3000",
)  # fmt: skip
R3GAN = (
    "model.widths=[16,16,16,16]", "train.batch_size=32", "data.root=ROOT", "train.steps=1200", "evaluate.every=600",
    "checkpoint.every=600",
)  # fmt: skip
CIFAR = (
    *NARROW, "data.name=zip", "data.root=ROOT/cifar10-32x32.zip", "evaluate.features=lite0", "evaluate.samples=1000",
)  # fmt: skip
DCGAN = (*CIFAR, "train.batch_size=64", "train.steps=4000", "evaluate.every=1000", "checkpoint.every=2000")
SNGAN = (
    *CIFAR, "train.batch_size=32", "update.critic_steps=1", "train.steps=1500", "evaluate.every=500",
    "checkpoint.every=1000",
)  # fmt: skip
QUESTIONS = {
    "ring": Question("ring", GAN_WAYS, 5, POINTS, OFTEN),
    "ring_gan": Question("ring_gan", GAN_WAYS, 5, POINTS, OFTEN),
    "ring_gan_double": Question("ring_gan", GAN_WAYS, 5, POINTS, (*OFTEN, *DOUBLE)),
    "ring_pacgan": Question("ring_pacgan", GAN_WAYS, 5, POINTS, OFTEN),
    "ring_pacgan_double": Question("ring_pacgan", GAN_WAYS, 5, POINTS, (*OFTEN, *DOUBLE)),
    "ring_wgan_gp": Question("ring_wgan_gp", GAN_WAYS, 3, POINTS, OFTEN),
    "grid": Question("grid", GAN_WAYS, 3, POINTS, SELDOM),
    "grid_gan": Question("grid_gan", GAN_WAYS, 5, POINTS, SELDOM),
    "grid_pacgan": Question("grid_pacgan", GAN_WAYS, 3, POINTS, SELDOM),
    "grid_wgan_gp": Question("grid_wgan_gp", GAN_WAYS, 3, POINTS, SELDOM),
    "digits": Question("digits", GAN_WAYS, 3, IMAGES),
    "mnist_5k": Question("mnist_5k", (REUSED, SINGLE, AHEAD, FADING, BOTH), 3, IMAGES, ("evaluate.every=500",)),
    "mnist_dcgan": Question("mnist_dcgan", GAN_WAYS, 5, IMAGES, MNIST),
    "mnist_dcgan_generator": Question("mnist_dcgan", (GENERATOR_AHEAD,), 5, IMAGES, MNIST),
    "mnist_lsgan": Question("mnist_lsgan", (REUSED, SINGLE, BOTH), 3, IMAGES, MNIST),
    "mnist_hinge": Question("mnist_hinge", (REUSED, SINGLE, BOTH), 3, IMAGES, MNIST),
    "stacked_mnist_dcgan": Question("stacked_mnist_dcgan", STACKED_WAYS, 3, MODES, STACKED),
    "stacked_mnist_dcgan_double": Question(
        "stacked_mnist_dcgan", (FRESH, TOGETHER_AHEAD), 3, MODES, (*STACKED, *DOUBLE_STACKED)
    ),
    "stacked_mnist_pacgan": Question("stacked_mnist_pacgan", STACKED_WAYS, 3, MODES, STACKED),
    "stacked_mnist_r3gan": Question("stacked_mnist_r3gan", (FRESH, FADING), 3, MODES, R3GAN),
    "stacked_mnist_r3gan_half": Question("stacked_mnist_r3gan", (FRESH, FADING), 3, MODES, (*R3GAN, *HALF_R3GAN)),
    "cifar10_dcgan": Question("cifar10_dcgan", COUPLED_WAYS, 3, IMAGES, DCGAN),
    "cifar10_sngan": Question("cifar10_sngan", (REUSED, SINGLE, AHEAD, FADING, BOTH), 3, IMAGES, SNGAN),
    "moons": Question("moons", DOMAIN_WAYS, 10, DOMAINS, ("evaluate.every=1000",)),
    "amazon_reviews": Question(
        "amazon_reviews", DOMAIN_WAYS, 5, DOMAINS, ("data.root=ROOT/amazon_reviews", "evaluate.every=200")
    ),
    "mnist_usps": Question("mnist_usps", DOMAIN_WAYS, 3, DOMAINS, ("data.root=ROOT", "evaluate.every=300")),
    "usps_mnist": Question("usps_mnist", DOMAIN_WAYS, 3, DOMAINS, ("data.root=ROOT", "evaluate.every=300")),
    "digit_patches": Question("digit_patches", DOMAIN_WAYS, 5, DOMAINS, ("evaluate.every=300",)),
    "digit_cameras": Question("digit_cameras", DOMAIN_WAYS, 3, DOMAINS, ("evaluate.every=300",)),
}


def measured(name: str, way: str, result: Result) -> dict[str, Any]:
    """A line of the results: steps, CPU seconds of training until then, and the values there, of one finished run."""
    metrics = QUESTIONS[name].metrics
    values = {metric: {r["step"]: r["value"] for r in result.measured(metric)} for metric in metrics}
    steps = sorted(values[metrics[0]])
    return {
        "question": name,
        "way": way,
        "seed": result.config["seed"],
        "steps": steps,
        "cpu_seconds": [round(result.seconds_at(step, "cpu_seconds"), 1) for step in steps],
        "values": {metric: [float(f"{found[step]:.5g}") for step in steps] for metric, found in values.items()},
    }


def gather(names: Iterable[str], root: str, runs: Path) -> None:
    """Put what finished runs have measured in the place of what the results held of them."""
    lines = {(x["question"], x["way"], x["seed"]): x for x in known()}
    for name in names:
        for way in QUESTIONS[name].ways:
            for row in QUESTIONS[name].rows(name, way, root, runs):
                if row.is_finished():
                    (result,) = results_of([str(row.folder.path)], errors.warn)
                    line = measured(name, way, result)
                    lines[name, way, line["seed"]] = line
    questions, ways = list(QUESTIONS), list(WAYS)
    found = sorted(lines.values(), key=lambda x: (questions.index(x["question"]), ways.index(x["way"]), x["seed"]))
    RESULTS.write_text("".join(json.dumps(x, ensure_ascii=False) + "\n" for x in found), encoding="utf-8")


def known(results: Path = RESULTS) -> list[dict[str, Any]]:
    """The lines of the results."""
    return [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()] if results.exists() else []


def compared() -> list[dict[str, Any]]:
    """The lines of the results, with clocks that can be compared.

    A look ahead adds 1 to 2 % to the time of a shared step, less than these clocks resolve, and some ways came later,
    on quieter cores. So all ways of a question that share a step in the same manner are given one clock: the mean of
    those that do not look ahead and those whose critic does throughout (of all, where neither was run).
    """
    lines = known()
    for plain, ahead, *others in (
        (SINGLE, AHEAD, FADING, BOTH), (TOGETHER, TOGETHER_AHEAD, TOGETHER_FADING, TOGETHER_BOTH),
    ):  # fmt: skip
        for name in QUESTIONS:
            own = [line for line in lines if line["question"] == name and line["way"] in (plain, ahead, *others)]
            timed = [line for line in own if line["way"] in (plain, ahead)] or own
            clocks = [(line["steps"], line["cpu_seconds"]) for line in timed]
            by_step = [dict(zip(*clock, strict=True)) for clock in clocks]
            for line in own:
                line["cpu_seconds"] = [Means([clock.get(step) for clock in by_step]).mean for step in line["steps"]]
                line["totals"] = [seconds[-1] for _, seconds in clocks]
    return lines


def at(line: dict[str, Any], metric: str, seconds: float) -> float:
    """The value of a run after so many CPU seconds, linear between two evaluations."""
    return float(numpy.interp(seconds, line["cpu_seconds"], line["values"][metric]))


def table(name: str, lines: list[dict[str, Any]]) -> Table:
    """A row for each way: the quality early on, what it has reached at the end, and when the cheapest way ends."""
    ways, budget = by_way(name, lines), min(costs(name, lines).values())
    after, (quality, *others) = qualities_after(name, lines, budget), QUESTIONS[name].metrics
    runs = [x for own in ways.values() for x in own]
    early = min(set.intersection(*(set(x["steps"]) for x in runs)))
    last = max(runs[0]["steps"])
    of_quality = [f"{quality}, step {early:,}", f"step {last:,}"]
    titles = ["way", "seeds", *of_quality, *others, "CPU seconds", f"after {budget:.0f}"]
    rows = []
    for way, own in ways.items():
        begin = Means([x["values"][quality][x["steps"].index(early)] for x in own])
        ends = [Means([x["values"][metric][-1] for x in own]) for metric in (quality, *others)]
        spent = Means(own[0].get("totals") or [x["cpu_seconds"][-1] for x in own], 0)
        rows.append([way, str(len(own)), begin, *ends, spent, after[way]])
    return Table(titles, rows)


def first(name: str, lines: list[dict[str, Any]]) -> str:
    """The way that a recipe takes: of the best quality at the end, in the mean over seeds.

    Ways within one standard error of the difference are as good: then it is the one with the least work in a step, and
    of those that have the same the one without a look ahead, or with one throughout. One seed decides nothing: "" where
    no way has two.
    """
    sign = SIGN[QUESTIONS[name].metrics[0]]
    ends = {way: end for way, end in qualities(name, lines).items() if end.error is not None}
    if not ends:
        return ""
    best, error = max(sign * end.mean for end in ends.values()), error_of_difference(ends.values())
    as_good = [way for way in ends if best - sign * ends[way].mean <= error]
    return min(as_good, key=lambda way: (WORK[way], list(WAYS).index(way)))


def qualities(name: str, lines: list[dict[str, Any]]) -> dict[str, Means]:
    """The first metric at the end of each way's runs."""
    metric = QUESTIONS[name].metrics[0]
    return {way: Means([x["values"][metric][-1] for x in own]) for way, own in by_way(name, lines).items()}


def qualities_after(name: str, lines: list[dict[str, Any]], seconds: float) -> dict[str, Means]:
    """The first metric of each way's runs after so many CPU seconds."""
    metric = QUESTIONS[name].metrics[0]
    return {way: Means([at(x, metric, seconds) for x in own]) for way, own in by_way(name, lines).items()}


def costs(name: str, lines: list[dict[str, Any]]) -> dict[str, float]:
    """Mean CPU seconds of each way's runs."""
    return {way: Means([x["cpu_seconds"][-1] for x in own]).mean for way, own in by_way(name, lines).items()}


def by_way(name: str, lines: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The lines of a question, by way."""
    own = [x for x in lines if x["question"] == name]
    return {way: found for way in WAYS if (found := [x for x in own if x["way"] == way])}


def error_of_difference(ends: Iterable[Means]) -> float:
    """The standard error of the difference of two ways, pooled over all of a question that have several seeds.

    Of a single way it is a matter of chance with three seeds, and who scatters most would be as good as the best.
    """
    errors = [end.error for end in ends if end.error is not None]
    return math.sqrt(2 * sum(error**2 for error in errors) / len(errors))


def lead(name: str, found: dict[str, Means], way: str, other: str) -> str:
    """By how many standard errors of the difference a way is better than another one; "-" where one has one seed."""
    if found[way].error is None or found[other].error is None:
        return "-"
    sign, error = SIGN[QUESTIONS[name].metrics[0]], error_of_difference(found.values())
    return f"{sign * (found[way].mean - found[other].mean) / error:+.1f}"


def summary(names: Iterable[str], lines: list[dict[str, Any]]) -> Table:
    """A row for each question that has several ways: which is first, and qualities at the end.

    Behind those of looking ahead stands by how many standard errors they are better than alternating play, at equal
    steps and after the CPU seconds of the cheaper of the two, and than the shared step that does not look ahead.
    """
    looks = ["critic ahead", "critic ahead at first", "both ahead"]
    titles = ["question", "quality", "first", "alternating", "shared step", *looks]
    rows = []
    for name in names:
        ends, spent = qualities(name, lines), costs(name, lines)
        if len(ends) < 2:
            continue
        rival, plain, *looking = (
            next((way for way in ways if way in ends), None)
            for ways in (
                (REUSED, FRESH, ALTERNATING), (SINGLE, TOGETHER), (AHEAD, TOGETHER_AHEAD), (FADING, TOGETHER_FADING),
                (BOTH, TOGETHER_BOTH),
            )
        )  # fmt: skip
        cells = [str(ends.get(way, "-")) for way in (rival, plain, *looking)]
        for i, way in enumerate(looking, 2):
            leads = []
            if way and rival:
                after = qualities_after(name, lines, min(spent[way], spent[rival]))
                leads += [lead(name, found, way, rival) for found in (ends, after)]
            if way and plain:
                leads.append(lead(name, ends, way, plain))
            cells[i] += f" ({', '.join(leads)})" if leads else ""
        rows.append([f"`{name}`", QUESTIONS[name].metrics[0], first(name, lines) or "-", *cells])
    return Table(titles, rows)


def draw(lines: list[dict[str, Any]], path: Path) -> None:
    """The first metric of some questions over steps, above, and over CPU seconds, below: means and standard errors."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    figure = Figure(figsize=(3.3 * len(PICTURED), 5.4), dpi=100, layout="constrained")
    panels = figure.subplots(2, len(PICTURED), sharey="col")
    drawn = {}
    for name, (by_step, by_second) in zip(PICTURED, panels.T, strict=True):
        metric = QUESTIONS[name].metrics[0]
        for way, own in by_way(name, lines).items():
            steps = sorted(set.intersection(*(set(x["steps"]) for x in own)))  # without samples near modes: no KL
            curves = [dict(zip(x["steps"], x["values"][metric], strict=True)) for x in own]
            clocks = [dict(zip(x["steps"], x["cpu_seconds"], strict=True)) for x in own]
            means = [Means([curve[step] for curve in curves]) for step in steps]
            seconds = [Means([clock[step] for clock in clocks]).mean for step in steps]
            low, high = ([m.mean + sign * (m.error or 0.0) for m in means] for sign in (-1, 1))
            for panel, x in ((by_step, steps), (by_second, seconds)):
                (drawn[way],) = panel.plot(x, [m.mean for m in means], marker=".", color=COLOURS[way], label=way)
                panel.fill_between(x, low, high, color=COLOURS[way], alpha=0.15, linewidth=0)
        by_step.set(title=QUESTIONS[name].recipe, xlabel="steps", ylabel=metric)
        by_second.set(xlabel="CPU seconds", ylabel=metric)
        if metric in (*IMAGES, "reverse KL"):
            by_step.set_yscale("log")
            by_step.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
            by_step.yaxis.set_major_formatter("{x:g}")
            by_step.yaxis.set_minor_locator(NullLocator())
    figure.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path)


def main(arguments: list[str]) -> int:
    """Train what is missing, gather, and tell. Returns the exit code of the runs."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--only", nargs="+", choices=QUESTIONS, default=list(QUESTIONS), metavar="QUESTION")
    words.add_argument("--root", default="data", help="MNIST, USPS, amazon_reviews/ and cifar10-32x32.zip")
    words.add_argument("--runs", type=Path, default=Path("runs/quality"))
    words.add_argument("--jobs", type=int, default=1, help="runs at a time")
    words.add_argument("--tell", action="store_true", help="train nothing")
    options = words.parse_args(arguments)
    code = 0
    if not options.tell:
        asked = [(name, way) for name in options.only for way in QUESTIONS[name].ways]
        rows = [row for name, way in asked for row in QUESTIONS[name].rows(name, way, options.root, options.runs)]
        code = perform(rows, options.jobs)
        gather(options.only, options.root, options.runs)
    lines = compared()
    names = [name for name in options.only if by_way(name, lines)]
    print(summary(names, lines).markdown())
    for name in names:
        print(f"### {name}\n\n{table(name, lines).markdown()}")
    draw(lines, PICTURE)
    return code


if __name__ == "__main__":
    errors.run(main)
