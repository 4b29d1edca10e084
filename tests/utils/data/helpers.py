"""Images, files and checks that several tests of data share."""

import io
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from utils.data import datasets, domains
from utils.data.samples import Resident
from utils.errors import UserError


def picture(seed: int, size: tuple[int, int] = (16, 16), mode: str = "RGB") -> Image.Image:
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], len(mode))
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def png(image: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def pixels(image: Image.Image) -> torch.Tensor:
    array = np.array(image)
    return torch.from_numpy(array.reshape(*array.shape[:2], -1)).permute(2, 0, 1)


def write_idx(path: Path, array: np.ndarray) -> None:
    """MNIST's own format: a magic number with the type (8: uint8) and the rank, the sizes, the bytes."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def refused_set(config) -> str:
    """The sentence with which a data set is refused."""
    with pytest.raises(UserError) as caught:
        datasets.load(config, 0)
    return sentence(caught.value)


def refused_pair(config, target_only: bool = False) -> str:
    """The sentence with which a pair of domains is refused."""
    with pytest.raises(UserError) as caught:
        domains.load(config, 0, target_only)
    return sentence(caught.value)


def sentence(error: UserError) -> str:
    message = str(error)
    assert message.endswith(".")
    assert not re.search(r"\.\s", message.removesuffix(".")), "one sentence"
    assert "\n" not in message
    return message


def bytes_of(samples: Resident) -> set[bytes]:
    return {x.numpy().tobytes() for x in samples.x}


def check_labelled(samples: Resident, n: int, shape: tuple[int, ...], dtype: torch.dtype = torch.uint8) -> None:
    assert samples.x.shape == (n, *shape)
    assert samples.x.dtype == dtype
    assert samples.label.shape == (n,)
    assert samples.label.dtype == torch.int64
