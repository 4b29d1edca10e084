"""Domain-adversarial games, measured: methods, objectives and update rules side by side at equal steps.

    ./flip benchmarks/adaptation.py moons digit_patches amazon_reviews mnist_usps usps_mnist --data data --jobs 2

Runs lie in ``--runs`` and are resumed or skipped where they are finished, so the same command goes on after a stop;
``--table`` writes the tables of what is finished. Every run is one thread of one process.
"""

import argparse
import contextlib
import io
import json
import os
import platform
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: one thread a run, as many runs as --jobs

import torch
from tqdm import tqdm

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import train  # noqa: E402
from utils.data import domains  # noqa: E402
from utils.evaluation.recognisers import ORACLE  # noqa: E402
from utils.tasks.adaptation import Adaptation  # noqa: E402


def remembering(load: Callable) -> Callable:
    """``domains.load`` that reads files once a process: they are the same for all seeds and arms."""
    known: dict[tuple, domains.Domains] = {}

    def remembered(config: object, seed: int, target_only: bool = False) -> domains.Domains:
        key = (repr(config), target_only, None if config.root != "data" else seed)
        if key not in known:
            known[key] = load(config, seed, target_only)
        return known[key]

    return remembered


domains.load = remembering(domains.load)

QUIET = ["run.threads=1", "sample.every=0", "log.every=500", "checkpoint.every=1000"]
RULES = {
    "DANN, single pass": [],
    "DANN, simultaneous": ["update.rule=simultaneous"],
    "DANN, alternating": ["update.rule=alternating"],
}
SOURCE_ONLY = {"source only": ["game.method=source_only"]}
TARGET_ONLY = {"target only (upper bound)": ["game.method=target_only"]}
MOONS = {
    "DANN (minimax), no penalty, single pass": ["game.objective=minimax", "penalty.r1=0", "penalty.r2=0"],
    "label flip, R1 + R2, single pass": [],
    "label flip, R1 + R2, simultaneous": ["update.rule=simultaneous"],
    "label flip, R1 + R2, alternating": ["update.rule=alternating"],
}
DIGITS = {
    **SOURCE_ONLY,
    **RULES,
    "DANN, non-saturating, single pass": ["game.objective=non_saturating"],
    "CDAN+E, single pass": ["game.method=cdan_e"],
    "ADDA, alternating": ["base:adda"],
}
PAPER = {  # DANN on the Amazon reviews: Ganin et al. 2016, table 1
    "books-dvd": 78.4, "books-electronics": 73.3, "books-kitchen": 77.9, "dvd-books": 72.3, "dvd-electronics": 75.4,
    "dvd-kitchen": 78.3, "electronics-books": 71.3, "electronics-dvd": 73.8, "electronics-kitchen": 85.4,
    "kitchen-books": 70.9, "kitchen-dvd": 74.0, "kitchen-electronics": 84.3,
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One training run: where it belongs in a table, and its command line."""

    experiment: str
    arm: str
    seed: int
    recipe: str
    overrides: tuple[str, ...]
    folder: str

    @property
    def name(self) -> str:
        """Its folder below ``--runs``."""
        return "".join(c if c.isalnum() else "-" for c in f"{self.experiment}-{self.arm}-{self.seed}")

    @property
    def words(self) -> list[str]:
        """Arguments of train.py."""
        where = [f"run.dir={self.folder}", f"run.name={self.name}", f"seed={self.seed}"]
        return [str(ROOT / f"configs/{self.recipe}.yaml"), *self.overrides, *QUIET, *where]


def plan(experiments: list[str], data: Path, folder: str) -> list[Run]:
    """All runs of the experiments."""
    runs = []

    def add(experiment: str, recipe: str, arms: dict[str, list[str]], seeds: int, *common: str) -> None:
        for seed in range(seeds):
            for arm, overrides in arms.items():
                runs.append(Run(experiment, arm, seed, recipe, (*common, *overrides), folder))

    for name in experiments:
        if name == "moons":
            add(name, name, {**SOURCE_ONLY, **MOONS}, 10)
        if name == "digit_patches":
            add(name, name, {**SOURCE_ONLY, **RULES, **TARGET_ONLY}, 5)
        if name == "amazon_reviews":
            for pair in PAPER:
                source, target = pair.split("-")
                where = (f"data.root={data}/amazon_reviews", f"data.source={source}", f"data.target={target}")
                add(pair, name, {**SOURCE_ONLY, **RULES}, 5, *where)
        if name in ("mnist_usps", "usps_mnist"):
            for seed in range(3):
                for arm, overrides in DIGITS.items():
                    recipe = f"{name}_adda" if overrides == ["base:adda"] else name
                    words = [f"data.root={data}"]
                    if recipe != name:
                        former = Run(name, "source only", seed, name, (), folder)
                        words.append(f"game.pretrained={folder}/{former.name}")
                        overrides = []
                    runs.append(Run(name, arm, seed, recipe, (*words, *overrides), folder))
    return runs


def do(run: Run) -> str:
    """Train one run, silently; returns what went wrong, or nothing."""
    torch.set_num_threads(1)
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            code = train.main(run.words)
        except Exception as error:
            return f"{run.name}: {error}"
    return "" if code == 0 else f"{run.name}: exit code {code}"


def measured(run: Run) -> dict[str, dict[int, float]] | None:
    """The metrics of a finished run by name and step; None before it is finished."""
    path = Path(run.folder) / run.name / "metrics.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    if not any(record["kind"] == "finished" for record in records):
        return None
    found: dict[str, dict[int, float]] = {}
    for record in records:
        if record["kind"] == "metric":
            found.setdefault(record["metric"], {})[record["step"]] = record["value"]
            if record["metric"] in Adaptation.metrics:
                found.setdefault("better", {})[record["metric"]] = record["higher_is_better"]
    return found


def chosen(metrics: dict, criterion: str) -> float:
    """The oracle's accuracy at the step that a criterion chooses: its best one, the latest among equals."""
    sign = 1 if metrics["better"][criterion] else -1
    step = max(metrics[criterion], key=lambda s: (sign * metrics[criterion][s], s))
    return metrics[ORACLE][step]


def last(metrics: dict, name: str) -> float:
    """A metric at the last step."""
    return metrics[name][max(metrics[name])]


def show(values: list[float], digits: int = 1) -> str:
    """Mean ± standard error."""
    v = torch.tensor(values, dtype=torch.float64)
    error = f" ± {v.std() / len(v) ** 0.5:.{digits}f}" if len(v) > 1 else ""
    return f"{v.mean():.{digits}f}{error}"


def table(title: str, runs: list[Run]) -> list[str]:
    """One experiment: a row an arm."""
    metric = Adaptation.best_metric
    lines = [
        f"## {title}", "",
        f"| arm | target accuracy, last step | chosen by {metric} | source | proxy A-distance | seeds |",
        "|---|---:|---:|---:|---:|---:|",
    ]  # fmt: skip
    for arm in dict.fromkeys(run.arm for run in runs):
        done = [m for run in runs if run.arm == arm and (m := measured(run))]
        if done:
            columns = (
                show([last(m, ORACLE) for m in done]),
                show([chosen(m, metric) for m in done]),
                show([last(m, "source accuracy") for m in done]),
                show([last(m, "proxy A-distance") for m in done], 2),
            )
            lines.append(f"| {arm} | {' | '.join(columns)} | {len(done)} |")
    return [*lines, ""]


def reviews(runs: list[Run]) -> list[str]:
    """The Amazon reviews: a row a pair, and the means over pairs."""
    arms = list(dict.fromkeys(run.arm for run in runs))
    lines = [
        "## amazon_reviews",
        "",
        f"| pair | {' | '.join(arms)} | DANN paper | seeds |",
        "|---|" + "---:|" * (len(arms) + 2),
    ]
    means: dict[str, list[float]] = {arm: [] for arm in arms}
    for pair, paper in PAPER.items():
        done = {
            arm: [m for run in runs if (run.experiment, run.arm) == (pair, arm) and (m := measured(run))]
            for arm in arms
        }
        if all(done.values()):
            cells = [show([last(m, ORACLE) for m in done[arm]]) for arm in arms]
            for arm in arms:
                means[arm].append(sum(last(m, ORACLE) for m in done[arm]) / len(done[arm]))
            seeds = min(map(len, done.values()))
            lines.append(f"| {pair} | {' | '.join(cells)} | {paper} | {seeds} |")
    count = len(means[arms[0]])
    if count:
        cells = [f"{sum(values) / count:.2f}" for values in means.values()]
        lines.append(f"| **mean of {count} pairs** | {' | '.join(cells)} | {sum(PAPER.values()) / len(PAPER):.2f} | |")
    return [*lines, ""]


def choosing(runs: list[Run]) -> list[str]:
    """What each criterion costs: target accuracy where it chooses, by experiment, over all adversarial arms."""
    names = list(dict.fromkeys(run.experiment if run.recipe != "amazon_reviews" else run.recipe for run in runs))
    lines = [
        "## Choosing without target labels", "",
        "Target accuracy at the step that a criterion chooses among a run's evaluations, over adversarial runs.", "",
        f"| experiment | last step | {' | '.join(Adaptation.metrics)} | oracle's choice | runs |",
        "|---|" + "---:|" * (len(Adaptation.metrics) + 3),
    ]  # fmt: skip
    for name in names:
        own = [run for run in runs if name in (run.experiment, run.recipe) and "only" not in run.arm]
        done = [m for run in own if (m := measured(run))]
        if done:
            cells = [show([chosen(m, criterion) for m in done]) for criterion in Adaptation.metrics]
            best = show([max(m[ORACLE].values()) for m in done])
            lines.append(
                f"| {name} | {show([last(m, ORACLE) for m in done])} | {' | '.join(cells)} | {best} | {len(done)} |"
            )
    return [*lines, ""]


def main() -> None:
    """Run what is not finished, then write the tables."""
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    names = ["moons", "digit_patches", "amazon_reviews", "mnist_usps", "usps_mnist"]
    words.add_argument("experiments", nargs="*", choices=[*names, []], help="default: all")
    words.add_argument("--data", type=Path, default=Path("data"), help="folder with MNIST, USPS and amazon_reviews")
    words.add_argument("--runs", default="runs/adaptation", help="folder of the runs (default: runs/adaptation)")
    words.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each (default: 1)")
    words.add_argument("--table", action="store_true", help="write the tables of what is finished, run nothing")
    options = words.parse_args()
    runs = plan(options.experiments or names, options.data, options.runs)
    if not options.table:
        with ProcessPoolExecutor(options.jobs, get_context("spawn")) as pool:
            # ADDA begins with a source-only run of its seed, which comes before it in its own batch.
            for part in ([r for r in runs if "adda" not in r.recipe], [r for r in runs if "adda" in r.recipe]):
                for trouble in tqdm(pool.map(do, part), total=len(part), unit="run"):
                    if trouble:
                        tqdm.write(trouble)
    lines = [
        "# Domain-adversarial games", "",
        "Target accuracy in per cent on held-out target labels, mean ± standard error over seeds, at equal steps.",
        f"Command: `./flip benchmarks/adaptation.py {' '.join(options.experiments)} --data DATA --jobs 2` (seeds 0, 1, "
        "...; amazon_reviews is evaluated at the end only).",
        f"Machine: {os.cpu_count()} CPU cores, one thread a run; Python {platform.python_version()}, torch "
        f"{torch.__version__}.", "",
    ]  # fmt: skip
    for name in options.experiments or names:
        own = [run for run in runs if name in (run.experiment, run.recipe)]
        lines += reviews(own) if name == "amazon_reviews" else table(name, own)
    text = "\n".join([*lines, *choosing(runs)])
    (Path(__file__).parent / "adaptation.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
