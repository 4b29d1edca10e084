"""Folders as domains: what each side holds, and what is refused, in a sentence that names it."""

import dataclasses
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.utils.data.helpers import picture, png, refused_pair
from utils.data.domain_folders import DomainFolders
from utils.data.domains import load
from utils.data.samples import Resident, Streamed


def write_images(root: Path, names: list[str], first: int = 0) -> None:
    """PNGs of one colour each, which is their number: so samples can be told apart."""
    for i, name in enumerate(names, first):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (i, 0, 0)).save(root / name)


def identity(samples: Resident | Streamed) -> list[int]:
    return [int((samples.x if isinstance(samples, Resident) else samples)[i][0, 0, 0]) for i in range(len(samples))]


@pytest.fixture
def folders(tmp_path):
    """Three domains of classes a, B and c: art (0-11), photo (100-111), sketch (200-205); loose (50-52) has none."""
    for domain, first, n in (("art", 0, 4), ("photo", 100, 4), ("sketch", 200, 2)):
        for k, name in enumerate(("c", "a", "B")):
            write_images(tmp_path / domain / name, [f"{i}.png" for i in range(n)], first + k * n)
    write_images(tmp_path / "loose", ["0.png", "1.png", "2.png"], 50)
    return DomainFolders("domain_folders", root=str(tmp_path), source="art", target="sketch", validation=0.25)


@pytest.mark.parametrize("resident_gib", [4.0, 0.0], ids=["resident", "streamed"])
def test_domain_folders(folders, resident_gib):
    data = load(dataclasses.replace(folders, resident_gib=resident_gib), 0)
    assert isinstance(data.train, Resident if resident_gib else Streamed)
    assert (data.sides, data.shape, data.attribute_names) == (("art", "sketch"), (3, 8, 8), ())
    assert data.class_names == ("B", "a", "c"), "sorted as Python sorts, whatever the disk's order"
    for samples in (data.train, data.validation):
        assert [(i // 4) for i in identity(samples)] == [{0: 2, 1: 1, 2: 0}[k] for k in samples.label.tolist()]
    assert identity(data.target) == [204, 205, 202, 203, 200, 201]
    assert data.target.label is None
    assert data.oracle.label.tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("resident_gib", [4.0, 0.0], ids=["resident", "streamed"])
def test_joined_sources_give_attributes(folders, resident_gib):
    data = load(dataclasses.replace(folders, source="photo+art", resident_gib=resident_gib), 0)
    assert data.attribute_names == ("photo", "art")
    seen = identity(data.train) + identity(data.validation)
    assert sorted(seen) == [*range(12), *range(100, 112)]
    attributes = [*data.train.attribute.tolist(), *data.validation.attribute.tolist()]
    assert attributes == [0 if i >= 100 else 1 for i in seen]


def test_the_split_of_the_source_is_stratified_and_without_overlap(folders):
    data, other = load(folders, 0), load(folders, 1)
    assert torch.bincount(data.train.label).tolist() == [3, 3, 3]
    assert torch.bincount(data.validation.label).tolist() == [1, 1, 1]
    assert set(identity(data.train)).isdisjoint(identity(data.validation))
    assert identity(data.validation) == identity(other.validation), "the same for every seed"


def test_a_target_without_class_folders_has_no_oracle(folders):
    data = load(dataclasses.replace(folders, target="loose"), 0)
    assert data.oracle is None
    assert identity(data.target) == [50, 51, 52]
    message = refused_pair(dataclasses.replace(folders, target="loose"), target_only=True)
    assert "game.method=target_only needs labels" in message
    assert "'loose'" in message


def test_a_source_without_labels_is_refused(folders):
    message = refused_pair(dataclasses.replace(folders, source="loose", target="art"))
    assert "'loose' has no labels" in message
    assert "exchange data.source and data.target" in message


def test_a_joined_source_without_labels_is_refused(folders):
    assert "loose" in refused_pair(dataclasses.replace(folders, source="art+loose"))


def test_label_sets_that_differ_are_named(folders):
    write_images(Path(folders.root) / "art" / "only", ["0.png", "1.png"])
    message = refused_pair(dataclasses.replace(folders, source="sketch", target="art"))
    assert "'sketch' lacks only" in message
    assert "'art'" in message
    assert "'photo' lacks only" in refused_pair(dataclasses.replace(folders, source="photo+art", target="sketch"))


def test_a_target_may_have_fewer_classes_than_the_source(folders):
    before = load(folders, 0)
    write_images(Path(folders.root) / "art" / "0 first", ["0.png", "1.png", "2.png", "3.png"])
    data = load(folders, 0)
    assert data.class_names == ("0 first", *before.class_names)
    assert data.oracle.label.tolist() == [label + 1 for label in before.oracle.label.tolist()]


def test_a_class_with_one_image_in_the_source_is_named(folders):
    write_images(Path(folders.root) / "art" / "only", ["0.png"])
    assert "one sample of the class 'only'" in refused_pair(folders)


def test_an_unreadable_image_of_the_target_is_named(folders):
    path = Path(folders.root) / "sketch/a/1.png"
    path.write_bytes(png(picture(0, (8, 8)))[:150])
    message = refused_pair(folders)
    assert "'a/1.png'" in message
    assert "replace or remove it" in message
    path.write_bytes(b"junk")
    data = load(folders, 0)
    assert len(data.target) == 5
    assert "Left out, for they cannot be read as images: 'a/1.png'." in data.notes


def test_unknown_domains_name_those_that_are_there(folders, tmp_path):
    message = refused_pair(dataclasses.replace(folders, target="sketsch"))
    assert "data.target" in message
    assert "did you mean 'sketch'" in message
    assert "data.source" in refused_pair(dataclasses.replace(folders, source="art+phoro"))
    gone = str(tmp_path / "gone")
    assert gone in refused_pair(dataclasses.replace(folders, root=gone))


@pytest.mark.parametrize("validation", [0.0, 1.0, -0.5, 2.0])
def test_share_of_validation_out_of_range(folders, validation):
    message = refused_pair(dataclasses.replace(folders, validation=validation))
    assert f"data.validation is {validation}" in message
    assert "between 0 and 1" in message


@pytest.mark.parametrize("validation", [0.1, 0.95])
def test_share_of_validation_that_leaves_a_class_out(folders, validation):
    message = refused_pair(dataclasses.replace(folders, validation=validation))
    assert "'art'" in message
    assert f"data.validation={validation}" in message


@pytest.mark.parametrize("wrong", [{"fit": "padd", "resolution": 10}, {"resolution": 0}])
def test_unknown_fit_and_no_resolution(folders, wrong):
    assert "data." in refused_pair(dataclasses.replace(folders, **wrong))
