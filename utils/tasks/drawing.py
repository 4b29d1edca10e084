"""What ``sample.py`` draws of a generator: a grid, walks, mixtures of styles, a film, or images one by one."""

import math
from argparse import Namespace
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from tqdm import tqdm

from utils import pictures
from utils.config.sections import Config
from utils.errors import UserError
from utils.evaluation import sampling
from utils.evaluation.sampling import every_class, latents, sample
from utils.tasks.checks import refuse_options
from utils.tasks.task import COLUMNS, COUNT, ImageBatch, Pictures
from utils.training.state import Sizes

FILM_COUNT, FILM_COLUMNS = 16, 4  # images that move at once


def gallery(generator: nn.Module, config: Config, sizes: Sizes, options: Namespace, centres: Tensor | None) -> Pictures:
    """The picture that the options ask for, by its name; points are drawn over ``centres``."""
    check_options(options, config, sizes, sampling.has_mapping(generator))
    if options.video:
        return {"loop": _film(generator, config, sizes, options)}
    columns, count = options.columns or COLUMNS, options.count or COUNT
    if options.interpolate:
        name, samples = "interpolation", _walks(generator, config, sizes, options, columns)
    elif options.mix:
        name, samples, columns = "mix", _mixtures(generator, config, sizes, options, columns), columns + 1
    else:
        z = latents(count, config.model.latent_dim, options.seed or 0, _cut(generator, options))
        name, samples = "grid", _drawn(generator, z, _labels(options, config, sizes, count), options.truncation)
    return {name: pictures.picture(samples, columns, centres, sizes.aspect)}


def batches(generator: nn.Module, config: Config, sizes: Sizes, options: Namespace) -> Iterator[ImageBatch]:
    """The images of the grid as they are saved, ``--count`` of them, with their labels, a batch at a time."""
    check_options(options, config, sizes, sampling.has_mapping(generator))
    count = options.count or COUNT
    label, means = _labels(options, config, sizes, count), {}
    blocks = sampling.latent_blocks(config.model.latent_dim, options.seed or 0, _cut(generator, options))
    for first in range(0, count, sampling.BLOCK):
        y = None if label is None else label[first : first + sampling.BLOCK]
        z = next(blocks)[: count - first]
        images = pictures.unstretched(_drawn(generator, z, y, options.truncation, means), sizes.aspect)
        yield sampling.to_bytes(images), y


def _drawn(
    generator: nn.Module,
    z: Tensor,
    label: Tensor | None,
    truncation: float | None,
    means: sampling.Means | None = None,
) -> Tensor:
    """Samples of latents; the styles of a generator that has them are truncated."""
    if not sampling.has_mapping(generator):
        return sample(generator, z, label)
    return sampling.synthesise(generator, sampling.styles(generator, z, label, truncation, means))


def _cut(generator: nn.Module, options: Namespace) -> float | None:
    """Where latents are cut off: a generator with styles truncates these instead."""
    return None if sampling.has_mapping(generator) else options.truncation


def _walks(generator: nn.Module, config: Config, sizes: Sizes, options: Namespace, columns: int) -> Tensor:
    rows = options.interpolate
    z = latents(2 * rows, config.model.latent_dim, options.seed or 0)
    label = _labels(options, config, sizes, rows)
    if sampling.has_mapping(generator):
        w = sampling.styles(generator, z, _twice(label), options.truncation)
        return sampling.synthesise(generator, sampling.straight_walks(w, columns))
    along = None if label is None else label.repeat_interleave(columns)
    return sample(generator, sampling.walks(z, columns), along)


def _mixtures(generator: nn.Module, config: Config, sizes: Sizes, options: Namespace, columns: int) -> Tensor:
    """A table: the left column gives the coarse styles, the upper row the fine ones."""
    z = latents(2 * columns, config.model.latent_dim, options.seed or 0)
    label = _twice(_labels(options, config, sizes, columns))
    w = sampling.styles(generator, z, label, options.truncation)
    if options.mix >= w.shape[1]:
        raise UserError(
            f"--mix is {options.mix} and must be from 1 to {w.shape[1] - 1}: there are {w.shape[1]} styles."
        )
    coarse, fine = sampling.synthesise(generator, w).chunk(2)
    mixed = sampling.synthesise(generator, sampling.mixtures(*w.chunk(2), options.mix))
    corner = torch.ones_like(fine[:1])
    rows = [torch.cat(row) for row in zip(coarse.split(1), mixed.split(columns), strict=True)]
    return torch.cat([corner, fine, *rows])


def _film(generator: nn.Module, config: Config, sizes: Sizes, options: Namespace) -> Tensor:
    """Frames ``[T, 3, H, W]`` of a grid in which every image walks in a circle of its own."""
    count, columns = options.count or FILM_COUNT, options.columns or FILM_COLUMNS
    frames, means = max(2, round(options.video * pictures.FRAMES_PER_SECOND)), {}
    label = _labels(options, config, sizes, count)
    ends = latents(2 * count, config.model.latent_dim, options.seed or 0)
    course = tqdm(sampling.loop(ends, frames), "drawing frames", total=frames, disable=None, leave=False)
    drawn = (_drawn(generator, z, label, options.truncation, means) for z in course)
    return torch.stack([pictures.picture(images, columns, aspect=sizes.aspect) for images in drawn])


def check_options(options: Namespace, config: Config, sizes: Sizes, mapped: bool) -> None:
    """Raise UserError for options of ``sample.py`` that do not fit the run, or each other.

    ``mapped`` says whether the generator has a mapping network.
    """
    label, truncation = vars(options)["class"], options.truncation  # class is a keyword of Python
    refuse_options(options, ["tsne"], f"draws features, and {options.run} is of game.name={config.game.name}")
    if len(sizes.shape) != 3:
        for_images = ["columns", "interpolate", "mix", "video", "each"]
        refuse_options(options, for_images, f"is for images, and {options.run} makes points")
    if not mapped:
        refuse_options(
            options, ["mix"], f"is for networks with styles, and {options.run} has model.name={config.model.name}"
        )
    if options.interpolate:
        refuse_options(options, ["count"], "cannot be used with --interpolate ROWS, which draws ROWS times --columns")
    if options.mix:
        refuse_options(options, ["count"], "cannot be used with --mix, which draws --columns times --columns")
    if options.each:
        refuse_options(options, ["columns", "out"], "cannot be used with --each, which names a folder or a zip itself")
    if label is not None and not config.game.conditional:
        raise UserError(f"--class needs a class-conditional run, and {options.run} is not (game.conditional=false).")
    if label is not None and not 0 <= label < sizes.classes:
        raise UserError(f"--class is {label} and must be from 0 to {sizes.classes - 1}.")
    if truncation is None:
        return
    if not (math.isfinite(truncation) and (truncation > 0 or (mapped and truncation == 0))):
        raise UserError(f"--truncation is {truncation} and must be a number {'from 0 up' if mapped else 'above 0'}.")
    walk = "--interpolate" if options.interpolate else "--video" if options.video else None
    if walk and not mapped:
        raise UserError(f"--truncation and {walk} cannot be used together, for walks leave the cut of latents.")


def _labels(options: Namespace, config: Config, sizes: Sizes, count: int) -> Tensor | None:
    """Labels of ``count`` samples: one class or all in turn."""
    if not config.game.conditional:
        return None
    if vars(options)["class"] is not None:
        return torch.full((count,), vars(options)["class"])
    return every_class(count, sizes.classes)


def _twice(label: Tensor | None) -> Tensor | None:
    """Labels of both ends."""
    return None if label is None else label.repeat(2)
