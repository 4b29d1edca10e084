"""Pictures out of a run: ``python sample.py runs/digits``, with ``--interpolate`` a walk between latents."""

import argparse
from pathlib import Path

import torch

from utils import config, datasets, errors, pictures, players, sampling
from utils.config import Config
from utils.errors import UserError
from utils.run import RunFolder


def main(arguments: list[str]) -> int:
    """Parse the command line, draw samples of the newest checkpoint, write one PNG and say where."""
    options = parser().parse_args(arguments)
    folder = RunFolder(Path(options.run))
    cfg = config.load_run(folder.path, [])
    generator, state = players.load_generator(cfg, folder.checkpoints, raw=options.weights == "raw", warn=errors.warn)
    check(options, cfg, state)

    if options.interpolate:
        latent = sampling.interpolation(options.interpolate, options.columns, cfg.model.latent_dim, options.seed)
    else:
        latent = sampling.latents(options.count, cfg.model.latent_dim, options.seed, options.truncation)
    samples = sampling.sample(generator, latent, labels(options, cfg, state["classes"], len(latent)))
    modes = datasets.load(cfg.data, cfg.seed).modes if samples.ndim == 2 else None
    image = pictures.picture(samples, options.columns, modes)
    kind = "interpolation" if options.interpolate else "grid"
    default = folder.samples / f"{kind}-step-{state['step']:08d}-{options.weights}-seed-{options.seed}.png"
    print(pictures.save(image, Path(options.out) if options.out else default))
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    words = argparse.ArgumentParser(description="Draw samples of a run's newest checkpoint as one PNG.")
    words.add_argument("run", help="folder of the run, such as runs/digits")
    words.add_argument("--count", type=positive, default=64, help="number of samples (default: 64)")
    words.add_argument("--columns", type=positive, default=8, help="images in a row of the grid (default: 8)")
    words.add_argument("--seed", type=int, default=0, help="seed of the latents (default: 0)")
    words.add_argument("--class", type=int, dest="label", help="draw this class only (conditional runs)")
    words.add_argument("--weights", choices=("ema", "raw"), default="ema", help="averaged or last weights")
    words.add_argument("--truncation", type=float, help="cut latents to ±this: typical samples for small values")
    words.add_argument("--interpolate", type=positive, metavar="ROWS", help="walk between two latents in each row")
    words.add_argument("--out", help="PNG file to write (default: in the run's samples folder)")
    return words


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of at least 1")
    return int(text)


def check(options: argparse.Namespace, cfg: Config, state: players.State) -> None:
    """Raise UserError for options that do not fit the run."""
    if options.label is not None and not cfg.game.conditional:
        raise UserError(f"--class needs a class-conditional run, and {options.run} is not (game.conditional=false).")
    if options.label is not None and not 0 <= options.label < state["classes"]:
        raise UserError(f"--class is {options.label} and must be from 0 to {state['classes'] - 1}.")
    if options.truncation is not None and not options.truncation > 0:
        raise UserError(f"--truncation is {options.truncation} and must be above 0.")
    if options.truncation is not None and options.interpolate:
        raise UserError("--truncation and --interpolate cannot be used together.")
    if options.interpolate and len(state["shape"]) != 3:
        raise UserError(f"--interpolate draws images, and {options.run} makes points.")


def labels(options: argparse.Namespace, cfg: Config, classes: int, count: int) -> torch.Tensor | None:
    """One class, or all in turn; on an interpolation one class a row."""
    if not cfg.game.conditional:
        return None
    if options.label is not None:
        return torch.full((count,), options.label)
    if options.interpolate:
        return (torch.arange(options.interpolate) % classes).repeat_interleave(options.columns)
    return sampling.every_class(count, classes)


if __name__ == "__main__":
    errors.run(main)
