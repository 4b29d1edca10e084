"""Many runs: ``python sweep.py configs/ring.yaml seed=0,1,2 update.rule=single_pass,alternating``.

Each is an ordinary run of ``train.py``, and the same command again does what is missing.
"""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports, which take seconds, shows no trace

import argparse
import sys

from utils import errors
from utils.config.loading import DEFAULT_RECIPE
from utils.config.reading import is_override
from utils.errors import UserError
from utils.paths import path_of
from utils.sweeps.children import perform
from utils.sweeps.rows import rows_of
from utils.sweeps.slurm import array_script


def main(arguments: list[str]) -> int:
    """Parse the command line, and run, print or write the script of all combinations. Returns the exit code."""
    options = parser().parse_intermixed_args(arguments)
    if options.jobs < 1:
        raise UserError(f"--jobs is {options.jobs} and must be at least 1.")
    recipes = [path_of(word) for word in options.words if not is_override(word)]
    rows = rows_of(recipes or [DEFAULT_RECIPE], [word for word in options.words if is_override(word)])
    if not options.print and not options.slurm:
        return perform(rows, options.jobs)
    missing = [row for row in rows if not row.is_finished()]
    if len(missing) < len(rows):
        print(f"{len(rows) - len(missing)} of {len(rows)} runs are finished and left out.", file=sys.stderr)
    if missing:
        print(array_script(missing) if options.slurm else "\n".join(row.command for row in missing))
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    words = argparse.ArgumentParser(
        description="Train all combinations of comma lists of values; the same command again does what is missing.",
        epilog="A comma within [] or {}, or written \\, in text, separates nothing; seed=3, is a list of one.",
    )
    words.add_argument(
        "words", nargs="*", metavar="recipe.yaml | key=value,value", help="default: configs/mnist_5k.yaml"
    )
    words.add_argument("--jobs", type=int, default=1, help="runs at a time, which share the CPU cores (default: 1)")
    shown = words.add_mutually_exclusive_group()
    shown.add_argument("--print", action="store_true", help="print the missing runs, one command a line, run nothing")
    shown.add_argument("--slurm", action="store_true", help="print an sbatch script of the missing runs, run nothing")
    return words


if __name__ == "__main__":
    errors.run(main)
