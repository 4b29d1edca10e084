"""Features of images: of generated ones as they are drawn, of real ones computed once and kept for all runs."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from adversarial.draws import rng
from utils.data.samples import Resident, Samples, digest
from utils.evaluation.cache import kept
from utils.evaluation.predictions import batches, subset
from utils.evaluation.spaces import Space

AT_ONCE = 100  # images that a feature network is given: the results do not depend on it


class Features(NamedTuple):
    """What is kept of N images: all but this is forgotten batch by batch. On the CPU."""

    x: Tensor  # float32 [N, d]
    probability: Tensor | None  # float32 [N, K], where the space names classes
    label: Tensor | None  # int64 [N], the classes that they were drawn of, or that the data give them

    def part(self, index: Tensor) -> "Features":
        """The features at ``index``."""
        return Features(*(None if values is None else values[index] for values in self))

    def some(self, count: int) -> "Features":
        """Up to ``count`` of them, drawn at random and always the same ones."""
        return self.part(torch.randperm(len(self.x), generator=rng("features", len(self.x)))[:count])


@torch.no_grad()
def features_of(space: Space, images: Iterable[Tensor], count: int, what: str, label: Tensor | None) -> Features:
    """Features of ``count`` uint8 images that come in batches; ``what`` they are stands beside the progress bar."""
    x, probability = [], []
    with tqdm(total=count, desc=f"features of {what}", unit="image", disable=None, leave=False) as bar:
        for batch in images:
            for part in batch.split(AT_ONCE):
                features, read = space.read(part.to(space.device))
                x.append(features.float().cpu())
                probability += [] if read is None else [read.float().cpu()]
                bar.update(len(part))
    return Features(torch.cat(x), torch.cat(probability) if probability else None, label)


def real_features(space: Space, samples: Samples, count: int, folder: Path) -> Features:
    """Features of up to ``count`` of the samples, always the same ones: read from ``folder``, or computed and kept
    there.
    """
    chosen = subset(samples, count)
    path = folder / f"features-{_fingerprint(space, chosen)}.safetensors"

    def compute() -> dict[str, Tensor]:
        found = features_of(space, batches(chosen), len(chosen), "real images", None)
        return {"x": found.x} | ({} if found.probability is None else {"probability": found.probability})

    found = kept(path, compute)
    return Features(found["x"], found.get("probability"), chosen.label)


def _fingerprint(space: Space, samples: Samples) -> str:
    """A hash of what the features are a function of: the network, its resizer and the images."""
    # In memory the pixels themselves; of files their digest, and how they are fitted.
    images = Resident(samples.x, None) if isinstance(samples, Resident) else samples.unlabelled()
    fitted = "" if isinstance(samples, Resident) else samples.config.fit
    about = (space.name, space.sha256, space.resizer, digest(images), samples.shape, fitted)
    return hashlib.sha256(repr(about).encode()).hexdigest()[:16]
