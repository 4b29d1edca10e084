"""Pictures out of a run: ``python sample.py runs/digits``, with ``--interpolate`` a walk between latents.

A run of a game of domains has no samples: it draws the recogniser's features, and images with its predictions.
"""

import argparse
from pathlib import Path

from utils import errors, pictures
from utils.config import loading as config
from utils.run.folder import RunFolder
from utils.tasks.registry import task_of
from utils.tasks.task import COLUMNS, COUNT
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
        default = folder.samples / f"{name}-step-{state.step:08d}-{options.weights}-seed-{options.seed or 0}.png"
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
    # Without defaults, so that a task can tell which options were given and refuse those that would do nothing.
    words.add_argument("--count", type=positive, help=f"number of samples (default: {COUNT})")
    words.add_argument("--columns", type=positive, help=f"images in a row of the grid (default: {COLUMNS})")
    words.add_argument("--seed", type=int, help="seed of the latents (default: 0)")
    words.add_argument("--class", type=int, help="draw this class only (conditional runs)")
    words.add_argument("--weights", choices=WEIGHTS, default="ema", help="averaged, last or chosen weights")
    words.add_argument(
        "--truncation", type=float, metavar="PSI",
        help="typical, less varied samples. StyleGAN2: styles w become w_mean + PSI (w - w_mean), with the mean of the "
        "class; 1 changes nothing, and at 0 all samples of a class are the same. Others: latents are drawn within ±PSI",
    )  # fmt: skip
    words.add_argument("--interpolate", type=positive, metavar="ROWS", help="walk between two latents in each row")
    words.add_argument("--tsne", action="store_true", default=None, help="games of domains: t-SNE instead of PCA")
    words.add_argument("--out", help="PNG file to write (default: in the run's samples folder)")
    return words


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of at least 1")
    return int(text)


if __name__ == "__main__":
    errors.run(main)
