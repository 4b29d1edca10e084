"""What domain-adversarial games train on: a labelled source, an unlabelled target, and what each is measured on.

Target labels exist in one place, ``Domains.oracle``, which only reports read: neither training nor the choice of a
model sees them. (``target_only``, the upper bound, trains on them and says so: there the target *is* the source.)

A new pair of domains is one function ``(config, seed) -> Pair`` and one line of ``DOMAINS``.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy
import torch
from sklearn.datasets import load_sample_images, load_svmlight_files, make_moons
from sklearn.model_selection import train_test_split
from torch import Tensor
from torchvision import datasets
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from utils.data.datasets import (
    DataConfig,
    Files,
    Resident,
    Samples,
    Streamed,
    check_size,
    decoded,
    digit_splits,
    fit,
    folder_files,
    open_image,
    reason,
)
from utils.data.randomness import rng, seed_of
from utils.errors import UserError, check_name


class Domain(NamedTuple):
    """One domain: its name, samples with labels (None where there are none) and a held-out split where it has one."""

    name: str
    train: Samples
    test: Samples | None = None


class Pair(NamedTuple):
    """Two domains over the same classes. ``attributes`` names the values of the source samples' attribute."""

    source: Domain
    target: Domain
    classes: tuple[str, ...]
    attributes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Domains:
    """``train`` and ``validation`` are labelled samples of the source, ``target`` has no labels; ``oracle`` is labelled
    target data for reports alone, or None. ``shape`` is (C, R, R) or (D,).
    """

    name: str
    sides: tuple[str, str]
    shape: tuple[int, ...]
    class_names: tuple[str, ...]
    attribute_names: tuple[str, ...]
    train: Samples
    validation: Samples
    target: Samples | None
    oracle: Samples | None

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)


def load(config: DataConfig, seed: int, target_only: bool = False) -> Domains:
    """The pair of domains that ``config`` names; with ``target_only`` the target's labelled samples are the source too.

    Raises UserError where the source has no labels, the label sets differ, or data cannot be read.
    """
    check_name("data.name", config.name, DOMAINS)
    check_size(config)
    if not 0 < config.validation < 1:
        raise UserError(f"data.validation is {config.validation} and must be between 0 and 1.")
    source, target, classes, attributes = DOMAINS[config.name](config, seed)
    if target_only:
        if target.train.label is None:
            raise UserError(f"game.method=target_only needs labels of the target '{target.name}', and it has none.")
        source = target
    for domain in (source, target):
        if len(domain.train) < 2:
            raise UserError(
                f"The domain '{domain.name}' has {len(domain.train)} samples and needs at least 2: add some."
            )
    if len(classes) == 1:
        raise UserError(f"'{source.name}' has the class '{classes[0]}' only: a game of domains needs at least 2.")
    if source.train.label is None:
        raise UserError(f"The source '{source.name}' has no labels: exchange data.source and data.target, or label it.")
    if source.test is not None:
        train, validation = source.train, source.test
    else:
        train, validation = _split(source.train, config.validation, f"The source '{source.name}'")
    oracle = target.test or (validation if target_only else target.train)  # an upper bound is not read off its training
    return Domains(
        config.name, (source.name, target.name), _shape(train, config), classes, attributes, train, validation,
        unlabelled(target.train), oracle if oracle.label is not None else None,
    )  # fmt: skip


def unlabelled(samples: Samples) -> Samples:
    """The same samples without their labels: what is not there cannot be used."""
    if isinstance(samples, Resident):
        return Resident(samples.x, None)
    return Streamed(samples.files, None, samples.channels, samples.config)


def _shape(samples: Samples, config: DataConfig) -> tuple[int, ...]:
    if isinstance(samples, Resident):
        return tuple(samples.x.shape[1:])
    return (samples.channels, config.resolution, config.resolution)


def _split(samples: Samples, share: float, what: str) -> tuple[Samples, Samples]:
    """Training and validation samples, each class in proportion; the same for every seed."""
    try:
        train, held = train_test_split(range(len(samples)), test_size=share, random_state=0, stratify=samples.label)
    except ValueError as error:
        raise UserError(
            f"{what} cannot be split with data.validation={share} ({reason(error)}); raise it, or add samples."
        ) from None
    return samples.part(torch.tensor(sorted(train))), samples.part(torch.tensor(sorted(held)))


# --- Points: the moons of the DANN paper


def moons(config: DataConfig, seed: int) -> Pair:
    """Two inter-twinning moons of 150 points and the same turned by 35° (Ganin et al. 2016, section 5.1.1).

    Centred and scaled by 2. The target is measured on 2,000 fresh points.
    """

    def draw(n: int, stream: str, degrees: float) -> Resident:
        x, label = make_moons(n, noise=0.05, random_state=seed_of(seed, "moons", stream) % 2**32)
        angle = math.radians(degrees)
        turn = torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        x = 2 * (torch.from_numpy(x).float() - torch.tensor([0.5, 0.25]))  # the moons' common centre
        return Resident(x @ turn, torch.from_numpy(label).long())

    source = Domain("moons", draw(300, "source", 0), draw(300, "validation", 0))
    return Pair(source, Domain("turned moons", draw(300, "target", 35), draw(2000, "test", 35)), ("upper", "lower"))


# --- Digits, plain and on photographs

PLAIN, PATCHES = "digits", "digits on photographs"
CAMERAS = 5


def digit_patches(config: DataConfig, seed: int) -> Pair:
    """Scikit-learn's digits, and the same digits on patches of its two photographs: |patch - digit|, as MNIST-M was
    made (Ganin et al. 2016, section 5.2.4). The patches are the same at every epoch.
    """
    (train, label), (test, test_label) = _digits(config.resolution)
    photos = [torch.tensor(image).permute(2, 0, 1) for image in load_sample_images().images]
    source = Domain(
        PLAIN, Resident(train.expand(-1, 3, -1, -1), label), Resident(test.expand(-1, 3, -1, -1), test_label)
    )
    blended = (
        Resident(blend(x, photos, seed, name), y)
        for x, y, name in ((train, label, "train"), (test, test_label, "test"))
    )
    return Pair(source, Domain(PATCHES, *blended), tuple("0123456789"))


def digit_cameras(config: DataConfig, seed: int) -> Pair:
    """Digits before the walls of four rooms, which are the attribute; the target is a fifth room, never seen.

    A wall is a fifth of a photograph, its contrast and colours those of the room's own camera.
    """
    (train, label), (test, test_label) = _digits(config.resolution)
    walls = torch.tensor(load_sample_images().images[0]).permute(2, 0, 1).chunk(CAMERAS, dim=2)
    draw = rng("cameras")
    tint = 0.3 + 0.7 * torch.rand(CAMERAS, 3, 1, 1, generator=draw)

    def seen(x: Tensor, camera: Tensor, name: str) -> Tensor:
        shots = torch.stack([blend(x, [wall], seed, name, i) * tint[i] for i, wall in enumerate(walls)])
        return shots[camera, torch.arange(len(x))].round().to(torch.uint8)

    def part(x: Tensor, y: Tensor, name: str) -> Resident:
        camera = torch.randint(CAMERAS - 1, (len(x),), generator=rng(seed, "cameras", name))
        return Resident(seen(x, camera, name), y, camera)

    source = Domain("four rooms", part(train, label, "train"), part(test, test_label, "test"))
    fifth = Resident(seen(test, torch.full((len(test),), CAMERAS - 1), "fifth"), test_label)
    names = tuple(f"room {i + 1}" for i in range(CAMERAS - 1))
    return Pair(source, Domain("a fifth room", fifth), tuple("0123456789"), names)


def _digits(resolution: int) -> list[tuple[Tensor, Tensor]]:
    """Training and held-out digits as uint8 ``[n, 1, R, R]``, in the split that the generation recipes use."""
    size = [resolution, resolution]
    return [(tv.resize(x, size, InterpolationMode.BICUBIC, antialias=True), label) for x, label in digit_splits()]


def blend(x: Tensor, photos: list[Tensor], *names: int | str) -> Tensor:
    """|patch - digit| per channel for gray images ``[n, 1, R, R]`` and random patches of ``photos`` ``[3, H, W]``.

    uint8 ``[n, 3, R, R]``, a function of the names.
    """
    draw, R = rng(*names, "patches"), x.shape[-1]
    if (least := min(min(photo.shape[1:]) for photo in photos)) < R:
        raise UserError(
            f"data.resolution={R} is larger than a photograph behind the digits ({least} pixels); lower it."
        )
    which = torch.randint(len(photos), (len(x),), generator=draw).tolist()
    at = torch.rand(len(x), 2, generator=draw).tolist()
    patches = torch.empty(len(x), 3, R, R, dtype=torch.uint8)
    for i, (photo, (v, u)) in enumerate(zip(which, at, strict=True)):
        _, H, W = photos[photo].shape
        top, left = int(v * (H - R + 1)), int(u * (W - R + 1))
        patches[i] = photos[photo][:, top : top + R, left : left + R]
    return (patches.int() - x.int()).abs().to(torch.uint8)


# --- Sets of digit images


def images(config: DataConfig, seed: int) -> Pair:
    """Two of mnist, usps, svhn and mnist_m, at ``data.resolution``; in colour if one of the two is."""
    for key in ("source", "target"):
        check_name(f"data.{key}", getattr(config, key), IMAGE_SETS)
    both = [IMAGE_SETS[name](config, seed) for name in (config.source, config.target)]
    colour = any(domain.train.x.shape[1] == 3 for domain in both)
    return Pair(*(_in_colour(domain) if colour else domain for domain in both), tuple("0123456789"))


def _in_colour(domain: Domain) -> Domain:
    splits = (Resident(split.x.expand(-1, 3, -1, -1), split.label) for split in domain[1:])
    return Domain(domain.name, *splits)


def _torchvision(config: DataConfig, seed: int, name: str, folder: str, read: Callable) -> Domain:
    """A set of torchvision's, both splits; ``read(root, train, download)`` gives images and labels."""
    root = Path(config.root).expanduser()
    splits = []
    for train in (True, False):
        try:
            x, label = read(root, train, config.download)
        except Exception as error:  # torchvision raises RuntimeError, OSError, EOFError, HTTPError and more
            raise UserError(
                f"{name} could not be read from '{root / folder}' ({reason(error)}); set data.root to the folder that "
                f"holds '{folder}', or data.download=true to fetch it."
            ) from error
        if len(x) != len(label):
            raise UserError(f"{name} in '{root / folder}' has {len(x)} images but {len(label)} labels; fetch it again.")
        x = fit(torch.as_tensor(x), config.resolution, config.fit, f"Every image of {name}")
        splits.append(Resident(x, torch.as_tensor(label).long()))
    return Domain(name, *splits)


def _read_mnist(root: Path, train: bool, download: bool) -> tuple:
    source = datasets.MNIST(str(root), train, download=download)
    return source.data.unsqueeze(1), source.targets


def _read_usps(root: Path, train: bool, download: bool) -> tuple:
    folder = root / "USPS"
    if download:
        folder.mkdir(parents=True, exist_ok=True)
    source = datasets.USPS(str(folder), train, download=download)
    return torch.from_numpy(source.data).unsqueeze(1), source.targets


def _read_svhn(root: Path, train: bool, download: bool) -> tuple:
    source = datasets.SVHN(str(root / "SVHN"), "train" if train else "test", download=download)
    return source.data, source.labels


def _mnist_m(config: DataConfig, seed: int) -> Domain:
    """MNIST on patches of the photographs below ``data.photos`` (BSDS500 in the paper)."""
    plain = IMAGE_SETS["mnist"](config, seed)
    folder = Path(config.photos).expanduser()
    if not config.photos or not folder.is_dir():
        raise UserError(f"mnist_m needs photographs: there is no folder data.photos='{config.photos}'.")
    files = folder_files(folder)
    photos = [tv.pil_to_tensor(open_image(files, name).convert("RGB")) for name in files.names]
    for name, photo in zip(files.names, photos, strict=True):
        if min(photo.shape[1:]) < config.resolution:
            raise UserError(
                f"The photograph '{name}' in '{folder}' is smaller than data.resolution={config.resolution}; remove it."
            )
    splits = zip(("train", "test"), plain[1:], strict=True)
    return Domain("mnist_m", *(Resident(blend(split.x, photos, seed, name), split.label) for name, split in splits))


IMAGE_SETS: dict[str, Callable[[DataConfig, int], Domain]] = {
    "mnist": functools.partial(_torchvision, name="mnist", folder="MNIST/raw", read=_read_mnist),
    "usps": functools.partial(_torchvision, name="usps", folder="USPS", read=_read_usps),
    "svhn": functools.partial(_torchvision, name="svhn", folder="SVHN", read=_read_svhn),
    "mnist_m": _mnist_m,
}


# --- Folders: one a domain, in it one a class


def domain_folders(config: DataConfig, seed: int) -> Pair:
    """``data.root/<domain>/<class>/*.jpg`` (Office-31, Office-Home, VisDA, DomainNet, PACS).

    ``data.source`` may name several domains, as "art+photo": they become the attribute. A target without class folders
    has no labels.
    """
    root = Path(config.root).expanduser()
    if not root.is_dir():
        raise UserError(f"The folder '{root}' does not exist; set data.root to the folder that holds the domains.")
    available = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    names = list(dict.fromkeys(config.source.split("+")))
    for key, chosen in (("source", names), ("target", [config.target])):
        for name in chosen:
            check_name(f"data.{key} (a folder in '{root}')", name, available)
    sources, target = [folder_files(root / name) for name in names], folder_files(root / config.target)
    classes = _class_names(sources[0])
    for name, files in zip([*names[1:], config.target], [*sources[1:], target], strict=True):
        if classes and not _class_names(files) and name in names:
            raise UserError(f"The source '{name}' in '{root}' has no folders of classes, and '{names[0]}' has.")
        _check_classes(names[0], classes, name, _class_names(files))
    merged = Files(
        str(root), [f"{name}/{x}" for name, part in zip(names, sources, strict=True) for x in part.names], target.read
    )
    attribute = torch.cat([torch.full((len(part.names),), i) for i, part in enumerate(sources)])
    label = _labels(classes, [x for part in sources for x in part.names])
    source = Domain("+".join(names), decoded(config, merged, label, 3, attribute))
    samples = decoded(config, target, _labels(classes, target.names) if _class_names(target) else None, 3)
    return Pair(source, Domain(config.target, samples), tuple(classes), tuple(names) if len(names) > 1 else ())


def _class_names(files: Files) -> list[str]:
    """Folders of classes, or none where images lie outside of them."""
    return sorted({name.split("/")[0] for name in files.names}) if all("/" in name for name in files.names) else []


def _labels(classes: list[str], names: list[str]) -> Tensor | None:
    index = {name: i for i, name in enumerate(classes)}
    return torch.tensor([index[name.split("/")[0]] for name in names]) if classes else None


def _check_classes(a: str, ours: list, b: str, theirs: list) -> None:
    """Raise UserError where two label sets differ; a domain without labels fits any."""
    if theirs and ours and list(ours) != list(theirs):
        missing, extra = (", ".join(map(str, sorted(set(x) - set(y))[:5])) for x, y in ((ours, theirs), (theirs, ours)))
        parts = [f"'{b}' lacks {missing}"] if missing else []
        parts += [f"'{a}' lacks {extra}"] if extra else []
        raise UserError(f"The classes of '{a}' and '{b}' differ ({'; '.join(parts)}): both domains need the same ones.")


# --- Files of feature vectors


def vectors(config: DataConfig, seed: int) -> Pair:
    """Two files of vectors: .npz with ``features`` ``[n, D]``, ``labels`` ``[n]`` (optional for the target) and perhaps
    ``attributes`` ``[n]``; or svmlight text, packed or not, with labels in the first column.
    """
    paths = []
    for key in ("source", "target"):
        path = Path(config.root).expanduser() / getattr(config, key)
        if not path.is_file():
            raise UserError(f"There is no file data.{key}='{path}' (below data.root='{config.root}').")
        paths.append(path)
    parts = [_read_npz(path) for path in paths] if paths[0].suffix == ".npz" else read_svmlight(*paths)
    (x, label, attribute), (target, target_label, _) = parts
    if x.shape[1:] != target.shape[1:]:
        raise UserError(
            f"{paths[0]} has vectors of {x.shape[1]} numbers and {paths[1]} of {target.shape[1]}: both need as many."
        )
    if label is None:
        raise UserError(f"The source {paths[0]} has no 'labels': exchange data.source and data.target, or add them.")
    classes = numpy.unique(label)
    if target_label is not None:
        _check_classes(str(paths[0]), classes.tolist(), str(paths[1]), numpy.unique(target_label).tolist())
    names = numpy.unique(attribute) if attribute is not None else numpy.array([])
    label, target_label = (
        None if y is None else torch.from_numpy(numpy.searchsorted(classes, y)) for y in (label, target_label)
    )
    attribute = None if attribute is None else torch.from_numpy(numpy.searchsorted(names, attribute))
    source = Domain(paths[0].name, Resident(transformed(x, config.transform), label, attribute))
    samples = Resident(transformed(target, config.transform), target_label)
    return Pair(source, Domain(paths[1].name, samples), tuple(map(str, classes)), tuple(map(str, names)))


def _read_npz(path: Path) -> tuple:
    try:
        with numpy.load(path, allow_pickle=False) as content:
            x, label, attribute = (content.get(key) for key in ("features", "labels", "attributes"))
    except Exception as error:  # BadZipFile, ValueError, OSError, AttributeError for a bare array
        raise UserError(f"{path} cannot be read as .npz ({reason(error)}); save it with numpy.savez.") from None
    if x is None or x.ndim != 2 or x.dtype.kind not in "fiub":
        raise UserError(f"{path} must hold 'features' as a matrix [n, D] of numbers.")
    for name, values in (("labels", label), ("attributes", attribute)):
        if values is not None and values.shape != (len(x),):
            raise UserError(f"{path} holds {len(x)} features but '{name}' of shape {values.shape}.")
        if values is not None and values.dtype.kind == "f" and not numpy.isfinite(values).all():
            raise UserError(f"{path} holds '{name}' that are NaN or infinite: remove those samples.")
    return _finite(path, torch.from_numpy(x).float()), label, attribute


def _finite(path: Path, x: Tensor) -> Tensor:
    if not bool(torch.isfinite(x).all()):
        raise UserError(f"{path} holds features that are NaN or infinite: remove or replace them.")
    return x


def read_svmlight(*paths: Path, features: int | None = None) -> list[tuple]:
    """Vectors, labels and None of each file; without ``features`` the widest file says how long a vector is."""
    try:
        content = load_svmlight_files(
            [str(path) for path in paths], n_features=features, zero_based="auto" if features is None else True
        )
    except Exception as error:  # ValueError, OSError, UnicodeDecodeError, zlib.error
        names = " or ".join(map(str, paths))
        raise UserError(f"{names} cannot be read as svmlight ({reason(error)}); mend the file.") from None
    parts = zip(paths, content[::2], content[1::2], strict=True)
    return [(_finite(path, torch.from_numpy(x.toarray()).float()), label, None) for path, x, label in parts]


def transformed(x: Tensor, how: str) -> Tensor:
    """Vectors as ``data.transform`` says: none, binary (whether above 0), log (log(1 + x)) or unit (length 1)."""
    check_name("data.transform", how, TRANSFORMS)
    return TRANSFORMS[how](x)


TRANSFORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "binary": lambda x: (x > 0).float(),
    "log": lambda x: x.clamp(min=0).log1p(),
    "unit": lambda x: torch.nn.functional.normalize(x),
}

REVIEWS = ("books", "dvd", "electronics", "kitchen")


def amazon_reviews(config: DataConfig, seed: int) -> Pair:
    """Reviews of books, dvd, electronics and kitchen appliances (Chen et al. 2012; Ganin et al. 2016, section 5.1.3):
    counts of 5,000 words and word pairs, 2,000 reviews to train on and 3,586 to 5,945 to test on in each domain.
    """
    domains = []
    for key in ("source", "target"):
        name = getattr(config, key)
        check_name(f"data.{key}", name, REVIEWS)
        paths = [Path(config.root).expanduser() / f"{name}_{split}.svmlight.gz" for split in ("train", "test")]
        for path in paths:
            if not path.is_file():
                raise UserError(f"There is no file '{path}'; set data.root to the folder that holds the reviews.")
        splits = read_svmlight(*paths, features=5000)
        domains.append(
            Domain(
                name,
                *(Resident(transformed(x, config.transform), torch.from_numpy(y > 0).long()) for x, y, _ in splits),
            )
        )
    return Pair(*domains, ("bad", "good"))


DOMAINS: dict[str, Callable[[DataConfig, int], Pair]] = {
    "moons": moons,
    "digit_patches": digit_patches,
    "digit_cameras": digit_cameras,
    "images": images,
    "domain_folders": domain_folders,
    "vectors": vectors,
    "amazon_reviews": amazon_reviews,
}
