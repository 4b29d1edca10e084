"""Pairs of image sets as domains: any two of ``IMAGE_SETS``, and scikit-learn's digits on photographs."""

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from annotated_types import Gt, Lt
from torch import Tensor

from adversarial.draws import rng
from utils.data.fitting import Images, resize, size_of
from utils.data.image_sets import DIGITS, IMAGE_SETS, MnistM, digit_splits
from utils.data.pairs import Domain, Pair, check_target_classes
from utils.data.photographs import blend, sample_photographs
from utils.data.samples import DataSet, Resident
from utils.errors import check_name

ROOMS = 5


@dataclass
class ImagePair(MnistM):
    """Fields of ``data.*`` for two image sets: the keys of all of them."""

    source: str = ""  # the labelled domain: a key of utils.data.image_sets.IMAGE_SETS
    target: str = ""  # the unlabelled domain: another one


def images(config: ImagePair, seed: int) -> Pair:
    """Two sets of ``IMAGE_SETS`` over the same classes, at ``data.resolution``; in colour if one of the two is."""
    for key in ("source", "target"):
        check_name(f"data.{key}", getattr(config, key), IMAGE_SETS)
    source, target = (IMAGE_SETS[name](replace(config, name=name), seed) for name in (config.source, config.target))
    check_target_classes(source.name, source.class_names, target.name, target.class_names)
    channels = max(source.shape[0], target.shape[0])
    theirs = torch.tensor([source.class_names.index(name) for name in target.class_names])
    return Pair(_domain(source, channels), _domain(target, channels, theirs), source.class_names)


def _domain(data: DataSet, channels: int, numbers: Tensor | None = None) -> Domain:
    """A set as a domain; gray images repeat their channel where ``channels`` is 3. Class i becomes ``numbers[i]``."""
    splits = (
        Resident(split.x.expand(-1, channels, -1, -1), split.label if numbers is None else numbers[split.label])
        for split in (data.train, data.test)
    )
    return Domain(data.name, *splits)


def digit_patches(config: Images, seed: int) -> Pair:
    """Scikit-learn's digits, and the same digits on patches of its two photographs (``blend``).

    The patches are the same at every epoch.
    """
    (train, label), (test, test_label) = _digits(config)
    photos = sample_photographs()
    source = Domain(
        "digits", Resident(train.expand(-1, 3, -1, -1), label), Resident(test.expand(-1, 3, -1, -1), test_label)
    )
    target = Domain(
        "digits on photographs",
        Resident(blend(train, photos, seed, "train"), label),
        Resident(blend(test, photos, seed, "test"), test_label),
    )
    return Pair(source, target, DIGITS)


@dataclass
class DigitCameras(Images):
    """Fields of ``data.*`` for digits in rooms."""

    validation: Annotated[float, Gt(0), Lt(1)] = 0.1  # game.method=target_only: share of the fifth room held out


def digit_cameras(config: DigitCameras, seed: int) -> Pair:
    """Digits on the walls of four rooms, which are the attribute; the target is a fifth room, never seen.

    A wall is a fifth of a photograph, its contrast and colours those of the room's own camera.
    """
    (train, label), (test, test_label) = _digits(config)
    walls = sample_photographs()[0].chunk(ROOMS, dim=2)
    tint = 0.3 + 0.7 * torch.rand(ROOMS, 3, 1, 1, generator=rng("cameras"))

    def photograph(x: Tensor, room: Tensor, name: str) -> Tensor:
        """Digits ``[n, 1, H, W]``, each on the wall of its ``room`` ``[n]``."""
        on_every_wall = torch.stack([blend(x, [wall], seed, name, i) * tint[i] for i, wall in enumerate(walls)])
        return on_every_wall[room, torch.arange(len(x))].round().to(torch.uint8)

    def in_four_rooms(x: Tensor, y: Tensor, name: str) -> Resident:
        room = torch.randint(ROOMS - 1, (len(x),), generator=rng(seed, "cameras", name))
        return Resident(photograph(x, room, name), y, room)

    source = Domain("four rooms", in_four_rooms(train, label, "train"), in_four_rooms(test, test_label, "test"))
    fifth = torch.full((len(test),), ROOMS - 1)
    target = Domain("a fifth room", Resident(photograph(test, fifth, "fifth"), test_label))
    return Pair(source, target, DIGITS, tuple(f"room {i + 1}" for i in range(ROOMS - 1)))


def _digits(config: Images) -> list[tuple[Tensor, Tensor]]:
    """Training and held-out digits as uint8 ``[n, 1, H, W]``, in the split that the generation recipes use."""
    return [(resize(x, size_of(config)), label) for x, label in digit_splits()]
