"""Containers of samples: in memory or streamed from disk, and the data set that they are splits of."""

import copy
import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from utils.data.decoding import open_image
from utils.data.files import Files
from utils.data.fitting import ImageFiles, fit, size_of
from utils.errors import UserError


@dataclass(frozen=True, eq=False)
class Resident:
    """Samples in memory: uint8 images ``[n, C, H, W]`` or float32 points ``[n, D]``, and int64 labels ``[n]``."""

    x: Tensor
    label: Tensor | None
    attribute: Tensor | None = None  # int64 [n]: the camera, person or domain of each sample
    files: Files | None = None  # those that the samples were decoded from, one each

    def __len__(self) -> int:
        return len(self.x)

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) or (D,), of one sample."""
        return tuple(self.x.shape[1:])

    def part(self, index: Tensor) -> "Resident":
        """The samples at ``index``."""
        label, attribute = (None if y is None else y[index] for y in (self.label, self.attribute))
        return Resident(self.x[index], label, attribute, None if self.files is None else self.files.part(index))

    def unlabelled(self) -> "Resident":
        """The same samples without labels and attributes."""
        return Resident(self.x, None, files=self.files)


class Streamed(torch.utils.data.Dataset):
    """Image files decoded one at a time, to uint8 ``[C, H, W]``.

    A file that cannot be used is returned as a UserError, for the caller to raise: a loader's worker process would wrap
    a raised one in a stack trace. Holds no open file, so workers may be forked or spawned.
    """

    def __init__(
        self, files: Files, label: Tensor | None, channels: int, config: ImageFiles, attribute: Tensor | None = None
    ):
        self.files, self.label, self.attribute = files, label, attribute
        self.channels, self.config = channels, config

    def __len__(self) -> int:
        return len(self.files.names)

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W), of one sample."""
        return (self.channels, *size_of(self.config))

    def part(self, index: Tensor) -> "Streamed":
        """The samples at ``index``."""
        chosen = copy.copy(self)
        chosen.files = self.files.part(index)
        chosen.label, chosen.attribute = (None if y is None else y[index] for y in (self.label, self.attribute))
        return chosen

    def unlabelled(self) -> "Streamed":
        """The same samples without labels and attributes."""
        return Streamed(self.files, None, self.channels, self.config)

    def __getitem__(self, i: int) -> Tensor | UserError:
        try:
            return self._decode(self.files.names[i])
        except UserError as error:
            return error

    def _decode(self, name: str) -> Tensor:
        from torchvision.transforms.v2 import functional as tv  # here for a fast start-up

        image = open_image(self.files, name, self.config.background)
        if self.channels == 1 and image.mode != "L":
            raise UserError(
                f"The image '{name}' in '{self.files.root}' has colours but is not among those whose headers were "
                f"looked at, which are all gray; remove it, or convert it to gray."
            )
        pixels = tv.pil_to_tensor(image.convert("L" if self.channels == 1 else "RGB"))
        return fit(pixels, size_of(self.config), self.config.fit, f"The image '{name}' in '{self.files.root}'")


Samples = Resident | Streamed


def digest(*parts: Samples | None) -> str:
    """A sha256 of samples, by which other data of the same number are told from these.

    Of image files it is that of the files, labels and attributes, decoded or not; else of the samples themselves.
    """
    found = hashlib.sha256()
    for samples in parts:
        if samples is None:
            continue
        tensors = [y for y in (samples.label, samples.attribute) if y is not None]
        if samples.files is None:
            tensors.append(samples.x)
        else:
            found.update(samples.files.digest().encode())
        for x in tensors:
            found.update(repr((x.dtype, tuple(x.shape))).encode())
            found.update(x.contiguous().numpy())
    return found.hexdigest()


class Modes(NamedTuple):
    """A mixture of equally likely Gaussians: ``centres [K, 2]`` and their common standard deviation."""

    centres: Tensor
    sigma: float


@dataclass(frozen=True, eq=False)
class DataSet:
    """What a GAN trains on.

    ``shape`` is (C, H, W) or (D,), ``classes`` 0 without labels, ``test`` None if the source has no held-out split.
    ``channel`` is set for images whose channels are samples of another set, as in stacked MNIST. ``aspect`` is the
    width of the images before they were stretched, in units of their height; None if they were not.
    """

    name: str
    shape: tuple[int, ...]
    classes: int
    train: Samples
    test: Samples | None
    modes: Modes | None = None
    channel: "DataSet | None" = None
    class_names: tuple[str, ...] = ()  # empty if the classes have numbers only
    target: None = None  # games of domains have a second domain, a GAN has none
    notes: tuple[str, ...] = ()  # sentences that a run says of its data as it starts
    aspect: float | None = None


def to_images(x: Tensor, device: torch.device) -> Tensor:
    """Return uint8 images in [-1, 1], in PyTorch's default precision, on ``device``."""
    # In place on the fresh copy: memory for each intermediate would cost more than the arithmetic.
    return x.to(device).to(torch.get_default_dtype()).div_(127.5).sub_(1)
