"""How long does a save keep training waiting? In training steps of the digits and the CIFAR-10 SNGAN recipe.

    python benchmarks/checkpoint_stall.py                                        # both, minutes on 2 CPU cores
    python benchmarks/checkpoint_stall.py --recipe configs/digits.yaml --rounds 20

Each round takes steps without a save, then a save that is written behind the training, with as many steps as it takes
to be written, then the same save written in the loop. The stall is the time until the loop goes on: for the first kind
the copy to host memory. What writing beside the steps costs them is told apart: the time that these took longer than
steps alone. Medians over the rounds, on synthetic images. Prints a Markdown table; ``benchmarks/checkpoint_stall.md``
holds a committed one.
"""

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent.parent))

import train
from utils import errors
from utils.config import loading as config
from utils.data.samples import DataSet, Resident
from utils.tasks.registry import task_of
from utils.training import checkpoint, processes, values
from utils.training.players import Players
from utils.training.state import RunState

ROOT = Path(__file__).parent.parent
SHAPES = {"digits": (1, 8, 8), "cifar10": (3, 32, 32)}


def main(arguments: list[str]) -> int:
    """Parse the command line, measure, print the table."""
    options = parser().parse_args(arguments)
    print("| recipe | MB | step, ms | stall behind training | stall in the loop | slower steps beside the writing |")
    print("|---|---:|---:|---:|---:|---:|")
    for recipe in options.recipe:
        print(row(recipe, options.rounds, options.batch), flush=True)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores"
    print(f"\nIn steps of the recipe. {device}, Python {platform.python_version()}, torch {torch.__version__}.")
    return 0


def row(recipe: Path, rounds: int, batch: int) -> str:
    """A line of the table."""
    step, tensors, cfg = trainer(recipe, batch)
    writer, size = checkpoint.Writer(), 0
    steps, behind, inside, slower = [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for i in tqdm(range(rounds + 1), desc=recipe.stem, disable=None):
            alone = [seconds(step) for _ in range(3)]

            def save(copies: checkpoint.Tensors, number: int = 2 * i) -> None:
                checkpoint.save(Path(folder), copies, RunState(number), keep=2)

            stall = seconds(lambda save=save: writer.submit(lambda copies=checkpoint.snapshot(tensors()): save(copies)))
            beside = [seconds(step)]
            while not writer._job.done():
                beside.append(seconds(step))
            whole = seconds(lambda i=i: checkpoint.save(Path(folder), tensors(), RunState(2 * i + 1), keep=2))
            if i:  # the first round warms up
                steps += alone
                behind.append(stall)
                inside.append(whole)
                slower.append(sum(beside) - len(beside) * statistics.median(alone))
        newest = max(Path(folder).glob("step-*"))
        size = sum(path.stat().st_size for path in newest.iterdir())
    one = statistics.median(steps)
    figures = " | ".join(f"{statistics.median(values) / one:.3f}" for values in (behind, inside, slower))
    return f"| {cfg.run.name}, batch {cfg.train.batch_size} | {size / 1e6:.1f} | {1e3 * one:.0f} | {figures} |"


def trainer(recipe: Path, batch: int) -> tuple[Callable[[], None], Callable[[], checkpoint.Tensors], config.Config]:
    """A function that takes one step of a recipe, one that gives what a checkpoint holds, and the config."""
    cfg = config.load(recipe, [f"train.batch_size={batch}"] if batch else [])
    accelerator, task = processes.start(cfg), task_of(cfg)
    shape = SHAPES[cfg.data.name]
    noise = Resident(torch.randint(256, (512, *shape), dtype=torch.uint8), torch.arange(512) % 10)
    data = DataSet(cfg.data.name, shape, 10, noise, None)
    players = Players.build(cfg, *task.networks(cfg, task.sizes(data)), accelerator.device)
    game = task.game(cfg, players, data, accelerator)
    feed = train.feed_of(cfg, data, accelerator, 0)

    def step() -> None:
        for turn in train.turns(cfg, game, next(feed), values.strengths_at(cfg, players.penalties, 0)):
            for player in turn.players:
                players.optimizers[player].step()
                players.optimizers[player].zero_grad()

    step()  # the optimisers get their moments
    return step, players.tensors, cfg


def seconds(what: Callable[[], object]) -> float:
    """How long it takes, on a GPU to the end of what it started there."""
    begin = time.perf_counter()
    what()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def parser() -> argparse.ArgumentParser:
    """The command line."""
    words = argparse.ArgumentParser(description="Time that training waits for a checkpoint.")
    both = [ROOT / "configs/digits.yaml", ROOT / "configs/cifar10_sngan.yaml"]
    words.add_argument("--recipe", type=Path, nargs="+", default=both, help="recipes (default: both)")
    words.add_argument("--rounds", type=int, default=9, help="rounds that count (default: 9)")
    words.add_argument("--batch", type=int, default=0, help="another batch size (default: the recipe's)")
    return words


if __name__ == "__main__":
    errors.run(main)
