"""What domain-adversarial games train on: a labelled source, an unlabelled target, and what each is measured on.

Target labels exist in one place, ``Domains.oracle``, which only reports read: neither training nor the choice of a
model sees them. (``target_only``, the upper bound, trains on them and says so: there the target *is* the source.)

A new pair of domains is one function ``(config, seed) -> Pair`` and one line of ``DOMAINS``; the annotation of
``config`` is the dataclass of its keys of ``data.*``. It needs the key ``validation`` if a domain comes without a
held-out split.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from utils.data.domain_folders import domain_folders
from utils.data.files import reason
from utils.data.fitting import Images, check_size
from utils.data.image_pairs import digit_cameras, digit_patches, images
from utils.data.pairs import Pair
from utils.data.points import moons
from utils.data.samples import Samples
from utils.data.vectors import amazon_reviews, vectors
from utils.errors import UserError, check_name

DOMAINS: dict[str, Callable[[Any, int], Pair]] = {
    "moons": moons,
    "digit_patches": digit_patches,
    "digit_cameras": digit_cameras,
    "images": images,
    "domain_folders": domain_folders,
    "vectors": vectors,
    "amazon_reviews": amazon_reviews,
}


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

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences that a run says of its data as it starts."""
        files = (getattr(samples, "files", None) for samples in (self.train, self.target))
        return tuple(note for found in files if found is not None for note in found.notes)


def load(config: Any, seed: int, target_only: bool = False) -> Domains:
    """The pair of domains that ``config`` names; with ``target_only`` the target's labelled samples are the source too.

    Raises UserError if the source has no labels, the label sets differ, or data cannot be read.
    """
    check_name("data.name", config.name, DOMAINS)
    if isinstance(config, Images):
        check_size(config)
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
        train, validation = _split(source.train, config.validation, f"The source '{source.name}'", classes)
    # The upper bound is not measured on the samples that it was trained on.
    oracle = target.test or (validation if target_only else target.train)
    return Domains(
        config.name, (source.name, target.name), train.shape, classes, attributes, train, validation,
        target.train.unlabelled(), oracle if oracle.label is not None else None,
    )  # fmt: skip


def _split(samples: Samples, share: float, what: str, classes: tuple[str, ...]) -> tuple[Samples, Samples]:
    """Training and validation samples, each class in proportion; the same for every seed."""
    from sklearn.model_selection import train_test_split  # here for a fast start-up

    if not 0 < share < 1:
        raise UserError(f"data.validation is {share} and must be between 0 and 1.")
    counts = torch.bincount(samples.label, minlength=len(classes)).tolist()
    if alone := [name for name, count in zip(classes, counts, strict=True) if count == 1]:
        raise UserError(
            f"{what} has one sample of the class '{alone[0]}', and the split into training and validation needs two: "
            "add one, or remove the class."
        )
    try:
        train, held_out = train_test_split(range(len(samples)), test_size=share, random_state=0, stratify=samples.label)
    except ValueError as error:
        raise UserError(
            f"{what} cannot be split with data.validation={share} ({reason(error)}); raise it, or add samples."
        ) from None
    return samples.part(torch.tensor(sorted(train))), samples.part(torch.tensor(sorted(held_out)))
