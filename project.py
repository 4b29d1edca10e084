"""Where a generator has given images: ``python project.py runs/mnist_5k a.png b.png`` finds the latents that make them.

With ``--walk`` it goes from each to the next.
"""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports, which take seconds, shows no trace

import argparse
from pathlib import Path

import torch
from safetensors.torch import save as serialise
from torch import Tensor

from models import FAMILIES
from sample import check_output, positive
from utils import errors, pictures
from utils.data.image_files import read_image
from utils.data.samples import DataSet, to_images
from utils.errors import UserError
from utils.evaluation import projection, spaces
from utils.evaluation.projection import Embedding, Found
from utils.evaluation.sampling import has_mapping
from utils.paths import path_of
from utils.run.opening import OpenRun, open_run
from utils.training.players import WEIGHTS

STARTS, STEPS = 4, 300


def main(arguments: list[str]) -> int:
    """Parse the command line, search for the images, write pictures and latents, and say how near they came."""
    options = parser().parse_intermixed_args(arguments)
    chosen = path_of(options.out) if options.out else None
    if chosen:
        check_output(options.out, chosen, (".png",))
    overrides = [word for word in options.images if "=" in word and not path_of(word).exists()]
    options.images = [word for word in options.images if word not in overrides]
    run = open_run(options.run, overrides, options.weights)
    check_options(options, run)
    generator, sizes = run.players.average, run.state.sizes
    device = next(generator.parameters()).device
    read = [read_image(path_of(image), sizes.shape, run.config.data) for image in options.images]
    target = to_images(torch.stack(read), device)
    classes = sizes.classes if run.config.game.conditional else 0
    found = projection.project(
        generator, target, run.config.model.latent_dim,
        classes if vars(options)["class"] is None else torch.tensor([vars(options)["class"]]),
        projection.pixels if options.pixels else with_lite0(run, target),
        options.starts, options.steps, options.seed,
    )  # fmt: skip
    check_walk(options, found, has_mapping(generator))
    stem = f"projection-step-{run.state.step:08d}-{options.weights}-seed-{options.seed}.png"
    out = run.folder.samples / stem if chosen is None else chosen / stem if chosen.is_dir() else chosen
    shown = torch.cat([target.cpu(), found.samples])
    print(pictures.save(pictures.picture(shown, len(read), aspect=sizes.aspect), out))
    if options.walk:
        images = projection.walks(generator, found, options.walk)
        picture = pictures.picture(images, options.walk, aspect=sizes.aspect)
        print(pictures.save(picture, out.with_stem(f"{out.stem}-walk")))
    print(save_points(found, "styles" if has_mapping(generator) else "latent", out.with_suffix(".safetensors")))
    for image, before, after in zip(options.images, found.before.tolist(), found.distance.tolist(), strict=True):
        print(f"{image}: distance {after:.2g} (the nearest of {projection.POOL} samples: {before:.2g})")
    return 0


def with_lite0(run: OpenRun, target: Tensor) -> Embedding:
    """Pixels and features of EfficientNet-Lite0."""
    data = DataSet(run.config.data.name, run.state.sizes.shape, 0, None, None)  # its images' shape is what matters
    try:
        space = spaces.space_of("lite0", spaces.Request(data, run.folder.path, target.device))
    except UserError as error:
        raise UserError(f"{error} Or give --pixels, which compares pixels alone.") from None
    return projection.with_features(space, target)


def save_points(found: Found, name: str, path: Path) -> Path:
    """Write the points under this name, labels and distances, whole or not at all, and return the path."""
    tensors = {name: found.point, "distance": found.distance}
    tensors |= {} if found.label is None else {"label": found.label}
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(serialise({key: value.contiguous() for key, value in tensors.items()}))
    return partial.replace(path)


def check_options(options: argparse.Namespace, run: OpenRun) -> None:
    """Raise UserError for options that do not fit the run, or each other."""
    generator = FAMILIES[run.config.model.name].generator
    if generator is None or not isinstance(run.players.average, generator):
        raise UserError(f"{options.run} is of game.name={run.config.game.name}, which has no generator to search in.")
    if len(run.state.sizes.shape) != 3:
        raise UserError(
            f"{options.run} makes points, and what is searched for are images: name a run that makes these."
        )
    if not options.images:
        raise UserError("No image is named: give the file of one after the run.")
    label = vars(options)["class"]
    if label is not None and not run.config.game.conditional:
        raise UserError(f"--class needs a class-conditional run, and {options.run} is not (game.conditional=false).")
    if label is not None and not 0 <= label < run.state.sizes.classes:
        raise UserError(f"--class is {label} and must be from 0 to {run.state.sizes.classes - 1}.")
    if options.walk and len(options.images) < 2:
        raise UserError("--walk goes from image to image: name at least two.")
    if options.starts > projection.POOL:
        raise UserError(f"--starts is {options.starts} and must be at most {projection.POOL}.")


def check_walk(options: argparse.Namespace, found: Found, mapped: bool) -> None:
    """Raise UserError for a walk from class to class: latents do not hold the class, styles do."""
    if options.walk and not mapped and found.label is not None and len(found.label.unique()) > 1:
        raise UserError(
            f"--walk cannot go from class to class, and the images are nearest to {found.label.tolist()}: give --class."
        )


def parser() -> argparse.ArgumentParser:
    """The command line."""
    words = argparse.ArgumentParser(description="Find the latents from which a run's generator makes given images.")
    words.add_argument("run", help="folder of the run, such as runs/mnist_5k")
    words.add_argument(
        "images",
        nargs="+",
        metavar="image",
        help="image files, fitted as in training; or key=value: data.fit=crop",
    )
    words.add_argument("--walk", type=positive, metavar="COLUMNS", help="walk from each image to the next")
    words.add_argument("--class", type=int, help="search in this class only (conditional runs)")
    words.add_argument("--pixels", action="store_true", help="compare pixels alone, not features too: faster")
    words.add_argument("--starts", type=positive, default=STARTS, help=f"searches for each image (default: {STARTS})")
    words.add_argument("--steps", type=positive, default=STEPS, help=f"steps of each search (default: {STEPS})")
    words.add_argument("--seed", type=int, default=0, help="seed of the random starts (default: 0)")
    words.add_argument("--weights", choices=WEIGHTS, default="ema", help="averaged, last or chosen weights")
    words.add_argument("--out", help="PNG file to write, or an existing folder (default: in the run's samples folder)")
    return words


if __name__ == "__main__":
    errors.run(main)
