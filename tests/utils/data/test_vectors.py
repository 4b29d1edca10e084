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
    "other labels": ({"target": {"labels": np.array(["no"] * 29 + ["so"])}}, ["lacks so", "target.npz"]),
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


def test_a_target_may_have_fewer_classes_than_the_source(vectors):
    labels = np.array(["a", "b", "c"])[np.arange(40) % 3]
    data = load(vectors(source={"labels": labels}, target={"labels": np.array(["c", "a", "c"] * 10)}), 0)
    assert data.class_names == ("a", "b", "c")
    assert data.oracle.label.tolist() == [2, 0, 2] * 10


def test_a_class_with_one_sample_in_the_source_is_named(vectors):
    assert "one sample of the class 'rare'" in refused_pair(vectors(source={"labels": ["no"] * 39 + ["rare"]}))


def test_keys_that_were_found_are_listed(vectors, tmp_path):
    config = vectors()
    np.savez(tmp_path / "target.npz", fts=np.ones((4, 3)), labels=np.ones(4))
    assert "holds fts, labels and must hold 'features'" in refused_pair(config)


@pytest.mark.parametrize("suffix", ["mat", "npy", "csv"])
def test_other_formats_are_told_what_can_be_read(tmp_path, suffix):
    for name in ("a", "b"):
        with open(tmp_path / f"{name}.{suffix}", "wb") as file:
            np.save(file, np.ones((4, 3)))
    message = refused_pair(VectorFiles("vectors", str(tmp_path), f"a.{suffix}", f"b.{suffix}"))
    assert all(word in message for word in (f"a.{suffix}", "svmlight", ".npz", "features", "labels"))


def test_files_of_two_formats_are_refused(vectors, tmp_path):
    config = vectors()
    (tmp_path / "a.svm").write_text("1 1:2\n")
    assert "two formats" in refused_pair(dataclasses.replace(config, target="a.svm"))


WAYS = np.arange(30) % 2
LABELS = {
    "column": (WAYS[:, None], ("0", "1")),
    "one-hot": (np.eye(2)[WAYS], ("0", "1")),
    "one-hot of truth": (np.eye(2, dtype=bool)[WAYS], ("0", "1")),
    "truth": (WAYS == 1, ("False", "True")),
    "text": (np.array(["é", "ö"])[WAYS], ("é", "ö")),
    "text column": (np.array(["a", "b"])[WAYS][:, None], ("a", "b")),
    "bytes": (np.array([b"a", b"b"])[WAYS], ("a", "b")),
    "big-endian": (WAYS.astype(">i4"), ("0", "1")),
    "unsigned": (WAYS.astype("u2"), ("0", "1")),
}


@pytest.mark.parametrize("case", LABELS)
def test_labels_of_many_kinds(vectors, case):
    labels, names = LABELS[case]
    features = vectors.files["target"]["features"]
    data = load(vectors(source={"features": features, "labels": labels}, target={"labels": labels}), 0)
    assert data.class_names == names
    assert data.oracle.label.tolist() == WAYS.tolist()


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.ones((40, 2)), "not one-hot"),
        (np.ones((40, 2, 2)), "(40, 2, 2)"),
        (np.array(1), "()"),
        (np.ones(40, dtype=complex), "complex128"),
        (np.full(40, "2020-01-01", dtype="M8[D]"), "datetime64"),
        (np.array([["a", "b"]] * 40), "(40, 2)"),
    ],
    ids=["two ones", "cube", "scalar", "complex", "dates", "pairs"],
)
def test_labels_that_say_nothing_are_refused(vectors, labels, words):
    message = refused_pair(vectors(source={"labels": labels}))
    assert words in message
    assert "source.npz" in message


@pytest.mark.parametrize("dtype", ["longdouble", ">f4", ">f8", ">i2", "u2", "u4", "u8", "f2", "?"])
def test_numbers_of_any_type(vectors, dtype):
    x = (np.arange(90).reshape(30, 3) % 2).astype(dtype)
    data = load(vectors(target={"features": x}), 0)
    assert data.target.x.dtype == torch.float32
    assert data.target.x.tolist() == (np.arange(90).reshape(30, 3) % 2).tolist()


def test_numbers_beyond_float32_are_refused(vectors):
    assert "infinite" in refused_pair(vectors(target={"features": np.full((30, 3), 1e300)}))


def test_zscore_is_of_each_domain_on_its_own(vectors):
    draw = np.random.default_rng(3)
    x, y = 10 + 3 * draw.normal(size=(40, 3)), -7 + 0.1 * draw.normal(size=(30, 3))
    x[:, 1], y[:, 2] = 0.1, 1e6  # never vary
    config = dataclasses.replace(vectors(source={"features": x}, target={"features": y}), transform="zscore")
    data = load(config, 0)
    source, target = torch.cat([data.train.x, data.validation.x]), data.target.x
    for mine, constant in ((source, 1), (target, 2)):
        others = [i for i in range(3) if i != constant]
        assert mine[:, constant].tolist() == [0.0] * len(mine)
        assert torch.allclose(mine[:, others].mean(0), torch.zeros(2), atol=1e-5)
        assert torch.allclose(mine[:, others].var(0, correction=0), torch.ones(2), atol=1e-4)
    want = torch.from_numpy((y[:, 0] - y[:, 0].mean()) / y[:, 0].std()).float()
    assert torch.allclose(target[:, 0], want, atol=1e-4)


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
