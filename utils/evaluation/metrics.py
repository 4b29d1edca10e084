"""Metrics of generated images, each a function of their features and those of real images."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from utils.evaluation import neighbours
from utils.evaluation.classifier import class_shares
from utils.evaluation.distances import frechet_distance, kernel_distance
from utils.evaluation.features import Features
from utils.evaluation.records import Record, record
from utils.evaluation.spaces import Space

T = TypeVar("T")
CONFIDENCE = 0.9
SPLITS = 10  # of the samples, over which Salimans et al. 2016 average their score
COPYING = 5.0  # standard deviations above those of held-out images at which samples are called copies
SHOWN = 16  # samples that are drawn beside the training images nearest to them


@dataclass(frozen=True)
class Measured:
    """Features of generated images and of the real ones that they are compared with, all in one space.

    ``real`` are as many images of the other split as were generated, by which each metric also says what real images
    get; None where there is one split alone. So is ``held_out``.
    """

    space: Space
    made: Features
    reference: Features
    real: Features | None
    train: Features
    held_out: Features | None
    split: str  # of the reference

    def of_real(self, metric: Callable[[Tensor, Tensor], T]) -> T | None:
        """The value of ``metric(features, reference features)`` for the other real images."""
        return None if self.real is None else metric(self.real.x, self.reference.x)

    @cached_property
    def some_reference(self) -> Tensor:
        """As many features of the reference as of generated images: all pairs of all would take too long."""
        return self.reference.some(len(self.made.x)).x

    @cached_property
    def manifolds(self) -> tuple[dict[str, float], dict[str, float] | None]:
        """The metrics of neighbours of the generated images, and of the other real ones."""
        reference = self.some_reference
        return manifold_metrics(self.made.x, reference), self.of_real(lambda a, _: manifold_metrics(a, reference))

    @cached_property
    def classes(self) -> list["Measured"]:
        """The same of each class alone; ``real`` is None where there are fewer than two images of it."""

        def of_class(features: Features, k: int) -> Features:
            return features.part(features.label == k)

        parts = []
        for k in self.reference.label.unique().tolist():
            real = None if self.real is None else of_class(self.real, k)
            real = None if real is None or len(real.x) < 2 else real
            parts.append(replace(self, made=of_class(self.made, k), reference=of_class(self.reference, k), real=real))
        return parts

    @property
    def too_few(self) -> str:
        """Which class has too few images to be measured alone, and what helps; "" where all have enough."""
        made, reference = self.made.label, self.reference.label
        for k in sorted(set(made.tolist()) | set(reference.tolist())):
            counts = [int((label == k).sum()) for label in (made, reference)]
            if min(counts) < 2:
                remedy = "raise evaluate.samples" if counts[0] < 2 else "raise evaluate.reference_samples"
                return f": class {k} has fewer than two images; {remedy}"
        return ""


def manifold_metrics(made: Tensor, real: Tensor) -> dict[str, float]:
    """Precision, recall, density and coverage, of equally many generated and real images as in their papers."""
    count = min(len(made), len(real))
    precision, recall = neighbours.precision_and_recall(made[:count], real[:count])
    density, coverage = neighbours.density_and_coverage(made[:count], real[:count])
    return {"precision": precision, "recall": recall, "density": density, "coverage": coverage}


def recognised(measured: Measured) -> Record:
    """The share of images that the classifier is sure of."""

    def share(features: Features) -> float:
        return 100 * class_shares(features.probability, CONFIDENCE).confident

    note = f" read with confidence > {CONFIDENCE}"
    held_out = share(measured.held_out)
    return record("recognised", share(measured.made), "%", note, higher_is_better=True, real=held_out)


def rarest_class(measured: Measured) -> Record:
    """The share of images of the class that occurs least."""
    read = class_shares(measured.made.probability, CONFIDENCE)
    real = 100 * class_shares(measured.held_out.probability, CONFIDENCE).rarest
    about = {"higher_is_better": True, "real": real, "shares": read.shares}
    return record("rarest class", 100 * read.rarest, "%", " of the samples", **about)


def class_score(measured: Measured) -> Record:
    """How sure the network is of each image's class, and how many classes there are (Salimans et al. 2016)."""
    real = None if measured.real is None else inception_score(measured.real.probability)
    value = inception_score(measured.made.probability)
    classes = measured.made.probability.shape[1]
    return record("class score", value, "", f" of at most {classes}", higher_is_better=True, real=real)


def inception_score(probability: Tensor) -> float:
    """exp E KL(p(y|x) || p(y)) of class probabilities ``[N, K]``, the mean over ten parts (Salimans et al. 2016)."""
    parts = [part.double() for part in probability.tensor_split(min(SPLITS, len(probability)))]
    entropies = [torch.special.entr(p.mean(0)).sum() - torch.special.entr(p).sum(1).mean() for p in parts]
    return float(torch.stack(entropies).exp().mean())


def frechet(measured: Measured) -> Record:
    """Fréchet distance to the reference."""
    value = frechet_distance(measured.made.x, measured.reference.x)
    d, least = measured.made.x.shape[1], min(len(measured.made.x), len(measured.reference.x))
    few = f"; biased: {least} images for {d} features, compare at equal numbers alone" if least <= d else ""
    about = {"higher_is_better": False, "real": measured.of_real(frechet_distance)}
    return record("Fréchet distance", value, "", f" to the {measured.split} split{few}", **about)


def kernel(measured: Measured) -> Record:
    """Kernel distance to as many reference images, with its standard error."""
    reference = measured.some_reference
    value, error = kernel_distance(measured.made.x, reference)
    about = {"higher_is_better": False, "standard_error": error}
    about["real"] = measured.of_real(lambda a, _: kernel_distance(a, reference)[0])
    return record("kernel distance", value, "", f" to the {measured.split} split", **about)


def precision(measured: Measured) -> Record:
    """The share of samples that lie among real ones."""
    return _manifold(measured, "precision", " of the samples lie among real images")


def recall(measured: Measured) -> Record:
    """The share of real images that lie among samples."""
    return _manifold(measured, "recall", " of the real images lie among samples")


def density(measured: Measured) -> Record:
    """How densely samples lie among real images."""
    return _manifold(measured, "density", " (1: as densely as real images lie)")


def coverage(measured: Measured) -> Record:
    """The share of real images with a sample near them."""
    return _manifold(measured, "coverage", " of the real images have a sample near them")


def _manifold(measured: Measured, name: str, note: str) -> Record:
    value, real = (None if found is None else found[name] for found in measured.manifolds)
    return record(name, value, "", note, higher_is_better=True, real=real)


def nearest_training_image(measured: Measured) -> Record:
    """Whether samples come nearer to training images than held-out images do, as copies would."""
    distance, index = neighbours.nearest(measured.made.x, measured.train.x)
    # As many as samples: the test gains little from more, and these would take most of an evaluation's time.
    of_held_out, _ = neighbours.nearest(measured.held_out.some(len(measured.made.x)).x, measured.train.x)
    found = neighbours.copying(distance, of_held_out)
    verdict = "training images are copied" if found.z > COPYING else "no sign of copies"
    note = f" of the samples are nearer to training images than held-out images are: {verdict}"
    first = distance.argsort()[:SHOWN]
    about = {"higher_is_better": False, "real": 50.0, "z": found.z, "median": float(distance.median())}
    about |= {"real_median": float(of_held_out.median()), "copied": found.z > COPYING}
    pairs = torch.stack([first, index[first]], dim=1).tolist()
    return record("nearest training image", 100 * found.nearer, "%", note, **about, neighbours=pairs)


def intra_class(metric: Callable[[Measured], Record], measured: Measured) -> Record:
    """The mean over classes of a metric of the images of each, as Miyato and Koyama 2018 take that of the Fréchet
    distance.
    """
    if missing := measured.too_few:
        whole = metric(measured)  # for its name and direction
        about = {"higher_is_better": whole["higher_is_better"], "real": None}
        return record(f"intra-class {whole['metric']}", None, "", missing, **about)
    parts = measured.classes
    found = [metric(part) for part in parts]
    values, real = [part["value"] for part in found], [part["real"] for part in found]
    about = {"higher_is_better": found[0]["higher_is_better"], "per_class": values}
    about["real"] = None if None in real else sum(real) / len(real)
    if "standard_error" in found[0]:
        about["standard_error"] = math.hypot(*(part["standard_error"] for part in found)) / len(found)
    # That of the class with the fewest images says whether there are enough of them.
    fewest = min(range(len(parts)), key=lambda i: min(len(parts[i].made.x), len(parts[i].reference.x)))
    note = f"{found[fewest]['note']}, mean of {len(found)} classes"
    return record(f"intra-class {found[0]['metric']}", sum(values) / len(values), "", note, **about)


class Metric(NamedTuple):
    """A metric of images, and what it needs of data and space: a key of ``utils.evaluation.generation.offers``."""

    measure: Callable[[Measured], Record]
    needs: str = ""


# To add a metric of images: write its function and one line here.
IMAGE_METRICS = {
    "recognised": Metric(recognised, needs="own classes"),
    "rarest class": Metric(rarest_class, needs="own classes"),
    "class score": Metric(class_score, needs="classes"),
    "Fréchet distance": Metric(frechet),
    "kernel distance": Metric(kernel),
    "precision": Metric(precision),
    "recall": Metric(recall),
    "density": Metric(density),
    "coverage": Metric(coverage),
    "nearest training image": Metric(nearest_training_image, needs="held-out"),
    "intra-class Fréchet distance": Metric(partial(intra_class, frechet), needs="labels"),
    "intra-class kernel distance": Metric(partial(intra_class, kernel), needs="labels"),
    "intra-class precision": Metric(partial(intra_class, precision), needs="labels"),
    "intra-class recall": Metric(partial(intra_class, recall), needs="labels"),
    "intra-class density": Metric(partial(intra_class, density), needs="labels"),
    "intra-class coverage": Metric(partial(intra_class, coverage), needs="labels"),
}
