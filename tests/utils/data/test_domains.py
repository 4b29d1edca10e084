"""Pairs of domains: what games of domains train on, and what is refused, in a sentence that names it."""

import bz2
import cmath
import dataclasses
import gzip
import math
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image
from sklearn.datasets import load_sample_images, make_moons
from torchvision import datasets as torchvision_datasets

from tests.utils.data.test_datasets import write_idx
from utils.data import domains
from utils.data.datasets import DataConfig, Resident, Streamed
from utils.data.domains import blend, load
from utils.errors import UserError


def refusal(config: DataConfig, target_only: bool = False) -> str:
    with pytest.raises(UserError) as caught:
        load(config, 0, target_only)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    assert not re.search(r"\.\s", message), "one sentence"
    return message


def bytes_of(samples: Resident) -> set[bytes]:
    return {x.numpy().tobytes() for x in samples.x}


def check_labelled(samples: Resident, n: int, shape: tuple[int, ...], dtype: torch.dtype = torch.uint8) -> None:
    assert samples.x.shape == (n, *shape)
    assert samples.x.dtype == dtype
    assert samples.label.shape == (n,)
    assert samples.label.dtype == torch.int64


# --- Moons


def test_moons():
    data = load(DataConfig("moons"), 0)
    assert (data.name, data.sides, data.shape) == ("moons", ("moons", "turned moons"), (2,))
    assert (data.classes, data.class_names, data.attribute_names) == (2, ("upper", "lower"), ())
    for samples, n in ((data.train, 300), (data.validation, 300), (data.oracle, 2000)):
        check_labelled(samples, n, (2,), torch.float32)
        assert torch.bincount(samples.label).tolist() == [n // 2, n // 2]
    assert data.target.x.shape == (300, 2)
    assert data.target.label is None


def test_the_target_is_the_source_turned_by_35_degrees(monkeypatch):
    """With the same points drawn for both, each is the other times e^(i 35°) in the complex plane."""
    monkeypatch.setattr(domains, "make_moons", lambda n, noise, random_state: make_moons(n, random_state=0))
    data = load(DataConfig("moons"), 0)
    turned = torch.view_as_complex(data.train.x) * cmath.exp(1j * math.radians(35))
    # 1e-5: float32 coordinates below 4
    assert (torch.view_as_complex(data.target.x) - turned).abs().max() < 1e-5
    assert data.train.x.mean(0).abs().max() < 0.01, "turned about the moons' common centre"


def test_moons_are_a_function_of_the_seed_and_no_split_repeats_another():
    one, same, other = (load(DataConfig("moons"), seed) for seed in (3, 3, 4))
    for part in ("train", "validation", "target", "oracle"):
        assert torch.equal(getattr(one, part).x, getattr(same, part).x)
        assert not torch.equal(getattr(one, part).x, getattr(other, part).x)
    parts = [bytes_of(part) for part in (one.train, one.validation, one.target, one.oracle)]
    assert len(set.union(*parts)) == 300 + 300 + 300 + 2000


def test_only_the_upper_bound_trains_on_the_target():
    data, bound = load(DataConfig("moons"), 0), load(DataConfig("moons"), 0, target_only=True)
    assert torch.equal(bound.train.x, data.target.x)
    assert torch.equal(bound.validation.x, data.oracle.x)
    assert not torch.equal(data.train.x, data.target.x)
    assert bound.train.label is not None
    assert bound.target.label is None
    assert bound.sides == ("turned moons", "turned moons")


# --- Digits on photographs


@pytest.mark.parametrize("resolution", [8, 12])
def test_digit_patches(resolution):
    data = load(DataConfig("digit_patches", resolution=resolution), 0)
    assert (data.shape, data.class_names) == ((3, resolution, resolution), tuple("0123456789"))
    check_labelled(data.train, 1347, data.shape)
    check_labelled(data.validation, 450, data.shape)
    check_labelled(data.oracle, 450, data.shape)
    assert (len(data.target), data.target.label) == (1347, None)
    assert torch.equal(data.oracle.label, data.validation.label), "the same digits as the source's"
    assert torch.equal(data.train.x[:, 0], data.train.x[:, 2]), "gray"
    assert not torch.equal(data.target.x[:, 0], data.target.x[:, 2]), "photographs have colours"


def test_the_target_is_the_source_blended_with_the_photographs():
    data = load(DataConfig("digit_patches"), 5)
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
    data, same, other = (load(DataConfig("digit_cameras"), seed) for seed in (0, 0, 1))
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
    data = load(DataConfig("digit_cameras"), 0)
    rooms = [data.train.x[data.train.attribute == i] for i in range(4)] + [data.oracle.x]
    colours = torch.stack([room.float().mean((0, 2, 3)) for room in rooms])
    assert torch.pdist(colours).min() > 5  # gray levels; two halves of one room differ by about 1
    assert bytes_of(data.train).isdisjoint(bytes_of(data.oracle))


def test_digits_larger_than_the_walls_are_refused():
    """A wall is a fifth of a photograph of 640x427 pixels: 128 wide."""
    assert "data.resolution=129" in refusal(DataConfig("digit_cameras", resolution=129))


# --- Sets of digit images


@pytest.fixture
def sets(tmp_path, monkeypatch):
    """Miniatures of the real files, with torchvision's table of SVHN's md5 sums switched off."""
    monkeypatch.setattr(torchvision_datasets.SVHN, "_check_integrity", lambda self: True)
    draw = np.random.default_rng(0)
    for folder in ("MNIST/raw", "USPS", "SVHN", "photos"):
        (tmp_path / folder).mkdir(parents=True)
    for split, n in (("train", 30), ("t10k", 20)):
        write_idx(tmp_path / f"MNIST/raw/{split}-images-idx3-ubyte", draw.integers(0, 256, (n, 28, 28)))
        write_idx(tmp_path / f"MNIST/raw/{split}-labels-idx1-ubyte", np.arange(n) % 10)
    for name, n in (("usps.bz2", 20), ("usps.t.bz2", 10)):
        lines = [" ".join([str(i % 10 + 1), *(f"{j + 1}:{2 * i / 20 - 1:.2f}" for j in range(256))]) for i in range(n)]
        (tmp_path / "USPS" / name).write_bytes(bz2.compress("\n".join(lines).encode()))
    for split, n in (("train", 20), ("test", 10)):
        content = {
            "X": draw.integers(0, 256, (32, 32, 3, n), dtype=np.uint8),
            "y": np.arange(1, n + 1)[:, None] % 10 + 1,
        }
        scipy.io.savemat(tmp_path / f"SVHN/{split}_32x32.mat", content)
    photo = draw.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(photo).save(tmp_path / "photos/wall.png")
    return DataConfig("images", str(tmp_path), "mnist", "usps", str(tmp_path / "photos"), resolution=28, fit="crop")


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
def test_a_gray_set_becomes_colour_beside_a_coloured_one(sets, source, target):
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
        message = refusal(dataclasses.replace(sets, source=name, root=str(tmp_path / "gone")))
        for part in (name, str(tmp_path / "gone" / where), "data.root", "data.download=true"):
            assert part in message


def test_labels_that_are_not_as_many_as_images(sets):
    write_idx(Path(sets.root) / "MNIST/raw/train-labels-idx1-ubyte", np.zeros(29))
    assert "mnist" in refusal(sets)


def test_photographs_must_be_there_and_large_enough(sets, tmp_path):
    config = dataclasses.replace(sets, target="mnist_m")
    assert "data.photos=''" in refusal(dataclasses.replace(config, photos=""))
    gone = str(tmp_path / "gone")
    assert f"data.photos='{gone}'" in refusal(dataclasses.replace(config, photos=gone))
    (tmp_path / "empty").mkdir()
    assert str(tmp_path / "empty") in refusal(dataclasses.replace(config, photos=str(tmp_path / "empty")))
    message = refusal(dataclasses.replace(config, resolution=48))
    for part in ("'wall.png'", config.photos, "data.resolution=48"):
        assert part in message


def test_unknown_sets_get_a_hint(sets):
    assert "data.source 'mnst' is unknown; did you mean 'mnist'" in refusal(dataclasses.replace(sets, source="mnst"))
    assert "data.target 'svnh' is unknown; did you mean 'svhn'" in refusal(dataclasses.replace(sets, target="svnh"))
    assert "did you mean 'moons'" in refusal(DataConfig("moon"))


# --- Folders


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
    return DataConfig("domain_folders", str(tmp_path), "art", "sketch", validation=0.25)


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
    message = refusal(dataclasses.replace(folders, target="loose"), target_only=True)
    assert "game.method=target_only needs labels" in message
    assert "'loose'" in message


def test_a_source_without_labels_is_refused(folders):
    message = refusal(dataclasses.replace(folders, source="loose", target="art"))
    assert "'loose' has no labels" in message
    assert "exchange data.source and data.target" in message


def test_a_joined_source_without_labels_is_refused(folders):
    assert "loose" in refusal(dataclasses.replace(folders, source="art+loose"))


def test_label_sets_that_differ_are_named(folders):
    write_images(Path(folders.root) / "art" / "only", ["0.png", "1.png"])
    message = refusal(folders)
    assert "'sketch' lacks only" in message
    assert "'art'" in message
    assert "'photo' lacks only" in refusal(dataclasses.replace(folders, source="photo+art", target="sketch"))


def test_an_unreadable_image_of_the_target_is_named(folders):
    (Path(folders.root) / "sketch/a/1.png").write_bytes(b"junk")
    message = refusal(folders)
    assert "'a/1.png'" in message
    assert "replace or remove it" in message


def test_unknown_domains_name_those_that_are_there(folders, tmp_path):
    message = refusal(dataclasses.replace(folders, target="sketsch"))
    assert "data.target" in message
    assert "did you mean 'sketch'" in message
    assert "data.source" in refusal(dataclasses.replace(folders, source="art+phoro"))
    gone = str(tmp_path / "gone")
    assert gone in refusal(dataclasses.replace(folders, root=gone))


@pytest.mark.parametrize("validation", [0.0, 1.0, -0.5, 2.0])
def test_share_of_validation_out_of_range(validation):
    message = refusal(DataConfig("moons", validation=validation))
    assert f"data.validation is {validation}" in message
    assert "between 0 and 1" in message


@pytest.mark.parametrize("validation", [0.1, 0.95])
def test_share_of_validation_that_leaves_a_class_out(folders, validation):
    message = refusal(dataclasses.replace(folders, validation=validation))
    assert "'art'" in message
    assert f"data.validation={validation}" in message


@pytest.mark.parametrize("wrong", [{"fit": "padd", "resolution": 10}, {"name": "digit_patches", "resolution": 0}])
def test_unknown_fit_and_no_resolution(folders, wrong):
    assert "data." in refusal(dataclasses.replace(folders, **wrong))


# --- Vectors


@pytest.fixture
def vectors(tmp_path):
    """A function that writes source.npz and target.npz, good ones but for what is asked for."""
    draw = np.random.default_rng(0)
    files = {
        "source": {"features": draw.normal(size=(40, 3)), "labels": np.array(["no", "yes"])[np.arange(40) % 2]},
        "target": {"features": draw.normal(size=(30, 3))},
    }

    def write(**changes: dict) -> DataConfig:
        for name, content in files.items():
            np.savez(tmp_path / f"{name}.npz", **{**content, **changes.get(name, {})})
        return DataConfig("vectors", str(tmp_path), "source.npz", "target.npz", validation=0.25)

    write.files = files
    return write


def test_vectors(vectors):
    labels = np.array(["no", "yes"])[np.arange(30) // 15]
    data = load(vectors(target={"labels": labels}), 0)
    assert (data.shape, data.class_names, data.sides) == ((3,), ("no", "yes"), ("source.npz", "target.npz"))
    check_labelled(data.train, 30, (3,), torch.float32)
    check_labelled(data.validation, 10, (3,), torch.float32)
    assert data.target.label is None
    assert data.oracle.label.tolist() == [0] * 15 + [1] * 15
    assert bytes_of(data.train).isdisjoint(bytes_of(data.validation))
    assert np.array_equal(data.target.x.numpy(), vectors.files["target"]["features"].astype(np.float32))
    assert load(vectors(), 0).oracle is None


def test_attributes_of_vectors_stay_with_their_samples(vectors):
    config = vectors(source={"attributes": np.arange(40) % 3 * 10})
    data = load(config, 0)
    assert data.attribute_names == ("0", "10", "20")
    features = vectors.files["source"]["features"].astype(np.float32)
    for x, attribute in zip(data.train.x.numpy(), data.train.attribute.tolist(), strict=True):
        assert np.flatnonzero((features == x).all(1)) % 3 == attribute


@pytest.mark.parametrize(("suffix", "pack"), [("svm", bytes), ("svm.gz", gzip.compress), ("svm.bz2", bz2.compress)])
def test_svmlight(tmp_path, suffix, pack):
    for name, n, column in (("a", 8, 1), ("b", 6, 4)):
        lines = "".join(f"{(-1) ** i} {column}:{i}.5\n" for i in range(n))
        (tmp_path / f"{name}.{suffix}").write_bytes(pack(lines.encode()))
    data = load(DataConfig("vectors", str(tmp_path), f"a.{suffix}", f"b.{suffix}", validation=0.5), 0)
    assert (data.shape, data.classes) == ((4,), 2), "as wide as the wider of the two"
    assert data.target.x[:, 3].tolist() == [i + 0.5 for i in range(6)]
    assert data.oracle.label.tolist() == [1, 0] * 3
    (tmp_path / f"b.{suffix}").write_bytes(pack(b"no numbers\n"))
    config = DataConfig("vectors", str(tmp_path), f"a.{suffix}", f"b.{suffix}")
    assert f"b.{suffix}" in refusal(config)


@pytest.mark.parametrize(
    ("how", "by_hand"),
    [
        ("none", [[3.0, 4.0, 0.0], [0.0, -1.0, 0.0]]),
        ("binary", [[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]),
        ("log", [[math.log(4), math.log(5), 0.0], [0.0, 0.0, 0.0]]),
        ("unit", [[0.6, 0.8, 0.0], [0.0, -1.0, 0.0]]),
    ],
)
def test_transforms(vectors, how, by_hand):
    x = np.array([[3.0, 4.0, 0.0], [0.0, -1.0, 0.0]])
    data = load(dataclasses.replace(vectors(target={"features": x}), transform=how), 0)
    assert torch.allclose(data.target.x, torch.tensor(by_hand))  # float32


BAD = np.random.default_rng(1).normal(size=(30, 3))
BAD[7, 1] = np.nan
WRONG_VECTORS = {
    "NaN": ({"target": {"features": BAD}}, ["target.npz", "NaN"]),
    "infinite": ({"source": {"features": np.full((40, 3), np.inf)}}, ["source.npz", "infinite"]),
    "other width": ({"target": {"features": np.ones((30, 4))}}, ["source.npz", "target.npz", " 3 ", " 4:"]),
    "no matrix": ({"target": {"features": np.ones(30)}}, ["target.npz", "[n, D]"]),
    "fewer labels": ({"source": {"labels": np.ones(39)}}, ["source.npz", "40", "(39,)", "'labels'"]),
    "fewer attributes": ({"source": {"attributes": np.ones(39)}}, ["source.npz", "'attributes'"]),
    "pickled": ({"target": {"features": np.array([[1, None, {}]], dtype=object)}}, ["target.npz", "numpy.savez"]),
    "other labels": ({"target": {"labels": np.array(["no"] * 29 + ["so"])}}, ["lacks yes", "lacks so", "target.npz"]),
}


@pytest.mark.parametrize("case", WRONG_VECTORS)
def test_unusable_vectors_are_named(vectors, case):
    changes, parts = WRONG_VECTORS[case]
    message = refusal(vectors(**changes))
    for part in parts:
        assert part in message


def test_files_of_vectors_that_are_missing_or_something_else(vectors, tmp_path):
    config = vectors()
    message = refusal(dataclasses.replace(config, source="gone.npz"))
    assert f"data.source='{tmp_path / 'gone.npz'}'" in message
    (tmp_path / "target.npz").write_bytes(b"PK junk")
    assert "target.npz" in refusal(config)
    vectors()
    message = refusal(dataclasses.replace(config, source="target.npz", target="source.npz"))
    assert "has no 'labels'" in message
    assert "exchange data.source and data.target" in message
    assert "'target.npz' has no" in refusal(config, target_only=True).replace(
        "the target 'target.npz', and it", "'target.npz'"
    )
    assert "did you mean 'log'" in refusal(dataclasses.replace(config, transform="lg"))


def test_vectors_of_words_are_refused(vectors):
    assert "target.npz" in refusal(vectors(target={"features": np.array([["a", "b", "c"]])}))


def test_nan_in_svmlight_is_refused(tmp_path):
    for name, value in (("a", "1"), ("b", "nan")):
        (tmp_path / f"{name}.svm").write_text("".join(f"{i % 2} 1:{value} 2:{i}\n" for i in range(20)))
    assert "b.svm" in refusal(DataConfig("vectors", str(tmp_path), "a.svm", "b.svm"))


def test_a_target_without_samples_is_refused(vectors):
    assert "target.npz" in refusal(vectors(target={"features": np.zeros((0, 3))}))


# --- Reviews


@pytest.fixture
def reviews(tmp_path):
    for name in ("books", "dvd"):
        for split, n in (("train", 6), ("test", 4)):
            text = "".join(f"{-1 if i % 2 else 1} {i}:3 4999:1\n" for i in range(n))
            (tmp_path / f"{name}_{split}.svmlight.gz").write_bytes(gzip.compress(text.encode()))
    return DataConfig("amazon_reviews", str(tmp_path), "books", "dvd")


def test_amazon_reviews(reviews):
    data = load(reviews, 0)
    assert (data.sides, data.shape, data.class_names) == (("books", "dvd"), (5000,), ("bad", "good"))
    check_labelled(data.train, 6, (5000,), torch.float32)
    check_labelled(data.validation, 4, (5000,), torch.float32)
    check_labelled(data.oracle, 4, (5000,), torch.float32)
    assert (len(data.target), data.target.label) == (6, None)
    assert data.train.label.tolist() == [1, 0] * 3
    assert (data.train.x[2, 2], data.train.x[2, 4999], data.train.x[2].sum()) == (3, 1, 4), "columns count from 0"
    assert load(dataclasses.replace(reviews, transform="binary"), 0).train.x.max() == 1


def test_reviews_that_are_missing_or_unknown(reviews):
    message = refusal(dataclasses.replace(reviews, target="kitchen"))
    assert "kitchen_train.svmlight.gz" in message
    assert "data.root" in message
    assert "did you mean 'books'" in refusal(dataclasses.replace(reviews, source="book"))
    (Path(reviews.root) / "dvd_test.svmlight.gz").write_bytes(b"junk")
    assert "dvd_test.svmlight.gz" in refusal(reviews)
