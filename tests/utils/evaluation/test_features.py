"""Features of real images: computed once for all runs, by what they are a function of."""

import pytest
import torch

from utils.data.files import folder_files
from utils.data.fitting import ImageFiles
from utils.data.samples import Resident, Streamed
from utils.evaluation.cache import kept
from utils.evaluation.features import features_of, real_features
from utils.evaluation.spaces import Space

CPU = torch.device("cpu")


@pytest.fixture
def seen() -> list[int]:
    """How many images the network was given, one entry a batch."""
    return []


@pytest.fixture
def space(seen) -> Space:
    def read(x):
        seen.append(len(x))
        return x.flatten(1)[:, :5].double(), None

    return Space("pixels", "0" * 64, None, read, CPU)


def images(n: int, seed: int = 0) -> Resident:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, (n, 1, 4, 4), dtype=torch.uint8, generator=draw)
    return Resident(x, torch.arange(n) % 3)


def test_they_are_computed_once(space, seen, tmp_path):
    first = real_features(space, images(30), 100, tmp_path)
    again = real_features(space, images(30), 100, tmp_path)
    assert sum(seen) == 30
    assert torch.equal(first.x, again.x)
    assert torch.equal(first.x, images(30).x.flatten(1)[:, :5].float())
    assert torch.equal(again.label, images(30).label)


def test_other_images_another_network_or_another_number_are_computed(space, seen, tmp_path):
    real_features(space, images(30), 100, tmp_path)
    for changed, samples, count in (
        (space, images(30, 1), 100), (space, images(29), 100), (space, images(30), 20),
        (Space("pixels", "1" * 64, None, space.read, CPU), images(30), 100),
        (Space("pixels", "0" * 64, "to 9 pixels", space.read, CPU), images(30), 100),
    ):  # fmt: skip
        before = sum(seen)
        real_features(changed, samples, count, tmp_path)
        assert sum(seen) - before == min(len(samples), count)


def test_files_are_told_apart_by_how_they_are_fitted(space, seen, tmp_path):
    from PIL import Image

    (tmp_path / "images").mkdir()
    for i in range(3):
        Image.new("L", (8, 6), 50 * i).save(tmp_path / f"images/{i}.png")
    files = folder_files(tmp_path / "images")
    for resolution, fit in ((8, "crop"), (8, "pad"), (9, "pad"), (8, "crop")):
        config = ImageFiles(name="folder", resolution=resolution, fit=fit)
        real_features(space, Streamed(files, None, 1, config), 100, tmp_path / "kept")
    assert sum(seen) == 3 * 3


def test_a_batch_is_no_larger_than_it_must_be(space, seen):
    features_of(space, (images(250).x for _ in range(2)), 500, "images", None)
    assert max(seen) == 100
    assert sum(seen) == 500


def test_a_subset_is_always_the_same():
    one = features_of(Space("", "", None, lambda x: (x.flatten(1), None), CPU), [images(9).x], 9, "", images(9).label)
    assert torch.equal(one.some(4).x, one.some(4).x)
    assert len(one.some(4).x) == len(one.some(4).label) == 4
    assert len(one.some(20).x) == 9


DAMAGE = {
    "cut": lambda content: content[:-3],
    "a bit": lambda content: content[:-2] + bytes([content[-2] ^ 1]) + content[-1:],
    "empty": lambda content: b"",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_computed_again(tmp_path, damage):
    path, computed = tmp_path / "folder/x.safetensors", []

    def compute():
        computed.append(1)
        return {"x": torch.arange(4.0)}

    kept(path, compute)
    path.write_bytes(damage(path.read_bytes()))
    assert torch.equal(kept(path, compute)["x"], torch.arange(4.0))
    assert torch.equal(kept(path, compute)["x"], torch.arange(4.0))
    assert len(computed) == 2
    assert [file.name for file in path.parent.iterdir()] == ["x.safetensors"]


def test_two_that_compute_at_once_have_what_the_quicker_one_kept(tmp_path):
    """On a GPU a classifier trained twice is not the same."""
    path = tmp_path / "x.safetensors"

    def compute():
        kept(path, lambda: {"x": torch.ones(2)})  # another process is quicker
        return {"x": torch.zeros(2)}

    assert torch.equal(kept(path, compute)["x"], torch.ones(2))
    assert torch.equal(kept(path, pytest.fail)["x"], torch.ones(2))
    assert [file.name for file in tmp_path.iterdir()] == ["x.safetensors"]
