"""What a step of each recipe takes on one CPU core, for the headers in configs/.

    python benchmarks/recipes.py                        # all recipes; hours for the large ones
    python benchmarks/recipes.py moons ring             # these

Each recipe is rehearsed in a process of its own, as by ``train.py RECIPE --check-data``, on one thread; noise stands in
for data sets that have to be fetched, so the memory is without them. The time is CPU time, to which other work on
the machine does less than to the clock. Prints a line for each, as it ends the header's ``# Time:``.
"""

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).parent.parent))

import train
from tests.runs import ROOT, stand_in
from tests.test_recipes import random_images, random_pair
from utils.data import datasets, domains
from utils.run import rehearsal

OF_FILES = {"mnist", "fashion_mnist", "stacked_mnist", "cifar10", "folder", "zip", "images", "domain_folders"}
LIMIT = 900  # seconds, by the clock, after which a recipe is given up
ONE = "--one"  # asks for the child process


def main(names: list[str]) -> None:
    """Measure the recipes of these names, or all, and print a line for each."""
    for name in names or sorted(path.stem for path in (ROOT / "configs").glob("*.yaml")):
        command = [sys.executable, __file__, ONE, name]
        try:
            said = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=True).stdout
        except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
            print(f"{name}: not measured ({str(error.stderr or error).strip()[-200:]})", flush=True)
            continue
        speed, memory = re.search(r"([\d.]+) samples/s, (\d+) MiB", said).groups()
        print(f"{name}: One CPU core: {rounded(float(speed))} samples/s, {rounded(float(memory))} MiB.", flush=True)


def rounded(value: float) -> str:
    """Two digits, which is what measurements on a busy machine are good for: 1,200."""
    return f"{float(f'{value:.2g}'):,.0f}" if value >= 10 else f"{value:.2g}"


def rehearse(name: str) -> None:
    """Print what ``--check-data`` says of a recipe, by CPU time."""
    for registry, read in ((datasets.DATASETS, random_images), (domains.DOMAINS, random_pair)):
        for absent in OF_FILES & registry.keys():
            registry[absent] = stand_in(registry, absent, read)
    rehearsal.time = SimpleNamespace(perf_counter=time.process_time)
    rehearsal.STEPS, rehearsal.PATIENCE = 100, 5.0
    with tempfile.TemporaryDirectory() as folder:
        words = ["--check-data", "run.device=cpu", "run.threads=1", f"run.dir={folder}"]
        train.main([str(ROOT / f"configs/{name}.yaml"), *words])


if __name__ == "__main__":
    if sys.argv[1:2] == [ONE]:
        rehearse(sys.argv[2])
    else:
        main(sys.argv[1:])
