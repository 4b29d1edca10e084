"""Files of vectors: what each side holds, and what is refused, in a sentence that names it."""

import bz2
import dataclasses
import gzip
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.utils.data.helpers import bytes_of, check_labelled, refused_pair
from utils.data.domains import load
from utils.data.vectors import VectorFiles, Vectors

# --- Vectors


@pytest.fixture
def vectors(tmp_path):
    """A function that writes source.npz and target.npz, good ones but for what is asked for."""
    draw = np.random.default_rng(0)
    files = {
        "source": {"features": draw.normal(size=(40, 3)), "labels": np.array(["no", "yes"])[np.arange(40) % 2]},
        "target": {"features": draw.normal(size=(30, 3))},
    }

    def write(**changes: dict) -> VectorFiles:
        for name, content in files.items():
            np.savez(tmp_path / f"{name}.npz", **{**content, **changes.get(name, {})})
        return VectorFiles("vectors", str(tmp_path), "source.npz", "target.npz", validation=0.25)

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
    data = load(VectorFiles("vectors", str(tmp_path), f"a.{suffix}", f"b.{suffix}", validation=0.5), 0)
    assert (data.shape, data.classes) == ((4,), 2), "as wide as the wider of the two"
    assert data.target.x[:, 3].tolist() == [i + 0.5 for i in range(6)]
    assert data.oracle.label.tolist() == [1, 0] * 3
    (tmp_path / f"b.{suffix}").write_bytes(pack(b"no numbers\n"))
    config = VectorFiles("vectors", str(tmp_path), f"a.{suffix}", f"b.{suffix}")
    assert f"b.{suffix}" in refused_pair(config)


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
    message = refused_pair(vectors(**changes))
    for part in parts:
        assert part in message


def test_files_of_vectors_that_are_missing_or_something_else(vectors, tmp_path):
    config = vectors()
    message = refused_pair(dataclasses.replace(config, source="gone.npz"))
    assert f"data.source='{tmp_path / 'gone.npz'}'" in message
    (tmp_path / "target.npz").write_bytes(b"PK junk")
    assert "target.npz" in refused_pair(config)
    vectors()
    message = refused_pair(dataclasses.replace(config, source="target.npz", target="source.npz"))
    assert "has no 'labels'" in message
    assert "exchange data.source and data.target" in message
    assert "'target.npz' has no" in refused_pair(config, target_only=True).replace(
        "the target 'target.npz', and it", "'target.npz'"
    )
    assert "did you mean 'log'" in refused_pair(dataclasses.replace(config, transform="lg"))


def test_vectors_of_words_are_refused(vectors):
    assert "target.npz" in refused_pair(vectors(target={"features": np.array([["a", "b", "c"]])}))


def test_nan_in_svmlight_is_refused(tmp_path):
    for name, value in (("a", "1"), ("b", "nan")):
        (tmp_path / f"{name}.svm").write_text("".join(f"{i % 2} 1:{value} 2:{i}\n" for i in range(20)))
    assert "b.svm" in refused_pair(VectorFiles("vectors", str(tmp_path), "a.svm", "b.svm"))


def test_a_target_without_samples_is_refused(vectors):
    assert "target.npz" in refused_pair(vectors(target={"features": np.zeros((0, 3))}))


# --- Reviews


@pytest.fixture
def reviews(tmp_path):
    for name in ("books", "dvd"):
        for split, n in (("train", 6), ("test", 4)):
            text = "".join(f"{-1 if i % 2 else 1} {i}:3 4999:1\n" for i in range(n))
            (tmp_path / f"{name}_{split}.svmlight.gz").write_bytes(gzip.compress(text.encode()))
    return Vectors("amazon_reviews", str(tmp_path), "books", "dvd")


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
    message = refused_pair(dataclasses.replace(reviews, target="kitchen"))
    assert "kitchen_train.svmlight.gz" in message
    assert "data.root" in message
    assert "did you mean 'books'" in refused_pair(dataclasses.replace(reviews, source="book"))
    (Path(reviews.root) / "dvd_test.svmlight.gz").write_bytes(b"junk")
    assert "dvd_test.svmlight.gz" in refused_pair(reviews)
