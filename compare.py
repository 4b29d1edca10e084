"""Runs side by side: ``python compare.py runs/ring-*``, a table of what differs against what was measured."""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports, which take seconds, shows no trace

import argparse
from pathlib import Path

from utils import errors
from utils.errors import UserError
from utils.paths import path_of
from utils.sweeps.comparison import Group, Measure, groups_of, measures_of, table_of
from utils.sweeps.figures import save_curves, save_samples
from utils.sweeps.results import results_of
from utils.sweeps.tables import Table

SUFFIXES = (".txt", ".md", ".csv", ".png")


def main(arguments: list[str]) -> int:
    """Parse the command line, read what runs have recorded, print a table and write what ``--out`` names."""
    options = parser().parse_args(arguments)
    out = path_of(options.out) if options.out else None
    if out and out.suffix and out.suffix not in SUFFIXES and not out.is_dir():
        raise UserError(f"--out is '{options.out}' and must be a folder, or end in {', '.join(SUFFIXES)}.")
    results = results_of(options.runs, errors.warn)
    if not results:
        raise UserError("None of the runs has recorded anything that can be compared: see the warnings above.")
    over = options.over.split(",")
    if unknown := [key for key in over if not any(key in result.config for result in results)]:
        raise UserError(f"--over names '{unknown[0]}', which is no key of these runs; write it as seed,data.source.")
    measures = measures_of(results, options.metrics.split(",") if options.metrics else [], over)
    if not measures:
        raise UserError("None of the runs has measured anything yet: wait for an evaluation, or set evaluate.every.")
    by = options.by.split(",") if options.by else []
    measures_of(results, by, over)  # or it says that no run has one of them
    groups = groups_of(results, over, errors.warn)
    table = table_of(groups, measures, over, by, options.at)
    print(table.text(), end="")
    if out and out.suffix in SUFFIXES:
        out.parent.mkdir(parents=True, exist_ok=True)
        write(out, table, groups, measures, over)
    elif out:
        out.mkdir(parents=True, exist_ok=True)
        for name in ("table.txt", "table.md", "table.csv", "curves.png"):
            write(out / name, table, groups, measures, over)
        save_samples(groups, out / "samples.png")
    return 0


def write(path: Path, table: Table, groups: list[Group], measures: list[Measure], over: list[str]) -> None:
    """Write the form of the comparison that the path's suffix names."""
    forms = {".txt": table.text, ".md": table.markdown, ".csv": table.csv}
    if path.suffix in forms:
        path.write_text(forms[path.suffix](), encoding="utf-8")
    else:
        save_curves(groups, measures, over, path)


def steps(text: str) -> list[int]:
    """Whole numbers between commas."""
    words = text.split(",")
    if not all(word.isdecimal() for word in words):
        raise argparse.ArgumentTypeError(f"'{text}' is not of the form 600,1200")
    return [int(word) for word in words]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    words = argparse.ArgumentParser(description="A table of runs: mean ± standard error over seeds, last and best.")
    words.add_argument("runs", nargs="+", help="folders of runs, folders that hold them, or globs")
    words.add_argument("--metrics", metavar="NAME,NAME", help="default: the main ones of the game")
    words.add_argument("--by", metavar="NAME,NAME", help="also show values at the steps where these are best")
    words.add_argument("--at", type=steps, default=[], metavar="STEP,STEP", help="also show values at these steps")
    words.add_argument("--over", default="seed", metavar="KEY,KEY", help="keys to take the mean over (default: seed)")
    words.add_argument(
        "--out", help="table.txt, table.md, table.csv, curves.png, or a folder for all of them and samples.png"
    )
    return words


if __name__ == "__main__":
    errors.run(main)
