"""A small classifier of a data set's own classes: a feature space for metrics where Inception's weights cannot be had.

It is trained on the training split alone, always from the same seed and on one thread, so that runs on the same
machine and data share the space; its sha256 in every record tells where they do not.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from utils.data.datasets import DataSet, Resident, to_images
from utils.data.randomness import rng, seeded

STEPS, BATCH_SIZE, LEARNING_RATE = 800, 128, 2e-3
NOISE = 0.2  # added to training images, in units of their range [-1, 1]: on small sets it spares a percent of errors


class Classifier(nn.Module):
    """Images ``[N, C, R, R]`` in [-1, 1] to logits ``[N, classes]``; ``features`` gives the ``[N, 64]`` before them."""

    num_features = 64

    def __init__(self, shape: tuple[int, ...], classes: int):
        super().__init__()
        channels, size, width = shape[0], shape[1], 32
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
        while size > 4:
            layers += [nn.Conv2d(width, min(2 * width, 128), 3, stride=2, padding=1), nn.ReLU()]
            width, size = min(2 * width, 128), (size + 1) // 2
        layers += [nn.Flatten(), nn.Dropout(0.25), nn.Linear(width * size * size, self.num_features), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.logits = nn.Linear(self.num_features, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.features(x))


def classifier(data: DataSet, folder: Path, device: torch.device) -> Classifier:
    """The classifier of ``data``, read from ``folder`` or trained (seconds to two minutes) and kept there."""
    network = Classifier(data.shape, data.classes)
    cache = folder / f"classifier-{_fingerprint(data.train)}.safetensors"
    try:
        network.load_state_dict(load_file(cache))
    except (OSError, SafetensorError, RuntimeError):  # absent or damaged
        _train(network, data.train, device)
        folder.mkdir(parents=True, exist_ok=True)
        partial = cache.with_suffix(".partial")
        save_file(network.cpu().state_dict(), partial)
        partial.replace(cache)
    return network.to(device).eval().requires_grad_(False)


def _fingerprint(samples: Resident) -> str:
    """Tells training sets apart: the network is of use for the very set that it was trained on."""
    digest = hashlib.sha256(samples.x.numpy().tobytes())
    digest.update(samples.label.numpy().tobytes())
    return digest.hexdigest()[:12]


def sha256(module: nn.Module) -> str:
    """A fingerprint of a network's weights."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _train(network: Classifier, samples: Resident, device: torch.device) -> None:
    with seeded("classifier"), _one_thread():
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


@contextmanager
def _one_thread() -> Iterator[None]:
    """The order of sums, and so the weights, would depend on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
