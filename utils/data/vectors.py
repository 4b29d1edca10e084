"""Files of feature vectors as domains: .npz, svmlight, and the Amazon reviews."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy
import torch
from annotated_types import Gt, Lt
from torch import Tensor

from utils.data.files import reason
from utils.data.pairs import Domain, Pair, check_target_classes
from utils.data.samples import Resident
from utils.errors import UserError, check_name
from utils.paths import path_of

REVIEWS = ("books", "dvd", "electronics", "kitchen")
WORDS = 5000  # words and word pairs whose counts are a review's vector

Transform = Literal["none", "binary", "log", "unit", "zscore"]


@dataclass
class Vectors:
    """Fields of ``data.*`` for vectors with a held-out split."""

    name: str = "vectors"  # amazon_reviews, or vectors for files of one's own
    root: str = "data"  # folder that holds the files
    source: str = ""  # the labelled domain: a file in root, or a kind of reviews
    target: str = ""  # the unlabelled domain: the same
    transform: Transform = "none"  # binary: above 0; log: of 1 + x; unit: length 1; zscore: each domain to mean 0, σ 1


@dataclass
class VectorFiles(Vectors):
    """Fields of ``data.*`` for files of vectors."""

    validation: Annotated[float, Gt(0), Lt(1)] = 0.1  # share of the source held out


def vectors(config: VectorFiles, seed: int) -> Pair:
    """Two files of vectors: .npz with ``features`` ``[n, D]``, ``labels`` (``[n]``, ``[n, 1]`` or one-hot ``[n, K]``;
    optional for the target) and perhaps ``attributes`` ``[n]``; or svmlight text, packed or not, with labels in the
    first column.
    """
    paths = []
    for key in ("source", "target"):
        path = path_of(config.root) / path_of(getattr(config, key))
        if not path.is_file():
            raise UserError(f"There is no file data.{key}='{path}' (below data.root='{config.root}').")
        paths.append(path)
    packed = [path.suffix.lower() == ".npz" for path in paths]
    if any(packed) and not all(packed):
        raise UserError(f"{paths[0]} and {paths[1]} are of two formats: both must be .npz, or both svmlight text.")
    parts = [_read_npz(path) for path in paths] if all(packed) else _read_svmlight(*paths)
    (x, label, attribute), (target, target_label, _) = parts
    if x.shape[1:] != target.shape[1:]:
        raise UserError(
            f"{paths[0]} has vectors of {x.shape[1]} numbers and {paths[1]} of {target.shape[1]}: both need as many."
        )
    if label is None:
        raise UserError(f"The source {paths[0]} has no 'labels': exchange data.source and data.target, or add them.")
    classes, label = _numbered(label)
    if target_label is not None:
        check_target_classes(str(paths[0]), classes.tolist(), str(paths[1]), numpy.unique(target_label).tolist())
        target_label = torch.from_numpy(numpy.searchsorted(classes, target_label))
    attributes, attribute = ((), None) if attribute is None else _numbered(attribute)
    source = Domain(paths[0].name, Resident(transformed(x, config.transform), label, attribute))
    samples = Resident(transformed(target, config.transform), target_label)
    return Pair(source, Domain(paths[1].name, samples), tuple(map(str, classes)), tuple(map(str, attributes)))


def _numbered(values: numpy.ndarray) -> tuple[numpy.ndarray, Tensor]:
    """The sorted distinct values, and for each value ``[n]`` its index among them."""
    distinct, index = numpy.unique(values, return_inverse=True)
    return distinct, torch.from_numpy(index)


def _read_npz(path: Path) -> tuple:
    """Vectors as a tensor ``[n, D]``; labels and attributes as arrays ``[n]`` or None."""
    try:
        with numpy.load(path, allow_pickle=False) as content:
            x, label, attribute = (content.get(key) for key in ("features", "labels", "attributes"))
            found = ", ".join(content.files) or "nothing"
    except Exception as error:  # BadZipFile, ValueError, OSError, AttributeError for a bare array
        raise UserError(f"{path} cannot be read as .npz ({reason(error)}); save it with numpy.savez.") from None
    if x is None:
        raise UserError(f"{path} holds {found} and must hold 'features', a matrix [n, D] of numbers: rename that key.")
    if x.ndim != 2 or x.dtype.kind not in "fiub":
        raise UserError(f"{path} must hold 'features' as a matrix [n, D] of numbers, not {x.dtype} {list(x.shape)}.")
    with numpy.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused as such
        features = torch.from_numpy(numpy.array(x, dtype=numpy.float32))
    names = (None if y is None else _names(path, what, y, len(x)) for what, y in
             (("labels", label), ("attributes", attribute)))  # fmt: skip
    return _finite(path, features), *names


def _names(path: Path, what: str, values: numpy.ndarray, count: int) -> numpy.ndarray:
    """Labels or attributes ``[n]`` from an array ``[n]``, ``[n, 1]`` or one-hot ``[n, K]``; text as str."""
    if values.dtype.kind not in "biufUS":
        raise UserError(f"{path} holds '{what}' of type {values.dtype} and must hold whole numbers or text.")
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    elif values.ndim == 2 and values.dtype.kind in "biuf":
        if not (numpy.isin(values, (0, 1)).all() and (values.sum(1) == 1).all()):
            raise UserError(f"{path} holds '{what}' {list(values.shape)} that are not one-hot: store one number each.")
        values = values.argmax(1)
    if values.shape != (count,):
        raise UserError(f"{path} holds {count} features but '{what}' of shape {values.shape}.")
    if values.dtype.kind == "f" and not numpy.isfinite(values).all():
        raise UserError(f"{path} holds '{what}' that are NaN or infinite: remove those samples.")
    return numpy.char.decode(values, "utf-8", "replace") if values.dtype.kind == "S" else values


def _read_svmlight(*paths: Path, features: int | None = None) -> list[tuple]:
    """Vectors, labels and None of each file; without ``features`` the widest file says how long a vector is."""
    from sklearn.datasets import load_svmlight_files  # here for a fast start-up

    try:
        content = load_svmlight_files(
            [str(path) for path in paths], n_features=features, zero_based="auto" if features is None else True
        )
    except Exception as error:  # ValueError, OSError, UnicodeDecodeError, zlib.error
        names = " or ".join(map(str, paths))
        raise UserError(
            f"{names} cannot be read as svmlight ({reason(error)}): mend it, or save it as .npz with numpy.savez "
            "(features, labels), the other format that can be read."
        ) from None
    parts = zip(paths, content[::2], content[1::2], strict=True)
    return [(_finite(path, torch.from_numpy(x.toarray()).float()), label, None) for path, x, label in parts]


def _finite(path: Path, x: Tensor) -> Tensor:
    if not bool(torch.isfinite(x).all()):
        raise UserError(f"{path} holds features that are NaN or infinite: remove or replace them.")
    return x


def _standardised(x: Tensor) -> Tensor:
    """Every feature with mean 0 and variance 1 over the domain ``x``; a feature that never varies becomes 0."""
    centred = x.double() - x.double().mean(0)
    constant = (x == x[:1]).all(0)
    return torch.where(constant, 0, centred / centred.square().mean(0).sqrt()).float()


def transformed(x: Tensor, how: str) -> Tensor:
    """The vectors of a domain as ``data.transform`` says: a key of ``TRANSFORMS``."""
    check_name("data.transform", how, TRANSFORMS)
    return TRANSFORMS[how](x)


TRANSFORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "binary": lambda x: (x > 0).float(),
    "log": lambda x: x.clamp(min=0).log1p(),
    "unit": lambda x: torch.nn.functional.normalize(x),
    "zscore": _standardised,
}


def amazon_reviews(config: Vectors, seed: int) -> Pair:
    """Reviews of books, dvd, electronics and kitchen appliances (Chen et al. 2012; Ganin et al. 2016, section 5.1.3):
    counts of 5,000 words and word pairs, 2,000 reviews to train on and 3,586 to 5,945 to test on in each domain.
    """
    return Pair(_reviews(config, "source"), _reviews(config, "target"), ("bad", "good"))


def _reviews(config: Vectors, key: str) -> Domain:
    name = getattr(config, key)
    check_name(f"data.{key}", name, REVIEWS)
    paths = [path_of(config.root) / f"{name}_{split}.svmlight.gz" for split in ("train", "test")]
    for path in paths:
        if not path.is_file():
            raise UserError(f"There is no file '{path}'; set data.root to the folder that holds the reviews.")
    splits = _read_svmlight(*paths, features=WORDS)
    x = transformed(torch.cat([x for x, _, _ in splits]), config.transform).split([len(x) for x, _, _ in splits])
    labels = (torch.from_numpy(y > 0).long() for _, y, _ in splits)
    return Domain(name, *map(Resident, x, labels))
