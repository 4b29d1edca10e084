"""What a command costs before it does its work: CPU seconds of a process, in turns beside ``import torch`` alone.

    python benchmarks/startup.py

Prints a Markdown table; ``benchmarks/startup.md`` holds a committed one.
"""

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from tqdm import tqdm

ROOT = Path(__file__).parent.parent
BASE = "import torch"
TRAIN = ["train.steps=1", "sample.every=0", "evaluate.every=0"]
COMMANDS = {
    BASE: ["-c", "import torch"],
    "import torch, torchvision, accelerate": ["-c", "import torch, torchvision, accelerate"],
    "train.py --help": ["train.py", "--help"],
    "train.py --print-config": ["train.py", "--print-config"],
    "train.py --list": ["train.py", "--list"],
    "train.py train.step=1, a wrong key": ["train.py", "train.step=1"],
    "compare.py --help": ["compare.py", "--help"],
    "sweep.py seed=0,1 --print": ["sweep.py", "seed=0,1", "--print"],
    "one step of ring, saved and evaluated": ["train.py", "configs/ring.yaml", *TRAIN],
    "one step of moons, saved and evaluated": ["train.py", "configs/moons.yaml", *TRAIN],
}


def cpu_seconds(command: list[str], folder: str) -> float:
    """CPU seconds, user and system, of one process and its children."""
    own = [f"run.dir={folder}"] if TRAIN[0] in command else []
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *command, *own], cwd=ROOT, env=environment, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure and print."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--rounds", type=int, default=7)
    options = words.parse_args()
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in tqdm(range(options.rounds), desc="rounds", disable=None):
        for name, command in COMMANDS.items():
            with tempfile.TemporaryDirectory() as folder:
                taken[name].append(cpu_seconds(command, folder))
    print(f"Machine: {platform.machine()}, {os.cpu_count()} CPU cores. Python {platform.python_version()}, ", end="")
    print(f"torch {torch.__version__}.\nCommand: `{' '.join(['python benchmarks/startup.py', *sys.argv[1:]])}`\n")
    print(f"| command | CPU seconds, median | over `{BASE}`, median (quartiles) |\n|---|---:|---:|")
    for name, seconds in taken.items():
        low, middle, high = statistics.quantiles([a - b for a, b in zip(seconds, taken[BASE], strict=True)], n=4)
        print(f"| {name} | {statistics.median(seconds):.2f} | {middle:.2f} ({low:.2f} to {high:.2f}) |")


if __name__ == "__main__":
    main()
