"""Measuring what a generator makes, by a method that fits the data set.

Points are measured against the mixture that they should cover; images in a feature space (``spaces``), by the metrics
of ``metrics``; stacked digits by the digits that a classifier reads in them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from utils.data.image_sets import stacked_label
from utils.data.samples import DataSet, Samples
from utils.errors import UserError
from utils.evaluation.coverage import coverage, from_uniform
from utils.evaluation.features import Features, features_of, real_features
from utils.evaluation.metrics import IMAGE_METRICS, Measured
from utils.evaluation.predictions import prepared_batches, subset
from utils.evaluation.records import Record, record
from utils.evaluation.sampling import drawn_images, every_class, latents, sample, share
from utils.evaluation.spaces import NAMING_CLASSES, Request, Space, automatic, check_space, space_of

# Published names, and what they stand for: Inception's features, the whole training split, and as many samples.
PUBLISHED = {"Fréchet distance": "FID", "kernel distance": "KID", "class score": "Inception score"}
PUBLISHED_SAMPLES = 50_000

Drawn = tuple[Tensor, Tensor | None]  # latents, and the classes that images are drawn of


class Share(NamedTuple):
    """Features of the part of the generated images that one process draws, and the sha256 of the network."""

    features: Features
    sha256: str


@dataclass(frozen=True)
class Settings:
    """What is drawn, and what it is compared with: keys of the config."""

    latent_dim: int
    samples: int
    seed: int
    conditional: bool = False
    reference: str = "auto"  # split: auto is held-out where there is such a split
    reference_samples: int = 10_000  # real images of each split, at most
    features: str = "auto"  # a key of spaces.SPACES
    features_file: str = ""
    features_resolution: int = 0
    features_mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    features_std: tuple[float, ...] = (0.229, 0.224, 0.225)


def evaluate(
    generator: nn.Module, data: DataSet, settings: Settings, folder: Path, made: Features | None = None
) -> list[Record]:
    """Metrics of generated images or points, one record each.

    A record says: value, metric, unit, what real images get, feature space and sha256 of its weights, resizer,
    reference set, split and size, N, seed. What holds for all runs is read from ``folder``, or computed and kept there.
    ``made`` are the features of all ``share_of``; None: they are computed here.
    """
    drawn = _drawn(data, settings)
    if data.modes is not None:
        records = _points(sample(generator, *drawn), data)
    else:
        space = space_of(*_space(data, settings, folder, next(generator.parameters()).device))
        made = made or _read(space, generator, drawn, data)
        measure = _images if data.channel is None else _stacks
        records = measure(made, space, data, settings, folder)
    common = {"samples": settings.samples, "seed": settings.seed, "truncation": None, "resizer": None}
    return [{**common, **record} for record in records]


def share_of(
    generator: nn.Module, data: DataSet, settings: Settings, folder: Path, rank: int, size: int
) -> Share | None:
    """The share of one of ``size`` processes of the images that ``evaluate`` measures; in the order of their ranks they
    are all of them. None where a process is left without any, and for points, which one process draws.
    """
    latent, label = _drawn(data, settings)
    rows = share(len(latent), rank, size)
    if data.modes is not None or not len(latent[rows]):
        return None
    space = space_of(*_space(data, settings, folder, next(generator.parameters()).device))
    return Share(_read(space, generator, (latent[rows], None if label is None else label[rows]), data), space.sha256)


def _read(space: Space, generator: nn.Module, drawn: Drawn, data: DataSet) -> Features:
    """Features of generated images, or of each channel of stacked digits."""
    images, label = drawn_images(generator, *drawn), drawn[1]
    if data.channel is None:
        return features_of(space, images, len(drawn[0]), "generated images", label)
    channels = (batch.flatten(0, 1)[:, None] for batch in images)
    return features_of(space, channels, 3 * len(drawn[0]), "generated digits", None)


def beside(generator: nn.Module, data: DataSet, settings: Settings, pairs: list[list[int]]) -> Tensor:
    """Generated images, and after them training images ``[2 n, C, R, R]`` in [-1, 1], by the indices ``[n, 2]`` of a
    record of the nearest training images.
    """
    made, real = torch.tensor(pairs).T
    latent, label = _drawn(data, settings)
    shown = sample(generator, latent[made], None if label is None else label[made])
    train = subset(data.train, settings.reference_samples).part(real)
    return torch.cat([shown, *(prepared_batches(train, torch.device("cpu")))])


def offered(data: DataSet, settings: Settings) -> tuple[str, ...]:
    """The names of the metrics that ``evaluate`` gives, but for the classifier's accuracy."""
    if data.modes is not None:
        return "modes", "high quality", "reverse KL"
    if data.channel is not None:
        return "modes", "reverse KL"
    has = offers(data, settings)
    return tuple(name for name, metric in IMAGE_METRICS.items() if not metric.needs or metric.needs in has)


def offers(data: DataSet, settings: Settings) -> set[str]:
    """What metrics may need and find: "own classes" that the space names, any "classes", "held-out", "labels"."""
    space = automatic(data) if settings.features == "auto" else settings.features
    found = {
        "own classes": space == "classifier",
        "classes": space in NAMING_CLASSES,
        "held-out": data.test is not None,
        "labels": settings.conditional,
    }
    return {name for name, there in found.items() if there}


def _drawn(data: DataSet, settings: Settings) -> Drawn:
    label = every_class(settings.samples, data.classes if settings.conditional else 0)
    return latents(settings.samples, settings.latent_dim, settings.seed), label


def check(data: DataSet, settings: Settings, folder: Path, device: torch.device) -> None:
    """Raise UserError now for what would stop an evaluation hours later: a network or images that cannot be had."""
    if data.modes is not None or data.channel is not None:
        return
    split, reference = _reference(data, settings)
    if len(reference) < 2:
        raise UserError(
            f"The {split} split of data set '{data.name}' has {len(reference)} image, and metrics need at least 2: add "
            "some, or choose the other split with evaluate.reference."
        )
    check_space(*_space(data, settings, folder, device))


def _space(data: DataSet, settings: Settings, folder: Path, device: torch.device) -> tuple[str, Request]:
    """The name of the feature space, and what it is asked for with."""
    if data.channel is not None:
        return "classifier", Request(data.channel, folder, device)
    mean, std = tuple(settings.features_mean), tuple(settings.features_std)
    request = Request(data, folder, device, settings.features_file, settings.features_resolution, mean, std)
    return settings.features, request


def _reference(data: DataSet, settings: Settings) -> tuple[str, Samples]:
    """The split that generated images are compared with, and its name."""
    if settings.reference == "held-out" and data.test is None:
        raise UserError(
            f"evaluate.reference=held-out, and data set '{data.name}' has no held-out split; use "
            "evaluate.reference=training."
        )
    if settings.reference == "training" or data.test is None:
        return "training", data.train
    return "held-out", data.test


def _points(points: Tensor, data: DataSet) -> list[Record]:
    result = coverage(points, data.modes)
    total = len(data.modes.centres)
    space = {"features": "the points themselves", "features_sha256": None}
    space |= {"reference": data.name, "split": "the mixture's density", "reference_samples": None}
    better, worse = {"higher_is_better": True, **space}, {"higher_is_better": False, **space}
    return [
        record("modes", result.modes, "", f" of {total}", **better),
        record("high quality", 100 * result.high_quality, "%", " within 3 σ of a mode", **better),
        record("reverse KL", result.reverse_kl, "nats", " of high-quality samples over modes", **worse),
    ]


def _images(made: Features, space: Space, data: DataSet, settings: Settings, folder: Path) -> list[Record]:
    split, reference_samples = _reference(data, settings)
    splits = {"training": real_features(space, data.train, settings.reference_samples, folder), "held-out": None}
    if data.test is not None:
        splits["held-out"] = real_features(space, data.test, settings.reference_samples, folder)
    other = splits["training" if split == "held-out" else "held-out"]
    measured = Measured(
        space, made, splits[split], None if other is None else other.some(settings.samples), splits["training"],
        splits["held-out"], split,
    )  # fmt: skip
    about = {"features": space.name, "features_sha256": space.sha256, "resizer": space.resizer}
    about |= {"reference": data.name, "split": split, "reference_samples": len(measured.reference.x)}
    records = [{**IMAGE_METRICS[name].measure(measured), **about} for name in offered(data, settings)]
    whole = split == "training" and len(measured.reference.x) == len(reference_samples)
    if space.published and whole and settings.samples >= PUBLISHED_SAMPLES:
        records = [{**record, "metric": PUBLISHED.get(record["metric"], record["metric"])} for record in records]
    return [_accuracy(measured.held_out, data, about), *records] if space.knows_classes else records


def _stacks(made: Features, space: Space, data: DataSet, settings: Settings, folder: Path) -> list[Record]:
    """The protocol of stacked MNIST (Metz et al. 2017, section 3.3.1; 26,000 images in PacGAN): a classifier of single
    digits reads each channel, and a triple of digits that occurs is a mode that was found.
    """
    digits = made.probability.argmax(1).unflatten(0, (-1, 3))
    count = torch.bincount(stacked_label(digits), minlength=data.classes).double()
    held_out = real_features(space, data.channel.test, settings.reference_samples, folder)
    network = {"features": space.name, "features_sha256": space.sha256}
    uniform = {**network, "reference": "uniform over all classes", "split": "none", "reference_samples": None}
    return [
        _accuracy(held_out, data.channel, network),
        record("modes", int((count > 0).sum()), "", f" of {data.classes}", higher_is_better=True, **uniform),
        record("reverse KL", from_uniform(count), "nats", " over modes", higher_is_better=False, **uniform),
    ]


def _accuracy(held_out: Features, data: DataSet, about: Record) -> Record:
    """How often the classifier of the data set is right on the held-out split."""
    accuracy = 100 * float((held_out.probability.argmax(1) == held_out.label).double().mean())
    count = len(held_out.x)
    about = {**about, "reference": data.name, "split": "held-out", "reference_samples": count}
    return record("classifier accuracy", accuracy, "%", f" on {count} held-out images", higher_is_better=True, **about)
