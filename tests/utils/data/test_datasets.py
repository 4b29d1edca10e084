"""Data sets: what is read is what was written, and what cannot be used is refused in a sentence that names it."""

import dataclasses
import io
import json
import pickle
import re
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import datasets as torchvision_datasets

from utils.data import datasets
from utils.data.datasets import DataConfig, Resident, Streamed, load
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


NAMES = ["b/2.png", "a/10.png", "a/1.png", "c.d/0.png"]
SORTED = ["a/1.png", "a/10.png", "b/2.png", "c.d/0.png"]
LABELS = {"a/1.png": 3, "a/10.png": 0, "b/2.png": 3, "c.d/0.png": 1}


@pytest.fixture(params=["folder", "zip"])
def store(request, tmp_path):
    """A function that writes files as a folder or as a zip and returns the config that reads them."""

    def write(files: dict[str, bytes], **options) -> DataConfig:
        root = tmp_path / ("set.zip" if request.param == "zip" else "set")
        if request.param == "zip":
            with zipfile.ZipFile(root, "w") as archive:
                for name, content in files.items():
                    archive.writestr(name, content)
        else:
            root.mkdir()
            for name, content in files.items():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_bytes(content)
        return DataConfig(**{"name": request.param, "root": str(root), "resolution": 16, **options})

    return write


def write_zip(path: Path, labels) -> DataConfig:
    with zipfile.ZipFile(path, "w") as archive:
        for i, name in enumerate(NAMES):
            archive.writestr(name, png(picture(i)))
        archive.writestr("dataset.json", labels if isinstance(labels, str) else json.dumps({"labels": labels}))
    return DataConfig("zip", str(path), resolution=16)


def refusal(config: DataConfig) -> str:
    with pytest.raises(UserError) as caught:
        load(config, 0)
    message = str(caught.value)
    assert message.endswith(".")
    assert not re.search(r"\.\s", message.removesuffix(".")), "one sentence"
    assert "\n" not in message
    return message


def test_every_config_field_is_explained_by_one_comment_on_its_line():
    source = Path(datasets.__file__).read_text()
    for field in dataclasses.fields(DataConfig):
        assert re.search(rf"^    {field.name}: \w+ = \S+  # \S", source, re.MULTILINE), field.name


# --- Digits


def test_digits():
    data = load(DataConfig(), seed=0)
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
    data, again = load(DataConfig(), seed=0), load(DataConfig(), seed=1)
    assert torch.equal(data.train.x, again.train.x)
    assert torch.equal(data.test.label, again.test.label)
    parts = [{image.numpy().tobytes() for image in split.x} for split in (data.train, data.test)]
    assert parts[0].isdisjoint(parts[1])
    assert len(parts[0] | parts[1]) == 1797, "scikit-learn's digits are all different"


@pytest.mark.parametrize("resolution", [16, 32])
def test_digits_can_be_padded_or_resized(resolution):
    small = load(DataConfig(), 0).train.x
    padded = load(DataConfig(resolution=resolution, fit="pad"), 0)
    assert padded.shape == (1, resolution, resolution)
    edge = (resolution - 8) // 2
    assert torch.equal(padded.train.x[:, :, edge : edge + 8, edge : edge + 8], small)
    assert padded.train.x.sum() == small.sum(), "the borders are black"
    resized = load(DataConfig(resolution=resolution, fit="crop"), 0)
    assert resized.train.x.shape == (1347, 1, resolution, resolution)
    assert abs(resized.train.x.float().mean() - small.float().mean()) < 3


# --- Points


@pytest.mark.parametrize(("name", "K", "sigma"), [("ring", 8, 0.01), ("grid", 25, 0.05)])
def test_points(name, K, sigma):
    data = load(DataConfig(name), seed=3)
    assert (data.shape, data.classes, data.modes.sigma) == ((2,), K, sigma)
    assert data.modes.centres.shape == (K, 2)
    assert (len(data.train), len(data.test)) == (100_000, 10_000)
    for split in (data.train, data.test):
        assert split.x.dtype == torch.float32
        offset = (split.x - data.modes.centres[split.label]) / sigma
        assert offset.norm(dim=1).max() < 6
        assert abs(offset.std() - 1) < 0.02
        count = torch.bincount(split.label, minlength=K)
        assert (count * K / len(split) - 1).abs().max() < 0.2, "all modes, about equally often"
    assert not torch.equal(data.train.x[:10_000], data.test.x)


def test_centres():
    ring, grid = (load(DataConfig(name), 0).modes.centres for name in ("ring", "grid"))
    assert torch.allclose(ring.norm(dim=1), torch.ones(8))
    assert torch.allclose(torch.pdist(ring).min(), torch.tensor(2 * np.sin(np.pi / 8), dtype=torch.float32))
    assert {tuple(c) for c in grid.tolist()} == {(a, b) for a in range(-4, 5, 2) for b in range(-4, 5, 2)}


@pytest.mark.parametrize("name", ["ring", "grid"])
def test_points_are_a_function_of_the_seed_alone(name):
    one, same, other = (load(DataConfig(name, resolution=r), s).train for r, s in ((8, 0), (64, 0), (8, 1)))
    assert torch.equal(one.x, same.x)
    assert torch.equal(one.label, same.label)
    assert not torch.equal(one.x, other.x)


# --- Folders and zips


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_image_files_are_read_in_order_pixel_for_pixel(store, mode):
    images = {name: picture(i, mode=mode) for i, name in enumerate(NAMES)}
    config = store({name: png(image) for name, image in images.items()} | {"notes.txt": b"no image", ".b.png": b"junk"})
    data = load(config, 0)
    assert data.shape == (len(mode), 16, 16)
    assert data.test is None
    assert isinstance(data.train, Resident)
    assert data.train.x.dtype == torch.uint8
    assert torch.equal(data.train.x, torch.stack([pixels(images[name]) for name in SORTED]))


@pytest.mark.parametrize("how", ["exact", "pad", "crop"])
def test_streamed_equals_resident(store, how):
    size = (16, 16) if how == "exact" else (24, 20)
    config = store({name: png(picture(i, size)) for i, name in enumerate(NAMES)}, fit=how)
    config.resolution = 32 if how == "pad" else 16
    resident = load(config, 0).train
    streamed = load(dataclasses.replace(config, resident_gib=0), 0).train
    assert isinstance(streamed, Streamed)
    assert len(streamed) == len(resident) == 4
    assert torch.equal(torch.stack([streamed[i] for i in range(4)]), resident.x)
    assert (streamed.label is None) == (resident.label is None)
    assert torch.equal(torch.stack([pickle.loads(pickle.dumps(streamed))[i] for i in range(4)]), resident.x)


def test_size_decides_between_resident_and_streamed(store):
    config = store({name: png(picture(i)) for i, name in enumerate(NAMES)})
    need = 4 * 3 * 16 * 16 / 2**30
    assert isinstance(load(dataclasses.replace(config, resident_gib=need), 0).train, Resident)
    assert isinstance(load(dataclasses.replace(config, resident_gib=need * 0.999), 0).train, Streamed)


def test_forked_loader_workers_stream_the_same_pixels(store):
    files = {f"{i:03d}.png": png(picture(i, (64, 64))) for i in range(100)}
    streamed = load(store(files, resident_gib=0, resolution=64), 0).train
    expected = torch.stack([streamed[i] for i in range(100)])  # opens the zip here, before the workers are forked
    loader = DataLoader(streamed, batch_size=1, num_workers=2, multiprocessing_context="fork")
    for _ in range(2):
        assert torch.equal(torch.cat(list(loader)), expected)


def test_loader_workers_return_errors_as_values(store):
    files = {"0.png": png(picture(0)), "1.png": b"junk", "2.png": png(picture(2))[:300]}
    streamed = load(store(files, resident_gib=0), 0).train
    items = list(DataLoader(streamed, batch_size=None, num_workers=2))
    assert isinstance(items[0], torch.Tensor)
    for item, name in zip(items[1:], ("1.png", "2.png"), strict=True):
        assert isinstance(item, UserError)
        assert f"'{name}'" in str(item)


def test_sub_folders_name_the_classes(tmp_path):
    for i, name in enumerate(("dog/1.png", "cat/x/0.PNG", "cat/9.png")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(png(picture(i)))
    data = load(DataConfig("folder", str(tmp_path), resolution=16), 0)
    assert data.classes == 2
    assert data.train.label.tolist() == [0, 0, 1]
    (tmp_path / "stray.png").write_bytes(png(picture(3)))
    data = load(DataConfig("folder", str(tmp_path), resolution=16), 0)
    assert data.classes == 0
    assert data.train.label is None
    assert len(data.train) == 4


def test_linked_class_folders_are_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "0.png").write_bytes(png(picture(0)))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "link").symlink_to(tmp_path / "elsewhere")
    assert len(load(DataConfig("folder", str(tmp_path / "set"), resolution=16), 0).train) == 1


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "webp", "bmp", "PNG"])
def test_formats(tmp_path, suffix):
    Image.new("RGB", (16, 16), (200, 40, 90)).save(tmp_path / f"0.{suffix}")
    x = load(DataConfig("folder", str(tmp_path), resolution=16), 0).train.x
    assert (x[0].float() - torch.tensor([200.0, 40.0, 90.0]).view(3, 1, 1)).abs().max() < 6


def test_zip_labels(tmp_path):
    data = load(write_zip(tmp_path / "a.zip", list(LABELS.items())), 0)
    assert data.classes == 4
    assert data.train.label.tolist() == [LABELS[name] for name in SORTED]
    streamed = load(DataConfig("zip", str(tmp_path / "a.zip"), resolution=16, resident_gib=0), 0).train
    assert torch.equal(streamed.label, data.train.label)
    data = load(write_zip(tmp_path / "b.zip", None), 0)
    assert data.classes == 0
    assert data.train.label is None


def test_gray_images_become_colour_in_a_colour_set(store):
    images = [picture(i, mode=mode) for i, mode in enumerate(("RGB", "L", "RGBA"))]
    x = load(store({f"{i}.png": png(image) for i, image in enumerate(images)}), 0).train.x
    assert torch.equal(x[1], pixels(images[1]).expand(3, 16, 16))
    assert torch.equal(x[2], pixels(images[2])[:3]), "alpha is dropped"


def test_gray_modes_are_one_channel(store):
    images = [picture(0, mode="L").convert("1"), picture(1, mode="L").convert("LA"), picture(2, mode="L")]
    data = load(store({f"{i}.png": png(image) for i, image in enumerate(images)}), 0)
    assert data.shape == (1, 16, 16)
    assert set(data.train.x[0].unique().tolist()) == {0, 255}
    assert torch.equal(data.train.x[1], pixels(picture(1, mode="L")))


def test_photographs_are_turned_upright(store):
    image = picture(0)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    x = load(store({"0.png": png(image, exif=exif), "1.png": png(image, exif=b"junk")}), 0).train.x
    assert torch.equal(x[0], pixels(image.transpose(Image.Transpose.ROTATE_270)))
    assert torch.equal(x[1], pixels(image)), "unreadable EXIF data turn nothing"


def test_crop_takes_the_centre_and_smooths(store):
    wide = Image.new("RGB", (96, 32), (255, 0, 0))
    wide.paste((0, 0, 255), (32, 0, 64, 32))
    stripes = Image.fromarray(np.tile(np.array([0, 255], dtype=np.uint8), (64, 32)))
    x = load(store({"0.png": png(wide), "1.png": png(stripes)}, fit="crop"), 0).train.x
    assert torch.equal(x[0], torch.tensor([0, 0, 255], dtype=torch.uint8).view(3, 1, 1).expand(3, 16, 16))
    assert (x[1, :, :, 2:-2].float() - 127.5).abs().max() < 3, "antialiased: no stripe survives"


# --- What folders and zips refuse


def test_missing_or_wrong_kind_of_root(tmp_path):
    gone = str(tmp_path / "gone")
    for name in ("folder", "zip"):
        assert gone in refusal(DataConfig(name, gone))
    assert "data.name=folder" in refusal(DataConfig("zip", str(tmp_path)))
    config = write_zip(tmp_path / "a.zip", None)
    assert "data.name=zip" in refusal(dataclasses.replace(config, name="folder"))
    (tmp_path / "a.txt").write_text("no zip")
    assert "is a file" in refusal(DataConfig("folder", str(tmp_path / "a.txt")))
    assert "a.txt" in refusal(DataConfig("zip", str(tmp_path / "a.txt")))


def test_incomplete_zip(tmp_path):
    write_zip(tmp_path / "a.zip", None)
    whole = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "part.zip").write_bytes(whole[: len(whole) // 2])
    message = refusal(DataConfig("zip", str(tmp_path / "part.zip")))
    assert "part.zip" in message
    assert "complete" in message


def test_no_images(store):
    config = store({"readme.txt": b"", "._0.png": b"junk", "__MACOSX/0.png": b"junk"})
    assert config.root in refusal(config)


@pytest.mark.parametrize("content", [b"", b"junk", png(picture(1))[:300], png(picture(1))[:40]])
@pytest.mark.parametrize("name", ["0.png", "7.png"])
def test_unreadable_and_truncated_images_are_named(store, content, name):
    config = store({"0.png": png(picture(0)), "5.png": png(picture(5)), "7.png": png(picture(7)), name: content})
    message = refusal(config)
    assert f"'{name}'" in message
    assert config.root in message
    assert "object at" not in message


def test_truncated_jpeg_is_named(tmp_path):
    picture(0).save(tmp_path / "0.jpg")
    (tmp_path / "1.jpg").write_bytes((tmp_path / "0.jpg").read_bytes()[:-200])
    assert "'1.jpg'" in refusal(DataConfig("folder", str(tmp_path), resolution=16))


def test_damaged_zip_entry_is_named(tmp_path):
    config = write_zip(tmp_path / "a.zip", None)
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[content.index(b"IDAT", content.index(b"a/10.png")) + 20] ^= 255
    (tmp_path / "a.zip").write_bytes(content)
    assert "'a/10.png'" in refusal(config)


def test_mixed_sizes_name_the_first_that_differs(store):
    sizes = [(16, 16), (16, 16), (12, 12), (40, 30)]
    config = store({f"{i}.png": png(picture(i, size)) for i, size in enumerate(sizes)})
    message = refusal(config)
    for part in ("'2.png'", "12x12", "16x16", "data.fit=crop", "data.fit=pad", "data.resolution=12"):
        assert part in message
    message = refusal(dataclasses.replace(config, fit="pad"))
    for part in ("'3.png'", "40x30", "at most 16x16", "data.fit=crop", "data.resolution=40"):
        assert part in message
    assert len(load(dataclasses.replace(config, fit="crop"), 0).train) == 4
    assert len(load(dataclasses.replace(config, fit="pad", resolution=40), 0).train) == 4


def test_remedies_are_only_those_that_help(store):
    message = refusal(store({"0.png": png(picture(0, (40, 30)))}))
    assert "40x30" in message
    assert "data.fit=crop" in message
    assert "data.fit=pad" not in message
    assert "data.resolution" not in message


def test_colour_in_a_gray_set_is_named(store):
    config = store({"0.png": png(picture(0, mode="L")), "1.png": png(picture(1))})
    assert "'1.png'" in refusal(config)
    error = load(dataclasses.replace(config, resident_gib=0), 0).train[1]
    assert isinstance(error, UserError)


def test_sixteen_bit_images_are_named(store):
    deep = png(Image.fromarray(np.full((16, 16), 4000, dtype=np.uint16)))
    assert "'1.png'" in refusal(store({"0.png": png(picture(0, mode="L")), "1.png": deep}))


@pytest.mark.parametrize(
    ("labels", "part"),
    [
        ([("a/1.png", 0), ("a/10.png", 1), ("b/2.png", 0)], "'c.d/0.png'"),
        ([*LABELS.items(), ("b/2.png", [0, 1, 0])], "'b/2.png'"),
        ([*LABELS.items(), ("b/2.png", 0.5)], "'b/2.png'"),
        ([*LABELS.items(), ("b/2.png", True)], "'b/2.png'"),
        ([*LABELS.items(), ("b/2.png", -1)], "'b/2.png'"),
        ([*LABELS.items(), ("b/2.png", None)], "'b/2.png'"),
        ([3, 0, 1, 2], "[["),
        ("{not json", "line 1"),
        ("[]", "[["),
        ("{}", "no 'labels'"),
    ],
)
def test_unusable_zip_labels(tmp_path, labels, part):
    message = refusal(write_zip(tmp_path / "a.zip", labels))
    assert part in message
    assert "dataset.json" in message
    assert str(tmp_path / "a.zip") in message


# --- Torchvision's sets


def write_idx(path: Path, array: np.ndarray) -> None:
    """MNIST's own format: a magic number with the type (8: uint8) and the rank, the sizes, the bytes."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


@pytest.fixture
def mnist(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for seed, (split, n) in enumerate((("train", 30), ("t10k", 20))):
        x = np.random.default_rng(seed).integers(0, 256, (n, 28, 28))
        write_idx(raw / f"{split}-images-idx3-ubyte", x)
        write_idx(raw / f"{split}-labels-idx1-ubyte", np.arange(n) % 10)
    return DataConfig("mnist", str(tmp_path), resolution=28)


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
    monkeypatch.setattr(datasets, "STACKS", 50)
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
    monkeypatch.setattr(datasets, "STACKS", 50)
    config = dataclasses.replace(mnist, name="stacked_mnist")
    one, again, other = (load(config, seed).train for seed in (0, 0, 1))
    assert torch.equal(one.x, again.x)
    assert torch.equal(one.label, again.label)
    assert not torch.equal(one.label, other.label)
    monkeypatch.setattr(datasets, "STACKS", 20)
    assert torch.equal(load(config, 0).train.label, one.label[:20])  # of the index, not of how many there are


def test_mnist_of_another_size_names_the_remedy(mnist):
    message = refusal(dataclasses.replace(mnist, resolution=32))
    for part in ("mnist", "28x28", "32x32", "data.fit=pad", "data.resolution=28"):
        assert part in message


@pytest.mark.parametrize(
    ("name", "where"),
    [("mnist", "MNIST/raw"), ("fashion_mnist", "FashionMNIST/raw"), ("cifar10", "cifar-10-batches-py")],
)
def test_missing_torchvision_set(tmp_path, name, where):
    message = refusal(DataConfig(name, str(tmp_path)))
    assert str(tmp_path / where) in message
    assert "data.download=true" in message
    (tmp_path / where).mkdir(parents=True)  # as a download that was cut off leaves it
    message = refusal(DataConfig(name, str(tmp_path)))
    assert str(tmp_path / where) in message
    assert "data.download=true" in message


@pytest.mark.parametrize("keep", [0, 3, 10, 2000])
@pytest.mark.parametrize("split", ["train", "t10k"])
@pytest.mark.parametrize("what", ["images-idx3-ubyte", "labels-idx1-ubyte"])
def test_truncated_mnist(mnist, split, what, keep):
    path = Path(mnist.root) / "MNIST" / "raw" / f"{split}-{what}"
    content = path.read_bytes()
    path.write_bytes(content[: min(keep, len(content) - 1)])
    message = refusal(mnist)
    assert str(path.parent) in message
    assert ("training" if split == "train" else "test") in message


def test_labels_that_are_not_as_many_as_images(mnist):
    write_idx(Path(mnist.root) / "MNIST" / "raw" / "train-labels-idx1-ubyte", np.zeros(29))
    assert "30 images but 29 labels" in refusal(mnist)


def test_failed_download(tmp_path, monkeypatch):
    def download(self):
        raise RuntimeError("Error downloading train-images:\nTried a mirror, got:\n<no network>\n")

    monkeypatch.setattr(torchvision_datasets.MNIST, "download", download)
    assert "Error downloading train-images" in refusal(DataConfig("mnist", str(tmp_path), download=True, resolution=28))


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
    config = DataConfig("cifar10", str(tmp_path), resolution=32)
    data = load(config, 0)
    assert (data.shape, data.classes, len(data.train), len(data.test)) == ((3, 32, 32), 10, 10, 2)
    assert torch.equal(data.train.x, torch.from_numpy(rows[:10].reshape(10, 3, 32, 32)))
    assert data.train.x.is_contiguous()
    assert data.train.label.tolist() == [0, 9, 1, 9, 2, 9, 3, 9, 4, 9]
    assert load(dataclasses.replace(config, resolution=16, fit="crop"), 0).shape == (3, 16, 16)
    (batches / "test_batch").write_bytes(pickle.dumps({"data": rows[:1]})[:50])
    assert str(batches) in refusal(config)


# --- The config


def test_unknown_names_get_a_hint():
    assert "did you mean 'digits'" in refusal(DataConfig("digit"))
    message = refusal(DataConfig(fit="padd"))
    assert "data.fit" in message
    assert "'pad'" in message
    assert "data.resolution=0" in refusal(DataConfig(resolution=0))
