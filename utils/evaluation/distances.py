"""Distances between sets of images in the features of a network."""

from collections.abc import Callable

import torch
from torch import Tensor

from utils.evaluation.classifier import EVALUATED_AT_ONCE, Classifier


def frechet_distance(network: Classifier, a: Tensor, b: Tensor) -> float:
    """Fréchet distance between images ``[N, C, R, R]`` and ``[M, C, R, R]`` in a network's features (Heusel et al.
    2017, eq. 6).
    """
    return frechet_distance_to(network, a)(b)


def frechet_distance_to(network: Classifier, reference: Tensor) -> Callable[[Tensor], float]:
    """The same as a function of the second set: the features of the first are computed once."""
    from torchmetrics.image.fid import FrechetInceptionDistance  # here for a fast start-up: takes seconds

    features = _Features(network)
    # normalize=True says that images are floats: without it torchmetrics would expect bytes.
    metric = FrechetInceptionDistance(features, reset_real_features=False, normalize=True, sync_on_compute=False)
    metric.to(reference.device)
    for batch in reference.split(EVALUATED_AT_ONCE):
        metric.update(batch, real=True)

    def distance(images: Tensor) -> float:
        metric.reset()  # of the second set alone
        for batch in images.split(EVALUATED_AT_ONCE):
            metric.update(batch, real=False)
        return float(metric.compute())

    return distance


class _Features(torch.nn.Module):
    """A network's features in the form that torchmetrics expects: ``num_features`` and a call on images."""

    def __init__(self, network: Classifier):
        super().__init__()
        self.network, self.num_features = network, network.num_features

    def forward(self, x: Tensor) -> Tensor:
        return self.network.features(x)
