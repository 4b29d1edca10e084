"""What is wrong with a run, if anything: ``python diagnose.py runs/mnist_5k`` says it, on what numbers, and a remedy.

Looks at the log, the metrics, the newest checkpoint and the data; ``report.html`` in the run's folder shows it all.
"""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports, which take seconds, shows no trace

import argparse

from utils import errors
from utils.config import loading
from utils.paths import path_of
from utils.run import examination
from utils.run.diagnosis import diagnosed, text
from utils.run.folder import RunFolder
from utils.run.report import page


def main(arguments: list[str]) -> int:
    """Parse the command line, print the verdicts and write the page."""
    options = parser().parse_intermixed_args(arguments)
    folder = RunFolder(path_of(options.run))
    config = loading.load_run(folder.path, options.overrides)
    config.run.device = options.device or config.run.device
    run, not_seen = examination.history_of(folder, config), ""
    if not options.records_only:
        run, not_seen = examination.looked_at(config, folder, run)
    diagnosis = diagnosed(folder, config, run, not_seen)
    report = folder.path / "report.html"
    report.write_text(page(diagnosis), encoding="utf-8")
    print(text(diagnosis), f"Report: {report}", sep="\n")
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    words = argparse.ArgumentParser(description="Say what is wrong with a run, if anything, and what to try.")
    words.add_argument("run", help="folder of the run, such as runs/mnist_5k")
    words.add_argument("overrides", nargs="*", metavar="key=value", help="such as data.root=elsewhere")
    words.add_argument("--records-only", action="store_true", help="look at the log alone, not at data and checkpoint")
    words.add_argument("--device", choices=("auto", "cpu"), help="default: run.device of the run")
    return words


if __name__ == "__main__":
    errors.run(main)
