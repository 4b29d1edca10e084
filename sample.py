"""Pictures out of a run: ``python sample.py runs/mnist_5k``, with ``--interpolate`` a walk between latents, with
``--each`` every sample as a file of its own.

A run of a game of domains has no samples: it draws the recogniser's features, and images with its predictions.
"""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports, which take seconds, shows no trace

import argparse
import math
from pathlib import Path

from utils import errors, pictures
from utils.data.writing import check_destination, save_images
from utils.errors import UserError
from utils.paths import path_of
from utils.run.opening import open_run
from utils.tasks.task import COLUMNS, COUNT
from utils.training.players import WEIGHTS


def main(arguments: list[str]) -> int:
    """Parse the command line, draw samples of the newest checkpoint, write files and say where."""
    options = parser().parse_intermixed_args(arguments)
    chosen = path_of(options.out) if options.out else None
    forms = tuple(f".{form}" for form in pictures.LONGEST_SIDE) if options.video else (".png",)
    if chosen:
        check_output(options.out, chosen, forms)
    if options.each:
        check_destination("--each", options.each, path_of(options.each))
    run = open_run(options.run, options.overrides, options.weights)
    if options.each:
        batches = run.task.batches(run.config, run.players, run.state, options)
        classes = run.state.sizes.classes if getattr(run.config.game, "conditional", False) else 0
        print(save_images(batches, options.count or COUNT, classes, path_of(options.each)))
        return 0
    made = run.task.gallery(run.config, run.players, run.state, options)
    for name, image in made.items():
        stem = f"{name}-step-{run.state.step:08d}-{options.weights}-seed-{options.seed or 0}"
        default = run.folder.samples / f"{stem}{forms[0]}"
        out = default if chosen is None else chosen / default.name if chosen.is_dir() else chosen
        if out is chosen and len(made) > 1:
            out = out.with_stem(f"{out.stem}-{name}")
            check_output(str(out), out, forms)
        print(pictures.save_film(image, out) if options.video else pictures.save(image, out))
    return 0


def check_output(text: str, path: Path, forms: tuple[str, ...]) -> None:
    """Raise UserError unless ``path``, given as ``text``, is a folder, or a file of one of the ``forms`` that is new or
    a regular file; for MP4 the package that writes it must be installed.
    """
    if path.is_dir():
        return
    if text.endswith("/"):
        raise UserError(f"--out names the folder '{text}', which does not exist: make it, or name a {forms[0]} file.")
    if path.suffix.lower() not in forms:
        listed = ", ".join(forms[:-1]) + " or " + forms[-1] if len(forms) > 1 else forms[0]
        raise UserError(f"--out is '{text}' and must end in {listed}, as it is written in no other format.")
    if path.suffix.lower() == ".mp4":
        pictures.check_mp4(text)
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise UserError(f"--out is '{text}', a link or a device, which a picture would replace: name another file.")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    words = argparse.ArgumentParser(description="Draw pictures of a run's newest checkpoint as PNGs.")
    words.add_argument("run", help="folder of the run, such as runs/mnist_5k")
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
    kinds = words.add_mutually_exclusive_group()
    kinds.add_argument("--interpolate", type=positive, metavar="ROWS", help="walk between two latents in each row")
    kinds.add_argument(
        "--mix", type=positive, metavar="LAYERS",
        help="StyleGAN2: the first styles from the sample at the left, the others from the one above",
    )  # fmt: skip
    kinds.add_argument("--video", type=seconds, metavar="SECONDS", help="a film of samples that walk in circles")
    kinds.add_argument("--each", metavar="PLACE", help="every sample as a PNG in this new folder, or .zip for StyleGAN")
    kinds.add_argument("--tsne", action="store_true", default=None, help="games of domains: t-SNE instead of PCA")
    words.add_argument("--out", help="PNG (film: .webp, .gif, .mp4) to write, or a folder (default: the run's samples)")
    return words


def positive(text: str) -> int:
    """A whole number from 1 to a million: what fits in a picture."""
    if not text.isdecimal() or not 1 <= int(text[:20]) <= 10**6:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 1 to 1000000")
    return int(text)


def seconds(text: str) -> float:
    """A length above 0, up to a minute: all frames are held in memory."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 60:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of seconds, above 0 and up to 60")
    return value


if __name__ == "__main__":
    errors.run(main)
