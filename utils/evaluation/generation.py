"""Evaluation: what samples are measured by, as records that say what was measured.

Points are measured against the mixture that they should cover, images of a labelled set with a held-out split in the
features of a small classifier of that set (``classifier``), stacked digits by the digits that it reads in them. Other
sets have no metric that needs no download.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from utils.data.datasets import DataSet, Resident, stacked_label, to_images
from utils.evaluation import metrics
from utils.evaluation.classifier import classifier, sha256
from utils.evaluation.sampling import every_class, latents, sample

CONFIDENCE = 0.9
Record = dict[str, Any]


def evaluate(
    generator: nn.Module, data: DataSet, conditional: bool, latent_dim: int, count: int, seed: int, folder: Path
) -> list[Record]:
    """Metrics of ``count`` samples, one record each; an empty list where the data set offers no metric.

    A record says: value, metric, unit, feature space and sha256 of its weights, reference set, split and size, N, seed.
    ``folder`` keeps the feature network for the next time.
    """
    measure = _measure(data)
    if measure is None:
        return []
    samples = sample(
        generator, latents(count, latent_dim, seed), every_class(count, data.classes if conditional else 0)
    )
    records = measure(samples, data, folder, next(generator.parameters()).device)
    return [{**record, "samples": count, "seed": seed, "truncation": None, "resizer": None} for record in records]


def _measure(data: DataSet) -> Callable[[Tensor, DataSet, Path, torch.device], list[Record]] | None:
    """What measures samples of this set."""
    if data.modes is not None:
        return _points
    if data.channel is not None:
        return _stacks
    return _images if isinstance(data.train, Resident) and data.classes and data.test is not None else None


def describe(records: list[Record]) -> list[str]:
    """A line for people per record."""
    return [f"{r['metric']}: {readable(r['value'])}{' ' + r['unit'] if r['unit'] else ''}{r['note']}" for r in records]


def _points(samples: Tensor, data: DataSet, folder: Path, device: torch.device) -> list[Record]:
    result = metrics.coverage(samples, data.modes)
    total = len(data.modes.centres)
    space = {"features": "the points themselves", "features_sha256": None}
    space |= {"reference": data.name, "split": "the mixture's density", "reference_samples": None}
    better, worse = {"higher_is_better": True, **space}, {"higher_is_better": False, **space}
    return [
        record("modes", result.modes, "", f" of {total}", **better),
        record("high quality", 100 * result.high_quality, "%", " within 3 σ of a mode", **better),
        record("reverse KL", result.reverse_kl, "nats", " of high-quality samples over modes", **worse),
    ]


@torch.no_grad()
def _images(samples: Tensor, data: DataSet, folder: Path, device: torch.device) -> list[Record]:
    with torch.enable_grad():
        network = classifier(data, folder, device)
    samples = samples.to(device)
    train, test = (to_images(split.x, device) for split in (data.train, data.test))
    read = metrics.recognition(metrics.probabilities(network, samples), CONFIDENCE)
    distance, real = (metrics.frechet_distance(network, test, images) for images in (samples, train))

    space = {**_space(network, data), "reference": data.name, "split": "held-out", "reference_samples": len(data.test)}
    percent, worse = {"unit": "%", "higher_is_better": True, **space}, {"higher_is_better": False, **space}
    return [
        _accuracy(network, data, device),
        record("recognised", 100 * read.confident, note=f" read with confidence > {CONFIDENCE}", **percent),
        record("rarest class", 100 * read.rarest, note=" of the samples", shares=read.shares, **percent),
        record("Fréchet distance", distance, "", " to the held-out split", **worse),
        record("Fréchet distance of the training split", real, "", " to the held-out split", **worse),
    ]


@torch.no_grad()
def _stacks(samples: Tensor, data: DataSet, folder: Path, device: torch.device) -> list[Record]:
    """The protocol of stacked MNIST (Metz et al. 2017, section 3.3.1; 26,000 samples in PacGAN): a classifier of single
    digits reads each channel, and a triple of digits that occurs is a mode that was found.
    """
    with torch.enable_grad():
        network = classifier(data.channel, folder, device)
    digits = metrics.probabilities(network, samples.to(device).flatten(0, 1)[:, None]).argmax(1).cpu()
    count = torch.bincount(stacked_label(digits.unflatten(0, (-1, 3))), minlength=data.classes).double()
    space = {**_space(network, data.channel), "reference": "uniform over all classes"}
    space |= {"split": "none", "reference_samples": None}
    return [
        _accuracy(network, data.channel, device),
        record("modes", int((count > 0).sum()), "", f" of {data.classes}", higher_is_better=True, **space),
        record("reverse KL", metrics.from_uniform(count), "nats", " over modes", higher_is_better=False, **space),
    ]


def _space(network: nn.Module, data: DataSet) -> Record:
    return {"features": f"classifier trained on {data.name}, train split", "features_sha256": sha256(network)}


def _accuracy(network: nn.Module, data: DataSet, device: torch.device) -> Record:
    """How often a classifier is right on the held-out split."""
    read = metrics.probabilities(network, to_images(data.test.x, device)).argmax(1).cpu()
    accuracy = float((read == data.test.label).float().mean())
    space = {"reference": data.name, "split": "held-out", "reference_samples": len(data.test)}
    about = {"higher_is_better": True, **_space(network, data), **space}
    return record("classifier accuracy", 100 * accuracy, "%", f" on {len(data.test)} held-out images", **about)


def record(metric: str, value: float, unit: str, note: str, **about: Any) -> Record:
    """A metric, its value, and what was measured: higher_is_better, features, reference, split, ..."""
    return {"metric": metric, "value": value, "unit": unit, "note": note, **about}


def readable(value: float | None) -> str:
    """Counts as they are, other numbers with two digits."""
    return str(value) if value is None or isinstance(value, int) else f"{value:.2f}"
