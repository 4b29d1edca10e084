"""Folders and zips: what is read is what was written; what cannot be used is refused in a sentence that names it."""

import dataclasses
import io
import json
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from tests.utils.data.helpers import picture, pixels, png, refused_set
from utils.data.datasets import load
from utils.data.files import Files
from utils.data.image_files import OwnImages
from utils.data.samples import Resident, Streamed, digest
from utils.errors import UserError

NAMES = ["b/2.png", "a/10.png", "a/1.png", "c.d/0.png"]
SORTED = ["a/1.png", "a/10.png", "b/2.png", "c.d/0.png"]
LABELS = {"a/1.png": 3, "a/10.png": 0, "b/2.png": 3, "c.d/0.png": 1}


@pytest.fixture(params=["folder", "zip"])
def store(request, tmp_path):
    """A function that writes files as a folder or as a zip and returns the config that reads them."""

    def write(files: dict[str, bytes], **options) -> OwnImages:
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
        return OwnImages(**{"name": request.param, "root": str(root), "resolution": 16, **options})

    return write


def write_zip(path: Path, labels) -> OwnImages:
    with zipfile.ZipFile(path, "w") as archive:
        for i, name in enumerate(NAMES):
            archive.writestr(name, png(picture(i)))
        archive.writestr("dataset.json", labels if isinstance(labels, str) else json.dumps({"labels": labels}))
    return OwnImages("zip", root=str(path), resolution=16)


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
    streamed = load(store(files, resident_gib=0, resolution=64, validation=0), 0).train
    expected = torch.stack([streamed[i] for i in range(100)])  # opens the zip here, before the workers are forked
    loader = DataLoader(streamed, batch_size=1, num_workers=2, multiprocessing_context="fork")
    for _ in range(2):
        assert torch.equal(torch.cat(list(loader)), expected)


def test_loader_workers_return_errors_as_values(store):
    files = {"0.png": png(picture(0)), "1.png": png(picture(1))[:200], "2.png": png(picture(2))[:300]}
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
    data = load(OwnImages("folder", root=str(tmp_path), resolution=16), 0)
    assert data.classes == 2
    assert data.train.label.tolist() == [0, 0, 1]
    (tmp_path / "stray.png").write_bytes(png(picture(3)))
    data = load(OwnImages("folder", root=str(tmp_path), resolution=16), 0)
    assert data.classes == 0
    assert data.train.label is None
    assert len(data.train) == 4


def test_linked_class_folders_are_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "0.png").write_bytes(png(picture(0)))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "link").symlink_to(tmp_path / "elsewhere")
    assert len(load(OwnImages("folder", root=str(tmp_path / "set"), resolution=16), 0).train) == 1


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "webp", "bmp", "PNG"])
def test_formats(tmp_path, suffix):
    Image.new("RGB", (16, 16), (200, 40, 90)).save(tmp_path / f"0.{suffix}")
    x = load(OwnImages("folder", root=str(tmp_path), resolution=16), 0).train.x
    assert (x[0].float() - torch.tensor([200.0, 40.0, 90.0]).view(3, 1, 1)).abs().max() < 6


def test_zip_labels(tmp_path):
    data = load(write_zip(tmp_path / "a.zip", list(LABELS.items())), 0)
    assert data.classes == 4
    assert data.train.label.tolist() == [LABELS[name] for name in SORTED]
    streamed = load(OwnImages("zip", root=str(tmp_path / "a.zip"), resolution=16, resident_gib=0), 0).train
    assert torch.equal(streamed.label, data.train.label)
    data = load(write_zip(tmp_path / "b.zip", None), 0)
    assert data.classes == 0
    assert data.train.label is None


def test_gray_images_become_colour_in_a_colour_set(store):
    images = [picture(i, mode=mode) for i, mode in enumerate(("RGB", "L", "RGBA"))]
    x = load(store({f"{i}.png": png(image) for i, image in enumerate(images)}), 0).train.x
    assert torch.equal(x[1], pixels(images[1]).expand(3, 16, 16))
    alpha = pixels(images[2])[3:].double() / 255
    assert torch.equal(x[2], (alpha * pixels(images[2])[:3]).round().to(torch.uint8))


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
        assert gone in refused_set(OwnImages(name, root=gone))
    assert "data.name=folder" in refused_set(OwnImages("zip", root=str(tmp_path)))
    config = write_zip(tmp_path / "a.zip", None)
    assert "data.name=zip" in refused_set(dataclasses.replace(config, name="folder"))
    (tmp_path / "a.txt").write_text("no zip")
    assert "is a file" in refused_set(OwnImages("folder", root=str(tmp_path / "a.txt")))
    assert "a.txt" in refused_set(OwnImages("zip", root=str(tmp_path / "a.txt")))


def test_incomplete_zip(tmp_path):
    write_zip(tmp_path / "a.zip", None)
    whole = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "part.zip").write_bytes(whole[: len(whole) // 2])
    message = refused_set(OwnImages("zip", root=str(tmp_path / "part.zip")))
    assert "part.zip" in message
    assert "complete" in message


def test_no_images(store):
    config = store({"readme.txt": b"", "._0.png": b"junk", "__MACOSX/0.png": b"junk"})
    assert config.root in refused_set(config)


@pytest.mark.parametrize("name", ["0.png", "7.png"])
def test_truncated_images_are_named(store, name):
    content = png(picture(1))[:300]
    config = store({"0.png": png(picture(0)), "5.png": png(picture(5)), "7.png": png(picture(7)), name: content})
    message = refused_set(config)
    assert f"'{name}'" in message
    assert config.root in message
    assert "object at" not in message


def test_truncated_jpeg_is_named(tmp_path):
    picture(0, (64, 64)).save(tmp_path / "0.jpg")
    (tmp_path / "1.jpg").write_bytes((tmp_path / "0.jpg").read_bytes()[:-200])
    assert "'1.jpg'" in refused_set(OwnImages("folder", root=str(tmp_path), resolution=64))


def test_damaged_zip_entry_is_named(tmp_path):
    config = write_zip(tmp_path / "a.zip", None)
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[content.index(b"IDAT", content.index(b"a/10.png")) + 20] ^= 255
    (tmp_path / "a.zip").write_bytes(content)
    assert "'a/10.png'" in refused_set(config)


def test_mixed_sizes_name_the_first_that_differs(store):
    sizes = [(16, 16), (16, 16), (12, 12), (40, 30)]
    config = store({f"{i}.png": png(picture(i, size)) for i, size in enumerate(sizes)})
    message = refused_set(config)
    for part in ("'2.png'", "12x12", "16x16", "data.fit=crop", "data.fit=pad", "data.fit=stretch"):
        assert part in message
    assert "data.resolution" not in message, "no network makes 12x12"
    message = refused_set(dataclasses.replace(config, fit="pad"))
    for part in ("'3.png'", "40x30", "at most 16x16", "data.fit=crop", "data.resolution=64"):
        assert part in message
    assert len(load(dataclasses.replace(config, fit="crop"), 0).train) == 4
    assert len(load(dataclasses.replace(config, fit="pad", resolution=40), 0).train) == 4


def test_remedies_are_only_those_that_help(store):
    message = refused_set(store({"0.png": png(picture(0, (40, 30)))}))
    assert "40x30" in message
    assert "data.fit=crop" in message
    assert "data.fit=pad" not in message
    assert "data.resolution" not in message


def test_one_image_in_colour_makes_a_set_of_gray_ones_one_in_colour(store):
    images = [picture(0, mode="L"), picture(1)]
    data = load(store({f"{i}.png": png(image) for i, image in enumerate(images)}), 0)
    assert data.shape == (3, 16, 16)
    assert torch.equal(data.train.x[0], pixels(images[0]).expand(3, 16, 16))
    assert torch.equal(data.train.x[1], pixels(images[1]))


def test_colour_beyond_the_headers_that_are_looked_at_is_named(store, monkeypatch):
    monkeypatch.setattr("utils.data.survey.LOOKED_AT", 1)
    config = store({"0.png": png(picture(0, mode="L")), "1.png": png(picture(1))}, resident_gib=0)
    error = load(config, 0).train[1]
    assert isinstance(error, UserError)
    assert "'1.png'" in str(error)


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
    message = refused_set(write_zip(tmp_path / "a.zip", labels))
    assert part in message
    assert "dataset.json" in message
    assert str(tmp_path / "a.zip") in message


# --- The digest


def bitmaps(root: Path, seed: int = 0, count: int = 4) -> Path:
    """Images in two classes whose files are all of one size."""
    for i in range(count):
        path = root / str(i % 2) / f"{i}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(seed + i).save(path)
    return root


def digest_of(root: Path, **options) -> str:
    return digest(load(OwnImages("folder", root=str(root), resolution=16, **options), 0).train)


def test_the_digest_of_files_does_not_depend_on_where_and_how_they_are_read(tmp_path):
    want = digest_of(bitmaps(tmp_path / "a"))
    assert digest_of(tmp_path / "a", resident_gib=0) == want
    assert digest_of(shutil.copytree(tmp_path / "a", tmp_path / "b")) == want


CHANGES = {
    "another-image": lambda root: picture(9).save(root / "0/2.bmp"),
    "another-name": lambda root: (root / "0/2.bmp").rename(root / "0/x.bmp"),
    "another-class": lambda root: (root / "0/2.bmp").rename(root / "1/2.bmp"),
    "swapped": lambda root: shutil.move(shutil.move(root / "0/2.bmp", root / "x"), root / "0/4.bmp"),
    "one-more": lambda root: picture(9).save(root / "0/9.bmp"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("gib", [0, 1])
def test_other_files_have_another_digest(tmp_path, change, gib):
    before = digest_of(bitmaps(tmp_path), resident_gib=gib)
    change(tmp_path)
    assert digest_of(tmp_path, resident_gib=gib) != before


def test_the_digest_of_many_files_reads_a_hundred_of_them():
    read = []
    names = [f"{i}.png" for i in range(250_000)]
    files = Files("root", names, lambda root, name: read.append(name) or io.BytesIO(), lambda root, name: len(name))
    assert files.digest() != files._replace(names=names[::-1]).digest()
    assert 90 <= len(read) / 2 <= 101


def test_the_digest_of_a_file_that_is_gone_is_a_sentence(tmp_path):
    data = load(OwnImages("folder", root=str(bitmaps(tmp_path)), resolution=16, resident_gib=0), 0)
    (tmp_path / "0/2.bmp").unlink()
    with pytest.raises(UserError, match=r"'0/2\.bmp' in .* cannot be read"):
        digest(data.train)


def test_the_digest_of_samples_is_that_of_every_value_and_label():
    x, label = torch.arange(12, dtype=torch.uint8).reshape(3, 1, 2, 2), torch.tensor([0, 1, 1])
    want = digest(Resident(x, label))
    assert digest(Resident(x.clone(), label.clone())) == want
    other = x.clone()
    other[2, 0, 1, 1] += 1
    for samples in (
        Resident(other, label), Resident(x, label.flip(0)), Resident(x, None), Resident(x, label, label),
        Resident(x.flatten(1), label), Resident(x.float(), label),
    ):  # fmt: skip
        assert digest(samples) != want
    gray = Resident(x.expand(-1, 3, -1, -1), label)
    assert digest(gray) == digest(Resident(gray.x.contiguous(), label))
    assert digest(gray, Resident(x, None)) != digest(gray, None) == digest(gray)
