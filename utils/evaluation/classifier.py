"""A small classifier of a data set's own classes: a feature space for metrics that needs no download.

It is trained on the training split alone, always from the same seed and on one thread, so that runs on the same
machine and data share the feature space; its sha256 in every record shows whether they do.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from adversarial.draws import rng
from utils.data.randomness import seeded
from utils.data.samples import DataSet, Resident, digest, to_images
from utils.evaluation.cache import digest_of_tensors, kept

STEPS, BATCH_SIZE, LEARNING_RATE = 800, 128, 2e-3
NOISE = 0.2  # σ of noise added to training images in [-1, 1]: on small sets one per cent fewer errors


class Classifier(nn.Module):
    """Images ``[N, C, R, R]`` in [-1, 1] to logits ``[N, classes]``; ``features`` gives the ``[N, 64]`` before them."""

    num_features = 64

    def __init__(self, shape: tuple[int, ...], classes: int):
        super().__init__()
        (channels, H, W), width = shape, 32
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
        while min(H, W) > 4:
            layers += [nn.Conv2d(width, min(2 * width, 128), 3, stride=2, padding=1), nn.ReLU()]
            width, H, W = min(2 * width, 128), (H + 1) // 2, (W + 1) // 2
        layers += [nn.Flatten(), nn.Dropout(0.25), nn.Linear(width * H * W, self.num_features), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.logits = nn.Linear(self.num_features, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.features(x))


def classifier(data: DataSet, folder: Path, device: torch.device) -> Classifier:
    """The classifier of ``data``, frozen, read from ``folder`` or trained (seconds to two minutes) and kept there."""
    network = Classifier(data.shape, data.classes)
    path = folder / f"classifier-{_fingerprint(network, data.train)}.safetensors"
    network.load_state_dict(kept(path, lambda: _trained(network, data.train, device)))
    return network.to(device).eval().requires_grad_(False)


def _fingerprint(network: Classifier, samples: Resident) -> str:
    """A hash of what the weights are a function of: the training set, the layers and the settings of the training."""
    layers = [(name, tuple(value.shape), str(value.dtype)) for name, value in network.state_dict().items()]
    found = hashlib.sha256(repr((layers, STEPS, BATCH_SIZE, LEARNING_RATE, NOISE)).encode())
    found.update(digest(Resident(samples.x, samples.label)).encode())
    return found.hexdigest()[:12]


def sha256(module: nn.Module) -> str:
    """The sha256 of a network's weights and buffers, by name."""
    return digest_of_tensors(module.state_dict())


class ClassShares(NamedTuple):
    """How a classifier reads images; all are shares of the images, in [0, 1]."""

    confident: float  # read as some class with a probability above the threshold
    rarest: float  # read as the class that occurs least
    shares: list[float]  # read as each class


def class_shares(probability: Tensor, threshold: float = 0.9) -> ClassShares:
    """Confidence and class shares of class probabilities ``[N, classes]``."""
    confidence, label = probability.max(1)
    shares = torch.bincount(label, minlength=probability.shape[1]) / len(label)
    return ClassShares(float((confidence > threshold).float().mean()), float(shares.min()), shares.tolist())


@torch.enable_grad()
def _trained(network: Classifier, samples: Resident, device: torch.device) -> dict[str, Tensor]:
    """Train the network; its weights by name."""
    with seeded("classifier"), _one_thread():
        # Initialised again, inside `seeded`: the caller's global generator drew the first weights.
        network.apply(lambda module: module.reset_parameters() if hasattr(module, "reset_parameters") else None)
        network.to(device).train()
        optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=STEPS)
        draw = rng("classifier", "batches")
        for _ in tqdm(range(STEPS), desc="classifier for metrics", unit="step", disable=None, leave=False):
            index = torch.randint(len(samples), (BATCH_SIZE,), generator=draw)
            x = to_images(samples.x[index], device)
            x = x + NOISE * torch.randn(x.shape, generator=draw).to(device)
            loss = functional.cross_entropy(network(x), samples.label[index].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.state_dict()


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread inside: the order of sums, and so the weights, would depend on their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
