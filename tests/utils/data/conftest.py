"""Miniatures of the files of image sets."""

import bz2
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image
from torchvision import datasets as torchvision_datasets

from tests.utils.data.helpers import write_idx


@pytest.fixture
def miniatures(tmp_path, monkeypatch) -> Path:
    """A folder of small MNIST, USPS, SVHN and photographs, with torchvision's table of SVHN's md5 sums switched off."""
    monkeypatch.setattr(torchvision_datasets.SVHN, "_check_integrity", lambda self: True)
    draw = np.random.default_rng(0)
    for folder in ("MNIST/raw", "USPS", "SVHN", "photos"):
        (tmp_path / folder).mkdir(parents=True)
    for split, n in (("train", 30), ("t10k", 20)):
        write_idx(tmp_path / f"MNIST/raw/{split}-images-idx3-ubyte", draw.integers(0, 256, (n, 28, 28)))
        write_idx(tmp_path / f"MNIST/raw/{split}-labels-idx1-ubyte", np.arange(n) % 10)
    for name, n in (("usps.bz2", 20), ("usps.t.bz2", 10)):
        lines = [" ".join([str(i % 10 + 1), *(f"{j + 1}:{2 * i / 20 - 1:.2f}" for j in range(256))]) for i in range(n)]
        (tmp_path / "USPS" / name).write_bytes(bz2.compress("\n".join(lines).encode()))
    for split, n in (("train", 20), ("test", 10)):
        content = {
            "X": draw.integers(0, 256, (32, 32, 3, n), dtype=np.uint8),
            "y": np.arange(1, n + 1)[:, None] % 10 + 1,
        }
        scipy.io.savemat(tmp_path / f"SVHN/{split}_32x32.mat", content)
    photo = draw.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(photo).save(tmp_path / "photos/wall.png")
    return tmp_path
