"""What comes out of the update rules: the quality of samples, methods and rules side by side at equal steps.

    python benchmarks/quality.py --data ring grid --jobs 2                      # PacGAN's protocol, 10 seeds
    python benchmarks/quality.py --data mnist --root data --seeds 3 --jobs 2    # Fréchet distance, steps and seconds

Every run is train.py's loop on one thread of a process of its own, without a run folder. What it measured is a line of
``--results``, so the same command goes on after a stop; ``--table`` prints the tables of the lines that there are and
runs nothing. ``benchmarks/quality.md`` holds committed ones.
"""

import argparse
import contextlib
import hashlib
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: one thread a run, as many runs as --jobs

import torch
from tqdm import tqdm

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import train  # noqa: E402
from adversarial.rules import RULES  # noqa: E402
from utils import errors  # noqa: E402
from utils.config import loading as config  # noqa: E402
from utils.config.identity import identity  # noqa: E402
from utils.config.sections import Config  # noqa: E402
from utils.data.samples import DataSet, to_images  # noqa: E402
from utils.evaluation import coverage as covered  # noqa: E402
from utils.evaluation.classifier import classifier  # noqa: E402
from utils.evaluation.distances import frechet_distance_to  # noqa: E402
from utils.evaluation.sampling import latents, sample  # noqa: E402
from utils.tasks.registry import task_of  # noqa: E402
from utils.training import processes  # noqa: E402
from utils.training.players import Players  # noqa: E402

CPU = torch.device("cpu")
PLAIN = ("game.objective=non_saturating", "penalty.r2=0")
METHODS = {
    "rpgan": ("RpGAN + R1 + R2", ()),
    "r1": ("non-saturating + R1", PLAIN),
    "pacgan": ("PacGAN2 (non-saturating, no penalty)", (*PLAIN, "penalty.r1=0", "game.pack=2")),
    "gan": ("GAN (non-saturating, no penalty)", (*PLAIN, "penalty.r1=0")),
}
PUBLISHED = {  # modes, high quality in %, reverse KL after 400,000 steps: Lin et al. 2018, section 4.1
    "ring": {
        "GAN": "6.3 ± 0.5 | 98.2 | 0.45", "PacGAN2": "7.9 ± 0.1 | 95.6 | 0.07", "PacGAN4": "7.8 ± 0.1 | 95.9 | 0.07",
    },
    "grid": {
        "GAN": "17.3 ± 0.8 | 94.8 | 0.70", "PacGAN2": "23.8 ± 0.7 | 91.3 | 0.13", "PacGAN4": "24.8 ± 0.2 | 93.6 | 0.04",
    },
}  # fmt: skip
RECIPES = {"ring": "ring", "grid": "grid", "mnist": "mnist_dcgan"}
EVALUATIONS, IMAGES = 5, 2000  # of an MNIST run, and samples in each
FEATURES = ROOT / "runs/quality"  # keeps the classifier in whose features images are compared
PLOT = ROOT / "docs/mnist_rules.png"


@dataclass(frozen=True)
class Run:
    """One training run: where it belongs in a table, and its command line."""

    data: str
    method: str
    rule: str
    seed: int
    words: tuple[str, ...]

    @property
    def config(self) -> Config:
        """The resolved config."""
        return config.load(ROOT / f"configs/{RECIPES[self.data]}.yaml", list(self.words))

    @property
    def key(self) -> str:
        """Tells runs apart whose settings differ, those that the recipe states included."""
        cfg = self.config
        told = repr(sorted(identity(cfg).items())) + str(cfg.train.steps)
        return hashlib.sha256(told.encode()).hexdigest()[:16]


def plan(options: argparse.Namespace) -> list[Run]:
    """All runs, seed by seed, so that a benchmark that is cut off has as many seeds of every arm."""
    runs = []
    for seed in range(options.seeds):
        for data in options.data:
            common = [f"seed={seed}", "run.device=cpu", "run.threads=1"]
            if options.steps:
                common.append(f"train.steps={options.steps}")
            if data == "mnist":
                common.append(f"data.root={options.root}")
            for method in ["dcgan"] if data == "mnist" else options.methods:
                own = () if data == "mnist" else METHODS[method][1]
                for rule in options.rules:
                    runs.append(Run(data, method, rule, seed, (*common, *own, f"update.rule={rule}", *options.set)))
    return runs


# --- One run


class Silent:
    """Recorder, saver and evaluator of ``train.loop`` that write nothing, and call ``show`` after every step."""

    begin, paused = 0, staticmethod(contextlib.nullcontext)

    def __init__(self, steps: Iterator[int] | range, show: Callable[[int], None] = lambda done: None):
        self.steps, self._show = lambda: steps, show

    def add(self, *_: Any) -> None:
        """Nothing is recorded."""

    write = check_finite = save = check = add

    def show(self, done: int) -> bool:
        """Measure what is due. The run goes on."""
        self._show(done)
        return True


class Match:
    """The players of a config, and its loop over any steps."""

    def __init__(self, cfg: Config, data: DataSet):
        self.cfg, task, accelerator = cfg, task_of(cfg), processes.start(cfg)
        self.players = Players.build(cfg, *task.networks(cfg, task.sizes(data)), accelerator.device)
        self.game = task.game(cfg, self.players, data, accelerator)
        self.feed = train.feed_of(cfg, data, accelerator, 0)

    def play(self, steps: range, show: Callable[[int], None] = lambda done: None) -> None:
        """Train for ``steps``, which must follow those before."""
        stop = SimpleNamespace(received=lambda: False)
        silent = Silent(steps, show)
        train.loop(self.cfg, self.game, self.players, self.feed, silent, silent, silent, stop)


def do(run: Run) -> dict[str, Any]:
    """Train and measure: a line of the results."""
    torch.set_num_threads(1)
    cfg, begin = run.config, time.process_time()
    data = loaded(cfg)
    match = Match(cfg, data)
    if run.data == "mnist":
        measured = {"distances": distances(match, data)}
    else:
        match.play(range(cfg.train.steps))
        measured = coverage(match.players, cfg, data)
    about = {"data": run.data, "method": run.method, "rule": run.rule, "seed": run.seed, "steps": cfg.train.steps}
    return {"key": run.key, **about, **measured, "cpu_seconds": round(time.process_time() - begin, 1)}


def loaded(cfg: Config) -> DataSet:
    """The data set that a config names."""
    return task_of(cfg).load(cfg)


def coverage(players: Players, cfg: Config, data: DataSet) -> dict[str, Any]:
    """PacGAN's metrics of the averaged generator."""
    found = covered.coverage(samples(players, cfg, cfg.evaluate.samples), data.modes)
    return {"modes": found.modes, "high quality": 100 * found.high_quality, "reverse KL": found.reverse_kl}


def distances(match: Match, data: DataSet) -> list[tuple[int, float]]:
    """Train, and measure the averaged generator's Fréchet distance to the held-out split on the way: by step."""
    network, cfg, found = classifier(data, FEATURES, CPU), match.cfg, []
    with torch.no_grad():
        distance = frechet_distance_to(network, to_images(data.test.x, CPU))

    @torch.no_grad()
    def measure(done: int) -> None:
        found.append((done, distance(samples(match.players, cfg, IMAGES))))

    every = max(cfg.train.steps // EVALUATIONS, 1)
    match.play(range(cfg.train.steps), lambda done: measure(done) if done % every == 0 else None)
    measure(cfg.train.steps)  # the loop leaves the end to its caller
    return found


def samples(players: Players, cfg: Config, count: int) -> torch.Tensor:
    """Samples of the averaged generator, from latents of the run's seed, as train.py evaluates them."""
    return sample(players.average, latents(count, cfg.model.latent_dim, cfg.seed), None)


def seconds_per_step(runs: list[Run], rounds: int, steps: int) -> dict[str, float]:
    """Median seconds of a step by rule, measured in turns (A B C A B C ...) in this process, without evaluation."""
    data = loaded(runs[0].config)
    matches = {run.rule: Match(run.config, data) for run in runs}
    times: dict[str, list[float]] = {rule: [] for rule in matches}
    for i in tqdm(range(rounds + 1), desc="seconds per step", unit="turn", disable=None):
        for rule, match in matches.items():
            begin = time.perf_counter()
            match.play(range(i * steps, (i + 1) * steps))
            times[rule].append((time.perf_counter() - begin) / steps)
    return {rule: statistics.median(measured[1:]) for rule, measured in times.items()}  # the first turn warms up


# --- Tables


def show(values: list[float | None], digits: int) -> str:
    """Mean ± standard error of those that there are."""
    v = torch.tensor([value for value in values if value is not None], dtype=torch.float64)
    error = f" ± {v.std() / len(v) ** 0.5:.{digits}f}" if len(v) > 1 else ""
    return f"{v.mean():.{digits}f}{error}" if len(v) else "-"


def points_table(data: str, lines: list[dict]) -> Iterator[str]:
    """One data set: a row a method and rule, then the published figures."""
    total = {"ring": 8, "grid": 25}[data]
    yield f"## {data}: {lines[0]['steps']} steps\n"
    yield f"| method | rule | modes of {total} | high quality, % | reverse KL | seeds | CPU seconds a run |"
    yield "|---|---|---:|---:|---:|---:|---:|"
    for method, (title, _) in METHODS.items():
        for rule in RULES:
            own = [line for line in lines if (line["method"], line["rule"]) == (method, rule)]
            if own:
                cells = [show([line[k] for line in own], d) for k, d in COLUMNS.items()]
                cpu = statistics.median(line["cpu_seconds"] for line in own)
                yield f"| {title} | {rule} | {' | '.join(cells)} | {len(own)} | {cpu:.0f} |"
    for title, cells in PUBLISHED[data].items():
        yield f"| {title}, published, 400,000 steps | - | {cells} | 10 | |"


COLUMNS = {"modes": 1, "high quality": 1, "reverse KL": 3}  # and their digits


def images_table(lines: list[dict], seconds: dict[str, float]) -> Iterator[str]:
    """MNIST: a row a rule."""
    steps = [step for step, _ in lines[0]["distances"]]
    yield f"## mnist: {lines[0]['steps']} steps\n"
    yield "| rule | " + " | ".join(f"step {step}" for step in steps) + " | ms a step | seconds in all | seeds |"
    yield "|---|" + "---:|" * (len(steps) + 3)
    for rule in RULES:
        own = [line["distances"] for line in lines if line["rule"] == rule]
        if own:
            cells = [show([run[i][1] for run in own], 1) for i in range(len(steps))]
            each = seconds.get(rule)
            cost = f"{1e3 * each:.1f} | {steps[-1] * each:.0f}" if each else "- | -"
            yield f"| {rule} | {' | '.join(cells)} | {cost} | {len(own)} |"


def plot(lines: list[dict], seconds: dict[str, float], path: Path) -> None:
    """Fréchet distance by steps and by seconds: mean and range over seeds."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(8, 3), sharey=True, layout="constrained")
    for rule in RULES:
        own = [line["distances"] for line in lines if line["rule"] == rule]
        if not own:
            continue
        steps = [step for step, _ in own[0]]
        values = torch.tensor([[distance for _, distance in run] for run in own])
        for panel, x in zip(panels, (steps, [step * seconds[rule] for step in steps]), strict=True):
            panel.plot(x, values.mean(0), marker=".", label=rule.replace("_", " "))
            panel.fill_between(x, values.amin(0), values.amax(0), alpha=0.2)
    panels[0].set(xlabel="steps", ylabel="Fréchet distance", yscale="log")
    panels[1].set(xlabel="seconds of training, one thread")
    panels[1].legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


# --- The benchmark


def read(path: Path) -> list[dict[str, Any]]:
    """The results so far; a line that a stop cut off is left out."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def append(path: Path, line: dict[str, Any]) -> None:
    """Write one more result, on a line of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torn = path.is_file() and path.stat().st_size and not path.read_text().endswith("\n")
    with open(path, "a") as file:
        file.write("\n" * bool(torn) + json.dumps(line) + "\n")


def perform(runs: list[Run], options: argparse.Namespace) -> None:
    """Run what has no line yet. A forked process spares each run the import of PyTorch, and ends with it."""
    known = {line["key"] for line in read(options.results)}
    left = [run for run in runs if run.key not in known]
    if any(run.data == "mnist" for run in left):  # once, not in every run
        data = loaded(next(run for run in left if run.data == "mnist").config)
        classifier(data, FEATURES, CPU)
    with get_context("fork").Pool(options.jobs, maxtasksperchild=1) as pool:
        lines = pool.imap_unordered(do, left)
        for line in tqdm(lines, initial=len(runs) - len(left), total=len(runs), unit="run", disable=None):
            append(options.results, line)


def timed(runs: list[Run], options: argparse.Namespace) -> dict[str, float]:
    """Seconds per step by rule of the first seed's MNIST runs, measured once."""
    key = " ".join(run.key for run in runs)
    for line in read(options.results):
        if line["key"] == key:
            return line["seconds"]
    if options.table:
        return {}
    seconds = seconds_per_step(runs, rounds=options.turns, steps=10)
    append(options.results, {"key": key, "data": "mnist", "seconds": seconds})
    return seconds


def main(arguments: list[str]) -> int:
    """Run what is left, then print the tables."""
    options = parser().parse_args(arguments)
    runs = plan(options)
    torch.set_num_threads(1)
    if not options.table:
        perform(runs, options)
    print(f"Machine: {os.cpu_count()} CPU cores, {platform.machine()}, one thread a run. ", end="")
    print(f"Python {platform.python_version()}, torch {torch.__version__}.")
    print(f"Command: `{' '.join(['python benchmarks/quality.py', *arguments])}`")
    results = {line["key"]: line for line in read(options.results)}
    for data in options.data:
        lines = [results[run.key] for run in runs if run.data == data and run.key in results]
        if not lines:
            continue
        if data == "mnist":
            seconds = timed([run for run in runs if (run.data, run.seed) == (data, 0)], options)
            if seconds:
                plot(lines, seconds, options.plot)
        table = images_table(lines, seconds) if data == "mnist" else points_table(data, lines)
        print("", *table, sep="\n")
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    words = argparse.ArgumentParser(description="Quality of samples by method and update rule, at equal steps.")
    words.add_argument("--data", nargs="+", choices=list(RECIPES), default=["ring", "grid"])
    words.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS), help="on ring and grid")
    words.add_argument("--rules", nargs="+", choices=list(RULES), default=list(RULES))
    words.add_argument("--seeds", type=int, default=10, help="0, 1, ... (default: 10)")
    words.add_argument("--steps", type=int, help="default: the recipe's")
    words.add_argument("--set", nargs="+", default=[], metavar="key=value", help="more settings of all runs")
    words.add_argument("--root", default="data", help="folder that holds MNIST (default: data)")
    words.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each (default: 1)")
    words.add_argument("--turns", type=int, default=15, help="of measuring seconds per step on mnist (default: 15)")
    words.add_argument("--results", type=Path, default=ROOT / "runs/quality.jsonl", help="default: runs/quality.jsonl")
    words.add_argument("--plot", type=Path, default=PLOT, help="default: docs/mnist_rules.png")
    words.add_argument("--table", action="store_true", help="print the tables of what there is, run nothing")
    return words


if __name__ == "__main__":
    errors.run(main)
