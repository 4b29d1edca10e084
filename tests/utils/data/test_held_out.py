"""The split of own images into what is trained on and what a generator is measured on."""

import dataclasses
from pathlib import Path

import pytest
import torch
from PIL import Image

from utils.data import held_out
from utils.data.datasets import load
from utils.data.image_files import OwnImages
from utils.data.samples import Resident, Streamed


@pytest.mark.parametrize(
    ("count", "share", "held"),
    [(10_000, 0.05, 500), (1000, 0.05, 50), (600, 0.05, 50), (500, 0.05, 50), (200, 0.05, 20), (200, 0.3, 60),
     (20, 0.05, 2), (19, 0.05, 0), (1, 0.05, 0), (1000, 0.0, 0)],
)  # fmt: skip
def test_how_many_are_held_out(count, share, held):
    train, test = held_out.at_random(count, None, share)
    assert len(test) == held
    assert torch.cat([train, test]).sort().values.tolist() == list(range(count))


def test_classes_are_held_out_in_proportion_and_a_single_image_is_not():
    label = torch.tensor([0] * 600 + [1] * 300 + [2] * 99 + [3])
    _, test = held_out.at_random(1000, label, 0.1)
    count = torch.bincount(label[test], minlength=4).tolist()
    assert [abs(got - want) <= 1 for got, want in zip(count[:3], (60, 30, 10), strict=True)] == [True] * 3
    assert count[3] == 0
    assert len(held_out.at_random(30, torch.arange(30), 0.1)[1]) == 0


def test_the_split_is_mixed():
    _, test = held_out.at_random(1000, None, 0.05)
    assert len(test.diff().unique()) > 5


def write(root: Path, *folders: str, count: int = 4) -> OwnImages:
    """Images of one gray each, all different."""
    for k, folder in enumerate(folders):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.new("L", (8, 8), k * count + i).save(root / folder / f"{i}.png")
    return OwnImages("folder", root=str(root))


def grays(samples: Resident) -> list[int]:
    return samples.x[:, 0, 0, 0].tolist()


def test_a_folder_gets_a_held_out_split_that_is_the_same_for_every_seed(tmp_path):
    config = write(tmp_path, "a", "b", count=20)
    data, again = load(config, 0), load(config, 1)
    assert (len(data.train), len(data.test)) == (36, 4)
    assert sorted(grays(data.train) + grays(data.test)) == list(range(40))
    assert grays(data.test) == grays(again.test)
    assert data.test.label.tolist() == [gray // 20 for gray in grays(data.test)] == [0, 0, 1, 1]
    assert "Held out: 4 images (data.validation=0.05), the same for every seed." in data.notes
    streamed = load(dataclasses.replace(config, resident_gib=0), 0)
    assert isinstance(streamed.test, Streamed)
    assert torch.equal(torch.stack([streamed.test[i] for i in range(4)]), data.test.x)
    none = load(dataclasses.replace(config, validation=0), 0)
    assert (len(none.train), none.test) == (40, None)
    assert "Nothing is held out: data.validation is 0, of 40 images." in none.notes


@pytest.mark.parametrize("names", [("train", "test"), ("Training", "val"), ("train", "valid", "test")])
def test_folders_called_train_and_test_are_a_split_and_no_classes(tmp_path, names):
    data = load(write(tmp_path, *names), 0)
    assert (data.classes, data.train.label) == (0, None)
    assert grays(data.train) == grays(load(write(tmp_path / "only", names[0]), 0).train) == [0, 1, 2, 3]
    assert len(data.test) == 4 * (len(names) - 1)
    assert any(note.startswith(f"Held out: the {len(data.test)} images") for note in data.notes)


def test_classes_inside_train_and_test(tmp_path):
    data = load(write(tmp_path, "train/cat", "train/dog", "test/dog"), 0)
    assert (data.classes, data.class_names) == (2, ("cat", "dog"))
    assert data.train.label.tolist() == [0] * 4 + [1] * 4
    assert data.test.label.tolist() == [1] * 4


@pytest.mark.parametrize("names", [("train", "cat"), ("train",), ("test", "val"), ("train", ".")])
def test_other_folders_are_no_split(names):
    assert held_out.by_folder([f"{name}/0.png".removeprefix("./") for name in names]) is None
