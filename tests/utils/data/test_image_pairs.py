"""Pairs of image sets: what each side holds, and what is refused, in a sentence that names it."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from tests.utils.data.helpers import bytes_of, check_labelled, refused_pair, write_idx
from utils.data import datasets
from utils.data.domains import load
from utils.data.fitting import Images
from utils.data.image_pairs import DigitCameras, ImagePair
from utils.data.image_sets import GARMENTS, IMAGE_SETS, OBJECTS, TorchvisionSet
from utils.data.photographs import blend
from utils.data.samples import DataSet, Resident

# --- Digits on photographs


@pytest.mark.parametrize("resolution", [8, 12])
def test_digit_patches(resolution):
    data = load(Images("digit_patches", resolution=resolution), 0)
    assert (data.shape, data.class_names) == ((3, resolution, resolution), tuple("0123456789"))
    check_labelled(data.train, 1347, data.shape)
    check_labelled(data.validation, 450, data.shape)
    check_labelled(data.oracle, 450, data.shape)
    assert (len(data.target), data.target.label) == (1347, None)
    assert torch.equal(data.oracle.label, data.validation.label), "the same digits as the source's"
    assert torch.equal(data.train.x[:, 0], data.train.x[:, 2]), "gray"
    assert not torch.equal(data.target.x[:, 0], data.target.x[:, 2]), "photographs have colours"


def test_the_target_is_the_source_blended_with_the_photographs():
    data = load(Images("digit_patches"), 5)
    photos = [torch.tensor(image).permute(2, 0, 1) for image in load_sample_images().images]
    assert torch.equal(data.target.x, blend(data.train.x[:, :1], photos, 5, "train"))
    assert torch.equal(data.oracle.x, blend(data.validation.x[:, :1], photos, 5, "test"))


def test_blend_is_the_difference_of_digit_and_patch():
    """On black it shows the patches themselves, which must lie in the photographs."""
    draw = torch.Generator().manual_seed(0)
    photos = [torch.randint(256, (3, h, w), generator=draw, dtype=torch.uint8) for h, w in ((9, 12), (10, 8))]
    x = torch.randint(256, (20, 1, 8, 8), generator=draw, dtype=torch.uint8)
    patches = blend(torch.zeros_like(x), photos, 0)
    places = {p.unfold(1, 8, 1).unfold(2, 8, 1)[:, v, u].numpy().tobytes()
              for p in photos for v in range(p.shape[1] - 7) for u in range(p.shape[2] - 7)}  # fmt: skip
    shown = {patch.numpy().tobytes() for patch in patches}
    assert shown <= places
    assert len(shown) > 5, "random places"
    by_hand = np.abs(patches.numpy().astype(int) - x.numpy().astype(int))
    assert (blend(x, photos, 0).numpy() == by_hand).all()


def test_blend_is_the_same_for_the_same_names_alone():
    photos = [torch.randint(256, (3, 30, 30), dtype=torch.uint8)]
    x = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    assert torch.equal(blend(x, photos, 0, "train"), blend(x, photos, 0, "train"))
    assert not torch.equal(blend(x, photos, 0, "train"), blend(x, photos, 1, "train"))
    assert not torch.equal(blend(x, photos, 0, "train"), blend(x, photos, 0, "test"))


def test_digit_cameras():
    data, same, other = (load(DigitCameras("digit_cameras"), seed) for seed in (0, 0, 1))
    assert (data.shape, data.classes, data.sides) == ((3, 8, 8), 10, ("four rooms", "a fifth room"))
    assert data.attribute_names == ("room 1", "room 2", "room 3", "room 4")
    for samples, n in ((data.train, 1347), (data.validation, 450)):
        check_labelled(samples, n, (3, 8, 8))
        assert samples.attribute.dtype == torch.int64
        # 5 standard deviations of a binomial share of 1/4 over 450
        assert (torch.bincount(samples.attribute, minlength=4) / n - 0.25).abs().max() < 0.1
    check_labelled(data.oracle, 450, (3, 8, 8))
    assert data.target.label is None
    assert torch.equal(data.train.x, same.train.x)
    assert torch.equal(data.train.attribute, same.train.attribute)
    assert not torch.equal(data.train.attribute, other.train.attribute)


def test_the_fifth_room_is_seen_nowhere_in_the_source():
    """Rooms differ by their camera's colours: mean colours of the rooms are far apart, the target's from all others."""
    data = load(DigitCameras("digit_cameras"), 0)
    rooms = [data.train.x[data.train.attribute == i] for i in range(4)] + [data.oracle.x]
    colours = torch.stack([room.float().mean((0, 2, 3)) for room in rooms])
    assert torch.pdist(colours).min() > 5  # gray levels; two halves of one room differ by about 1
    assert bytes_of(data.train).isdisjoint(bytes_of(data.oracle))


def test_digits_larger_than_the_walls_are_refused():
    """A wall is a fifth of a photograph of 640x427 pixels: 128 wide."""
    assert "data.resolution=129" in refused_pair(DigitCameras("digit_cameras", resolution=129))


# --- Any two image sets


@pytest.fixture
def sets(miniatures) -> ImagePair:
    return ImagePair(
        "images", root=str(miniatures), source="mnist", target="usps", photos=str(miniatures / "photos"),
        resolution=28, fit="crop",
    )  # fmt: skip


def test_two_gray_sets_stay_gray(sets):
    data = load(sets, 0)
    assert (data.shape, data.sides, data.class_names) == ((1, 28, 28), ("mnist", "usps"), tuple("0123456789"))
    check_labelled(data.train, 30, (1, 28, 28))
    check_labelled(data.validation, 20, (1, 28, 28))
    check_labelled(data.oracle, 10, (1, 28, 28))
    assert data.target.x.shape == (20, 1, 28, 28)
    assert data.target.label is None
    assert data.oracle.label.tolist() == list(range(10)), "USPS counts classes from 1"


@pytest.mark.parametrize(("source", "target"), [("svhn", "mnist"), ("mnist", "svhn")])
def test_a_gray_set_becomes_colour_if_the_other_is_coloured(sets, source, target):
    data = load(dataclasses.replace(sets, source=source, target=target), 0)
    assert data.shape == (3, 28, 28)
    gray = data.train if source == "mnist" else data.target
    assert torch.equal(gray.x[:, 0], gray.x[:, 1])
    assert torch.equal(gray.x[:, 0], load(sets, 0).train.x[:, 0])
    coloured = data.train if source == "svhn" else data.oracle
    assert set(coloured.label.tolist()) == set(range(10)), "SVHN calls its zeros 10"


def test_mnist_m_is_mnist_on_photographs(sets):
    data = load(dataclasses.replace(sets, target="mnist_m"), 0)
    assert (data.shape, data.sides) == ((3, 28, 28), ("mnist", "mnist_m"))
    photo = torch.tensor(np.array(Image.open(Path(sets.photos) / "wall.png"))).permute(2, 0, 1)
    assert torch.equal(data.target.x, blend(data.train.x[:, :1], [photo], 0, "train"))
    assert data.oracle.label.tolist() == data.validation.label.tolist()


def test_missing_sets_are_named_with_a_remedy(sets, tmp_path):
    for name, where in (("mnist", "MNIST/raw"), ("usps", "USPS"), ("svhn", "SVHN")):
        message = refused_pair(dataclasses.replace(sets, source=name, root=str(tmp_path / "gone")))
        for part in (name, str(tmp_path / "gone" / where), "data.root", "data.download=true"):
            assert part in message


def test_labels_that_are_not_as_many_as_images(sets):
    write_idx(Path(sets.root) / "MNIST/raw/train-labels-idx1-ubyte", np.zeros(29))
    assert "mnist" in refused_pair(sets)


def test_photographs_must_be_there_and_large_enough(sets, tmp_path):
    config = dataclasses.replace(sets, target="mnist_m")
    assert "data.photos=''" in refused_pair(dataclasses.replace(config, photos=""))
    gone = str(tmp_path / "gone")
    assert f"data.photos='{gone}'" in refused_pair(dataclasses.replace(config, photos=gone))
    (tmp_path / "empty").mkdir()
    assert str(tmp_path / "empty") in refused_pair(dataclasses.replace(config, photos=str(tmp_path / "empty")))
    message = refused_pair(dataclasses.replace(config, resolution=48))
    for part in ("'wall.png'", config.photos, "data.resolution=48"):
        assert part in message


PAIRS = [
    pair for pair in itertools.permutations(IMAGE_SETS, 2) if not {*pair} & {"cifar10", "cifar100", "fashion_mnist"}
]


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_every_two_sets_of_digits_are_a_pair(sets, source, target):
    """Each side holds the bytes that a GAN would train on, whatever the other side is."""
    config = dataclasses.replace(sets, source=source, target=target)
    data = load(config, 0)
    ours, theirs = (datasets.load(dataclasses.replace(config, name=name), 0) for name in (source, target))
    assert data.sides == (source, target)
    assert data.shape == (max(ours.shape[0], theirs.shape[0]), 28, 28)
    for samples, split in ((data.train, ours.train), (data.validation, ours.test), (data.oracle, theirs.test)):
        assert torch.equal(samples.x, split.x.expand(-1, data.shape[0], -1, -1))
        assert torch.equal(samples.label, split.label)
    assert torch.equal(data.target.x, theirs.train.x.expand(-1, data.shape[0], -1, -1))


@pytest.mark.parametrize(("source", "target"), [("digits", "cifar10"), ("fashion_mnist", "digits")])
def test_sets_of_other_classes_are_no_pair(sets, monkeypatch, source, target):
    for name in ("cifar10", "fashion_mnist"):
        monkeypatch.setitem(IMAGE_SETS, name, stand_in(name))
    message = refused_pair(dataclasses.replace(sets, source=source, target=target))
    assert f"The classes of '{source}' and '{target}' differ" in message
    assert "'digits' lacks " in message


def stand_in(name: str):
    """A set with the class names of another, whose files tests do not have."""
    names = {"cifar10": OBJECTS, "fashion_mnist": GARMENTS}[name]

    def read(config: TorchvisionSet, seed: int) -> DataSet:
        split = Resident(torch.zeros(10, 3, 28, 28, dtype=torch.uint8), torch.arange(10))
        return DataSet(name, (3, 28, 28), 10, split, split, class_names=names)

    return read


def test_unknown_sets_get_a_hint(sets):
    for key, name, close in (("source", "mnst", "mnist"), ("target", "svnh", "svhn")):
        message = refused_pair(dataclasses.replace(sets, **{key: name}))
        assert f"data.{key} '{name}' is unknown; did you mean '{close}'" in message
    assert "did you mean 'moons'" in refused_pair(dataclasses.replace(sets, name="moon"))
