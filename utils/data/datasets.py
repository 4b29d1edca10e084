"""What a recipe trains on: decoded images or points, their labels, and where there is one a held-out split.

A new set is one function ``(config, seed) -> DataSet`` and one line of ``DATASETS``.
"""

import contextlib
import copy
import functools
import io
import json
import math
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torchvision import datasets
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv
from tqdm import tqdm

from utils.data.randomness import rng
from utils.data.sections import DataConfig
from utils.errors import UserError, check_name

FITS = ("exact", "pad", "crop")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
GRAY_MODES = ("1", "L", "LA", "La")
POINTS = 100_000, 10_000  # for training, held out
STACKS = 128_000  # images of stacked_mnist, as many as in PacGAN's code


@dataclass(frozen=True, eq=False)
class Resident:
    """Samples held in memory: uint8 images ``[n, C, R, R]`` or float32 points ``[n, D]``, and int64 labels ``[n]``."""

    x: Tensor
    label: Tensor | None
    attribute: Tensor | None = None  # int64 [n]: the camera, person or domain of each sample

    def __len__(self) -> int:
        return len(self.x)

    def part(self, index: Tensor) -> "Resident":
        """The samples at ``index``."""
        label, attribute = (None if y is None else y[index] for y in (self.label, self.attribute))
        return Resident(self.x[index], label, attribute)


class Files(NamedTuple):
    """Image files in a folder or a zip: ``read(root, name)`` gives the bytes of one."""

    root: str
    names: list[str]
    read: Callable[[str, str], bytes]


class Streamed(torch.utils.data.Dataset):
    """Image files decoded one at a time, to uint8 ``[C, R, R]``.

    A file that cannot be used comes back as a UserError, for the caller to raise: a loader's worker process would wrap
    a raised one in a stack trace. Holds no open file, so workers may be forked or spawned.
    """

    def __init__(
        self, files: Files, label: Tensor | None, channels: int, config: DataConfig, attribute: Tensor | None = None
    ):
        self.files, self.label, self.attribute = files, label, attribute
        self.channels, self.config = channels, config

    def __len__(self) -> int:
        return len(self.files.names)

    def part(self, index: Tensor) -> "Streamed":
        """The samples at ``index``."""
        chosen = copy.copy(self)
        chosen.files = self.files._replace(names=[self.files.names[i] for i in index.tolist()])
        chosen.label, chosen.attribute = (None if y is None else y[index] for y in (self.label, self.attribute))
        return chosen

    def __getitem__(self, i: int) -> Tensor | UserError:
        try:
            return self._decode(self.files.names[i])
        except UserError as error:
            return error

    def _decode(self, name: str) -> Tensor:
        image = open_image(self.files, name)
        if self.channels == 1 and image.mode not in GRAY_MODES:
            raise UserError(
                f"The image '{name}' in '{self.files.root}' has colours (mode {image.mode}) but the first one, "
                f"'{self.files.names[0]}', is grayscale; convert one of the two."
            )
        pixels = tv.pil_to_tensor(image.convert("L" if self.channels == 1 else "RGB"))
        return fit(pixels, self.config.resolution, self.config.fit, f"The image '{name}' in '{self.files.root}'")


Samples = Resident | Streamed


class Modes(NamedTuple):
    """A mixture of equally likely Gaussians: ``centres [K, 2]`` and their common standard deviation."""

    centres: Tensor
    sigma: float


@dataclass(frozen=True, eq=False)
class DataSet:
    """``shape`` is (C, R, R) or (D,), ``classes`` 0 without labels, ``test`` None where the source has none.

    ``channel`` is the set that an image's channels are samples of, one by one, where it is made so.
    """

    name: str
    shape: tuple[int, ...]
    classes: int
    train: Resident | Streamed
    test: Resident | None
    modes: Modes | None = None
    channel: "DataSet | None" = None
    target: None = None  # there is no second domain


def load(config: DataConfig, seed: int) -> DataSet:
    """Return the data set that ``config`` names; only ring, grid and stacked_mnist depend on the seed."""
    check_name("data.name", config.name, DATASETS)
    check_size(config)
    return DATASETS[config.name](config, seed)


def check_size(config: DataConfig) -> None:
    """Raise UserError for an unknown ``data.fit`` or a ``data.resolution`` below 1."""
    check_name("data.fit", config.fit, FITS)
    if config.resolution < 1:
        raise UserError(f"data.resolution={config.resolution} is no image size; set it to 1 or more.")


def to_images(x: Tensor, device: torch.device) -> Tensor:
    """Bring uint8 images to [-1, 1], in PyTorch's default precision, on ``device``."""
    return x.to(device).to(torch.get_default_dtype()) / 127.5 - 1


# --- Images of any size to R x R pixels


def fit(x: Tensor, resolution: int, how: str, what: str) -> Tensor:
    """Bring uint8 images ``[..., C, H, W]`` to ``resolution``; an error calls them ``what``."""
    H, W = x.shape[-2:]
    if H == W == resolution:
        return x
    if how == "crop":
        square = tv.center_crop(x, [min(H, W)])
        return tv.resize(square, [resolution, resolution], InterpolationMode.BICUBIC, antialias=True)
    if how == "exact" or max(H, W) > resolution:
        raise _wrong_size((W, H), resolution, how, what)
    left, top = (resolution - W) // 2, (resolution - H) // 2
    return tv.pad(x, [left, top, resolution - W - left, resolution - H - top])


def _wrong_size(size: tuple[int, int], resolution: int, how: str, what: str) -> UserError:
    remedies = ["data.fit=crop"]
    if max(size) <= resolution:
        remedies.insert(0, "data.fit=pad")
    if how == "pad":
        remedies.append(f"data.resolution={max(size)} if no image is larger")
    elif size[0] == size[1]:
        remedies.append(f"data.resolution={size[0]} if all images have that size")
    return UserError(
        f"{what} has {size[0]}x{size[1]} pixels and data.fit={how} asks for {'at most ' if how == 'pad' else ''}"
        f"{resolution}x{resolution}; set {' or '.join(remedies)}."
    )


# --- Sets that come with a library


def digits(config: DataConfig, seed: int) -> DataSet:
    """Scikit-learn's 1,797 handwritten digits of 8x8 pixels; the split is the same for every seed."""
    return _arrays(config, *digit_splits())


def digit_splits() -> list[tuple[Tensor, Tensor]]:
    """Images ``[n, 1, 8, 8]`` (uint8) and labels of scikit-learn's digits: 1,347 to train on and 450 held out."""
    source = load_digits()
    x = torch.from_numpy(source.images * 255 / 16).round().to(torch.uint8).unsqueeze(1)  # 17 levels of gray
    label = torch.from_numpy(source.target).long()
    train, test = train_test_split(range(len(x)), test_size=450, random_state=0, stratify=label)
    return [(x[train], label[train]), (x[test], label[test])]


def torchvision_set(config: DataConfig, seed: int, source: type, folder: str) -> DataSet:
    """MNIST, Fashion-MNIST or CIFAR-10; ``folder`` is where torchvision looks for ``source`` below the root."""
    train, test = (_torchvision_split(config, source, folder, train) for train in (True, False))
    return _arrays(config, train, test)


def _torchvision_split(config: DataConfig, source: type, folder: str, train: bool) -> tuple[Tensor, Tensor]:
    root = Path(config.root).expanduser()
    if not config.download and not (root / folder).is_dir():
        raise UserError(
            f"{source.__name__} is not in '{root / folder}'; set data.root to the folder that holds "
            f"'{Path(folder).parts[0]}', or data.download=true to fetch it."
        )
    try:
        split = source(root, train=train, download=config.download)
        x, label = torch.as_tensor(split.data), torch.as_tensor(split.targets).long()
        if len(x) != len(label):
            raise ValueError(f"{len(x)} images but {len(label)} labels")
    except Exception as error:  # torchvision raises RuntimeError, AssertionError, OSError, EOFError and more
        raise UserError(
            f"The {'training' if train else 'test'} split of {source.__name__} could not be read from "
            f"'{root / folder}' ({reason(error)}); delete that folder and fetch it again with data.download=true, "
            f"where there is a network."
        ) from error
    return x.unsqueeze(1) if x.ndim == 3 else x.permute(0, 3, 1, 2).contiguous(), label


def _arrays(config: DataConfig, *splits: tuple[Tensor, Tensor]) -> DataSet:
    what = f"Every image of {config.name}"
    train, test = (Resident(fit(x, config.resolution, config.fit, what), label) for x, label in splits)
    return DataSet(config.name, tuple(train.x.shape[1:]), 10, train, test)


def stacked_mnist(config: DataConfig, seed: int) -> DataSet:
    """Three random digits of MNIST's training split as the channels of an image, so that there are 1,000 classes to
    find: 100a + 10b + c (Metz et al. 2017, section 3.3.1; Lin et al. 2018, PacGAN, section 4.2).
    """
    digits = torchvision_set(config, seed, datasets.MNIST, "MNIST/raw")
    chosen = torch.randint(len(digits.train), (STACKS, 3), generator=rng(seed, "stacks"))
    stacked = Resident(digits.train.x[chosen].squeeze(2), stacked_label(digits.train.label[chosen]))
    return DataSet(config.name, (3, *digits.shape[1:]), 1000, stacked, None, channel=digits)


def stacked_label(digits: Tensor) -> Tensor:
    """Digits ``[n, 3]`` to classes ``[n]``."""
    return digits @ digits.new_tensor([100, 10, 1])


# --- Points in the plane


def ring(config: DataConfig, seed: int) -> DataSet:
    """8 Gaussians on the unit circle (PacGAN: Lin et al. 2018)."""
    angle = torch.arange(8) * (2 * math.pi / 8)
    return _gaussians(config.name, Modes(torch.stack([angle.cos(), angle.sin()], dim=1), 0.01), seed)


def grid(config: DataConfig, seed: int) -> DataSet:
    """25 Gaussians on a square grid (PacGAN: Lin et al. 2018)."""
    ticks = torch.tensor([-4.0, -2.0, 0.0, 2.0, 4.0])
    return _gaussians(config.name, Modes(torch.cartesian_prod(ticks, ticks), 0.05), seed)


def _gaussians(name: str, modes: Modes, seed: int) -> DataSet:
    draw = rng(seed, "points")
    K, D = modes.centres.shape
    label = torch.randint(K, (sum(POINTS),), generator=draw)
    x = modes.centres[label] + modes.sigma * torch.randn(sum(POINTS), D, generator=draw)
    train, test = (Resident(*split) for split in zip(x.split(POINTS), label.split(POINTS), strict=True))
    return DataSet(name, (D,), K, train, test, modes)


# --- Image files


def folder(config: DataConfig, seed: int) -> DataSet:
    """Images below a folder; the first level of sub-folders names the classes if no image lies outside of them."""
    root = Path(config.root).expanduser()
    if root.is_file():
        hint = "data.name=zip" if zipfile.is_zipfile(root) else "data.root to the folder that holds the images"
        raise UserError(f"data.root '{root}' is a file where data.name=folder needs a folder; set {hint}.")
    if not root.is_dir():
        raise UserError(f"The folder '{root}' does not exist; set data.root to the folder that holds the images.")
    files = folder_files(root)
    return _images(config, files, _folder_labels(files.names))


def folder_files(root: Path) -> Files:
    """The images below a folder, by their path in it. Raises UserError if there is none."""
    return Files(str(root), _image_names(_walk(root), root), _read_in_folder)


def _walk(root: Path) -> list[str]:
    def fail(error: OSError):  # os.walk is silent about what it cannot enter
        raise UserError(f"The folder '{error.filename}' cannot be listed ({reason(error)}); mend or remove it.")

    walk = os.walk(root, onerror=fail, followlinks=True)  # class folders are often links on a cluster
    return [(Path(where) / name).relative_to(root).as_posix() for where, _, names in walk for name in names]


def _read_in_folder(root: str, name: str) -> bytes:
    return Path(root, name).read_bytes()


def _folder_labels(names: list[str]) -> Tensor | None:
    if not all("/" in name for name in names):
        return None
    tops = [name.split("/")[0] for name in names]
    index = {top: i for i, top in enumerate(sorted(set(tops)))}
    return torch.tensor([index[top] for top in tops])


def zip_file(config: DataConfig, seed: int) -> DataSet:
    """A zip of images with an optional ``dataset.json`` of labels, as StyleGAN2-ADA, StyleGAN3, EDM and R3GAN read."""
    root = Path(config.root).expanduser()
    if root.is_dir():
        raise UserError(f"data.root '{root}' is a folder where data.name=zip needs a .zip file; set data.name=folder.")
    if not root.exists():
        raise UserError(f"The file '{root}' does not exist; set data.root to the path of the .zip file.")
    try:
        inside = _archive(str(root), os.getpid()).namelist()
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"'{root}' is not a complete zip file ({reason(error)}); copy or make it again.") from error
    files = Files(str(root), _image_names(inside, root), _read_in_zip)
    return _images(config, files, _zip_labels(files) if "dataset.json" in inside else None)


@functools.cache
def _archive(path: str, process: int) -> zipfile.ZipFile:
    """Open a zip once per process: a handle that came through a fork would share its file position with the parent."""
    return zipfile.ZipFile(path)


def _read_in_zip(root: str, name: str) -> bytes:
    return _archive(root, os.getpid()).read(name)


def _zip_labels(files: Files) -> Tensor | None:
    where = f"dataset.json in '{files.root}'"
    try:
        pairs = json.loads(files.read(files.root, "dataset.json"))["labels"]
        if pairs is None:
            return None
        labels = dict(pairs)
    except Exception as error:  # damaged zip, no JSON, JSON of another form
        raise UserError(
            f'{where} cannot be read ({reason(error)}); it must be JSON of the form {{"labels": [["a.png", 0], ...]}} '
            f'or {{"labels": null}}.'
        ) from error
    for name in files.names:
        if name not in labels:
            raise UserError(f"{where} has no label for '{name}'; add one, or write {{\"labels\": null}}.")
        if type(labels[name]) is not int or labels[name] < 0:
            raise UserError(
                f"{where} gives '{name}' the label {str(labels[name])[:40]}; write class numbers 0, 1, 2, ..., "
                f"no vectors or other values."
            )
    return torch.tensor([labels[name] for name in files.names])


def _image_names(names: list[str], root: Path) -> list[str]:
    found = sorted(filter(_is_image, names))
    if not found:
        raise UserError(f"'{root}' holds no image ({', '.join(SUFFIXES)}); set data.root to where the images are.")
    return found


def _is_image(name: str) -> bool:
    path = PurePosixPath(name)
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)  # macOS adds ._a.png, which is no image
    return path.suffix.lower() in SUFFIXES and not hidden


def _images(config: DataConfig, files: Files, label: Tensor | None) -> DataSet:
    channels = 1 if open_image(files, files.names[0]).mode in GRAY_MODES else 3
    classes = 0 if label is None else int(label.max()) + 1
    shape = (channels, config.resolution, config.resolution)
    return DataSet(config.name, shape, classes, decoded(config, files, label, channels), None)


def decoded(
    config: DataConfig, files: Files, label: Tensor | None, channels: int, attribute: Tensor | None = None
) -> Resident | Streamed:
    """Image files as samples: all of them in memory where ``data.resident_gib`` allows it."""
    streamed = Streamed(files, label, channels, config, attribute)
    fits = len(streamed) * channels * config.resolution**2 <= config.resident_gib * 2**30
    return _decode_all(streamed) if fits else streamed


def _decode_all(streamed: Streamed) -> Resident:
    side = streamed.config.resolution
    x = torch.empty(len(streamed), streamed.channels, side, side, dtype=torch.uint8)
    for i in tqdm(range(len(streamed)), "decoding images", disable=None, leave=False):
        image = streamed[i]
        if isinstance(image, UserError):
            raise image
        x[i] = image
    return Resident(x, streamed.label, streamed.attribute)


def open_image(files: Files, name: str) -> Image.Image:
    """Decode a file in full, so that a truncated one is found, and turn it upright as its EXIF data say."""
    try:
        image = Image.open(io.BytesIO(files.read(files.root, name)), formats=FORMATS)
        image.load()
        with contextlib.suppress(SyntaxError):  # Pillow's word for EXIF data that cannot be read
            ImageOps.exif_transpose(image, in_place=True)
    except Exception as error:  # Pillow and zipfile raise OSError, SyntaxError, EOFError, zlib.error and more
        raise UserError(
            f"The image '{name}' in '{files.root}' cannot be decoded ({reason(error)}); replace or remove it."
        ) from error
    if image.mode.startswith(("I", "F")):
        raise UserError(f"The image '{name}' in '{files.root}' has more than 8 bits a pixel; convert it to 8 bits.")
    return image


def reason(error: Exception) -> str:
    """The first sentence of an exception, to stand inside another."""
    if isinstance(error, UnidentifiedImageError):
        return f"no {' or '.join(FORMATS)} file"
    if isinstance(error, KeyError):
        return f"no {error}"
    first = str(error).strip().partition("\n")[0].partition(". ")[0]
    return first.rstrip(".:") or type(error).__name__


DATASETS: dict[str, Callable[[DataConfig, int], DataSet]] = {
    "digits": digits,
    "ring": ring,
    "grid": grid,
    "mnist": functools.partial(torchvision_set, source=datasets.MNIST, folder="MNIST/raw"),
    "fashion_mnist": functools.partial(torchvision_set, source=datasets.FashionMNIST, folder="FashionMNIST/raw"),
    "stacked_mnist": stacked_mnist,
    "cifar10": functools.partial(torchvision_set, source=datasets.CIFAR10, folder="cifar-10-batches-py"),
    "folder": folder,
    "zip": zip_file,
}
