"""Pictures out of a run: ``python sample.py runs/digits``, with ``--interpolate`` a walk between latents.

A run of a game of domains has no samples: it draws the recogniser's features, and images with its predictions.
"""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports, which take seconds, shows no trace

import argparse
from pathlib import Path

from utils import errors, pictures
from utils.config import loading as config
from utils.run.folder import RunFolder
from utils.tasks.registry import task_of
from utils.training.players import WEIGHTS, Players


def main(arguments: list[str]) -> int:
    """Parse the command line, draw pictures of the newest checkpoint, write PNGs and say where."""
    options = parser().parse_intermixed_args(arguments)
    folder = RunFolder(Path(options.run))
    cfg = config.load_run(folder.path, options.overrides)
    task = task_of(cfg)
    players, state = Players.load(cfg, folder.checkpoint_folder(options.weights), task.networks, errors.warn)
    if options.weights == "raw":
        players = players.with_raw_weights()
    made = task.gallery(cfg, players, state, options)
    for name, image in made.items():
        default = folder.samples / f"{name}-step-{state.step:08d}-{options.weights}-seed-{options.seed}.png"
        out = Path(options.out) if options.out else default
        if options.out and len(made) > 1:
            out = out.with_stem(f"{out.stem}-{name}")
        print(pictures.save(image, out))
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    words = argparse.ArgumentParser(description="Draw pictures of a run's newest checkpoint as PNGs.")
    words.add_argument("run", help="folder of the run, such as runs/digits")
    words.add_argument("overrides", nargs="*", metavar="key=value", help="such as data.root=elsewhere")
    words.add_argument("--count", type=positive, default=64, help="number of samples (default: 64)")
    words.add_argument("--columns", type=positive, default=8, help="images in a row of the grid (default: 8)")
    words.add_argument("--seed", type=int, default=0, help="seed of the latents (default: 0)")
    words.add_argument("--class", type=int, help="draw this class only (conditional runs)")
    words.add_argument("--weights", choices=WEIGHTS, default="ema", help="averaged, last or chosen weights")
    words.add_argument("--truncation", type=float, help="limit latents to ±this: small values give typical samples")
    words.add_argument("--interpolate", type=positive, metavar="ROWS", help="walk between two latents in each row")
    words.add_argument("--tsne", action="store_true", help="games of domains: t-SNE instead of PCA")
    words.add_argument("--out", help="PNG file to write (default: in the run's samples folder)")
    return words


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of at least 1")
    return int(text)


if __name__ == "__main__":
    errors.run(main)
