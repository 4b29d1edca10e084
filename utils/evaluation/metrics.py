"""Metrics of samples: numbers about tensors. ``evaluation`` turns them into records."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics.image.fid import FrechetInceptionDistance

from utils.data.datasets import Modes
from utils.evaluation.classifier import Classifier

BATCH = 500


def frechet_distance(network: Classifier, a: Tensor, b: Tensor) -> float:
    """Fréchet distance between two sets of images in a network's features (Heusel et al. 2017, eq. 6)."""
    return frechet_distance_to(network, a)(b)


def frechet_distance_to(network: Classifier, reference: Tensor) -> Callable[[Tensor], float]:
    """The same as a function of the second set: the features of the first are computed once."""
    features = _Features(network)
    metric = FrechetInceptionDistance(features, reset_real_features=False, normalize=True, sync_on_compute=False)
    metric.to(reference.device)
    for batch in reference.split(BATCH):
        metric.update(batch, real=True)

    def distance(images: Tensor) -> float:
        metric.reset()
        for batch in images.split(BATCH):
            metric.update(batch, real=False)
        return float(metric.compute())

    return distance


class _Features(torch.nn.Module):
    """What torchmetrics expects of a custom feature network."""

    def __init__(self, network: Classifier):
        super().__init__()
        self.network, self.num_features = network, network.num_features

    def forward(self, x: Tensor) -> Tensor:
        return self.network.features(x)


def probabilities(network: Classifier, images: Tensor) -> Tensor:
    """Class probabilities ``[N, classes]``."""
    return torch.cat([network(batch).softmax(1) for batch in images.split(BATCH)])


class Recognition(NamedTuple):
    """How a classifier reads samples; all are shares of the samples."""

    confident: float  # read as some class with a probability above the threshold
    rarest: float  # read as the class that occurs least
    shares: list[float]  # read as each class


def recognition(probability: Tensor, threshold: float = 0.9) -> Recognition:
    """Confidence and class shares of class probabilities ``[N, classes]``."""
    confidence, label = probability.max(1)
    shares = torch.bincount(label, minlength=probability.shape[1]) / len(label)
    return Recognition(float((confidence > threshold).float().mean()), float(shares.min()), shares.tolist())


class Coverage(NamedTuple):
    """How points cover a mixture of Gaussians."""

    modes: int  # modes with at least one high-quality point
    high_quality: float  # share of points within 3 σ of their nearest mode
    reverse_kl: float | None  # KL(high-quality points over modes || uniform), in nats; None without any


def coverage(points: Tensor, modes: Modes) -> Coverage:
    """The protocol of PacGAN (Lin et al. 2018, section 4.1) for points ``[N, D]``."""
    distance, nearest = torch.cdist(points.double(), modes.centres.double()).min(1)
    good = nearest[distance < 3 * modes.sigma]
    count = torch.bincount(good, minlength=len(modes.centres)).double()
    if not len(good):
        return Coverage(0, 0.0, None)
    return Coverage(int((count > 0).sum()), len(good) / len(points), from_uniform(count))


def from_uniform(count: Tensor) -> float:
    """KL(shares || uniform) in nats, of samples counted by mode ``[K]``."""
    return math.log(len(count)) - float(torch.special.entr(count / count.sum()).sum())
