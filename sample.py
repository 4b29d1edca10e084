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
from utils.errors import UserError
from utils.paths import path_of
from utils.run.folder import RunFolder
from utils.tasks.registry import task_of
from utils.tasks.task import COLUMNS, COUNT
from utils.training.players import WEIGHTS, Players


def main(arguments: list[str]) -> int:
    """Parse the command line, draw pictures of the newest checkpoint, write PNGs and say where."""
    options = parser().parse_intermixed_args(arguments)
    chosen = path_of(options.out) if options.out else None
    if chosen:
        check_output(options.out, chosen)
    folder = RunFolder(path_of(options.run))
    cfg = config.load_run(folder.path, options.overrides)
    task = task_of(cfg)
    players, state = Players.load(cfg, folder.checkpoint_folder(options.weights), task.networks, errors.warn)
    if options.weights == "raw":
        players = players.with_raw_weights()
    made = task.gallery(cfg, players, state, options)
    for name, image in made.items():
        default = folder.samples / f"{name}-step-{state.step:08d}-{options.weights}-seed-{options.seed or 0}.png"
        out = default if chosen is None else chosen / default.name if chosen.is_dir() else chosen
        if out is chosen and len(made) > 1:
            out = out.with_stem(f"{out.stem}-{name}")
            check_output(str(out), out)
        print(pictures.save(image, out))
    return 0


def check_output(text: str, path: Path) -> None:
    """Raise UserError unless ``path``, given as ``text``, is a folder, or a .png that is new or a regular file."""
    if path.is_dir():
        return
    if text.endswith("/"):
        raise UserError(f"--out names the folder '{text}', which does not exist: make it, or name a .png file.")
    if path.suffix.lower() != ".png":
        raise UserError(f"--out is '{text}' and must end in .png, the format that is written.")
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise UserError(f"--out is '{text}', a link or a device, which a picture would replace: name another file.")


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
    words.add_argument("--out", help="PNG file to write, or an existing folder (default: in the run's samples folder)")
    return words


def positive(text: str) -> int:
    """A whole number from 1 to a million: what fits in a picture."""
    if not text.isdecimal() or not 1 <= int(text[:20]) <= 10**6:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 1 to 1000000")
    return int(text)


if __name__ == "__main__":
    errors.run(main)
