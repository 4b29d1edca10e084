"""Measuring what a generator makes, by a method that fits the data set.

Points are measured against the mixture that they should cover; images of a labelled set with a held-out split in the
features of a small classifier of that set (``classifier``); stacked digits by the digits that a classifier reads in
them. For other sets there is no metric without a download.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from utils.data.image_sets import stacked_label
from utils.data.samples import DataSet, Resident, to_images
from utils.evaluation.classifier import Classifier, class_shares, classifier, probabilities, sha256
from utils.evaluation.coverage import coverage, from_uniform
from utils.evaluation.distances import frechet_distance
from utils.evaluation.records import Record, record
from utils.evaluation.sampling import every_class, latents, sample

CONFIDENCE = 0.9


def evaluate(
    generator: nn.Module, data: DataSet, conditional: bool, latent_dim: int, count: int, seed: int, folder: Path
) -> list[Record]:
    """Metrics of ``count`` generated images or points, one record each; an empty list if no metric fits the data set.

    A record says: value, metric, unit, feature space and sha256 of its weights, reference set, split and size, N, seed.
    The feature network is read from ``folder``, or trained and saved there.
    """
    measure = _measure(data)
    if measure is None:
        return []
    label = every_class(count, data.classes if conditional else 0)
    generated = sample(generator, latents(count, latent_dim, seed), label)
    records = measure(generated, data, folder, next(generator.parameters()).device)
    return [{**record, "samples": count, "seed": seed, "truncation": None, "resizer": None} for record in records]


def _measure(data: DataSet) -> Callable[[Tensor, DataSet, Path, torch.device], list[Record]] | None:
    """The function that measures what a generator of this set makes, or None if there is no metric."""
    if data.modes is not None:
        return _points
    if data.channel is not None:
        return _stacks
    return _images if isinstance(data.train, Resident) and data.classes and data.test is not None else None


def _points(points: Tensor, data: DataSet, folder: Path, device: torch.device) -> list[Record]:
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


@dataclass(frozen=True)
class MeasuredImages:
    """Generated images and what they are measured with: a classifier of the data set, the class probabilities
    ``[N, K]`` that it gives them, and the real images. All images are ``[N, C, R, R]`` in [-1, 1], on one device.
    """

    network: Classifier
    images: Tensor
    probability: Tensor
    train: Tensor
    test: Tensor


def recognised(measured: MeasuredImages) -> Record:
    """The share of images that the classifier is sure of."""
    share = class_shares(measured.probability, CONFIDENCE).confident
    return record("recognised", 100 * share, "%", f" read with confidence > {CONFIDENCE}", higher_is_better=True)


def rarest_class(measured: MeasuredImages) -> Record:
    """The share of images of the class that occurs least."""
    read = class_shares(measured.probability, CONFIDENCE)
    return record("rarest class", 100 * read.rarest, "%", " of the samples", higher_is_better=True, shares=read.shares)


def frechet(measured: MeasuredImages) -> Record:
    """Fréchet distance to the held-out split."""
    distance = frechet_distance(measured.network, measured.test, measured.images)
    return record("Fréchet distance", distance, "", " to the held-out split", higher_is_better=False)


def frechet_of_training_split(measured: MeasuredImages) -> Record:
    """The same of the training split: what a perfect generator would reach."""
    distance = frechet_distance(measured.network, measured.test, measured.train)
    return record(
        "Fréchet distance of the training split", distance, "", " to the held-out split", higher_is_better=False
    )


# To add a metric of images: write its function and one line here.
IMAGE_METRICS = {
    "recognised": recognised,
    "rarest class": rarest_class,
    "Fréchet distance": frechet,
    "Fréchet distance of the training split": frechet_of_training_split,
}


@torch.no_grad()
def _images(images: Tensor, data: DataSet, folder: Path, device: torch.device) -> list[Record]:
    with torch.enable_grad():  # the classifier may have to be trained
        network = classifier(data, folder, device)
    images = images.to(device)
    train, test = (to_images(split.x, device) for split in (data.train, data.test))
    measured = MeasuredImages(network, images, probabilities(network, images), train, test)
    space = {**_space(network, data), "reference": data.name, "split": "held-out", "reference_samples": len(data.test)}
    return [_accuracy(network, data, device), *({**metric(measured), **space} for metric in IMAGE_METRICS.values())]


@torch.no_grad()
def _stacks(images: Tensor, data: DataSet, folder: Path, device: torch.device) -> list[Record]:
    """The protocol of stacked MNIST (Metz et al. 2017, section 3.3.1; 26,000 images in PacGAN): a classifier of single
    digits reads each channel, and a triple of digits that occurs is a mode that was found.
    """
    with torch.enable_grad():  # the classifier may have to be trained
        network = classifier(data.channel, folder, device)
    digits = probabilities(network, images.to(device).flatten(0, 1)[:, None]).argmax(1).cpu()
    count = torch.bincount(stacked_label(digits.unflatten(0, (-1, 3))), minlength=data.classes).double()
    space = {**_space(network, data.channel), "reference": "uniform over all classes"}
    space |= {"split": "none", "reference_samples": None}
    return [
        _accuracy(network, data.channel, device),
        record("modes", int((count > 0).sum()), "", f" of {data.classes}", higher_is_better=True, **space),
        record("reverse KL", from_uniform(count), "nats", " over modes", higher_is_better=False, **space),
    ]


def _space(network: nn.Module, data: DataSet) -> Record:
    return {"features": f"classifier trained on {data.name}, train split", "features_sha256": sha256(network)}


def _accuracy(network: nn.Module, data: DataSet, device: torch.device) -> Record:
    """How often a classifier is right on the held-out split."""
    read = probabilities(network, to_images(data.test.x, device)).argmax(1).cpu()
    accuracy = float((read == data.test.label).float().mean())
    space = {"reference": data.name, "split": "held-out", "reference_samples": len(data.test)}
    about = {"higher_is_better": True, **_space(network, data), **space}
    return record("classifier accuracy", 100 * accuracy, "%", f" on {len(data.test)} held-out images", **about)
