"""Two domains over the same classes, as a set of ``utils.data.domains.DOMAINS`` gives them."""

from collections.abc import Sequence
from typing import NamedTuple

from utils.data.samples import Samples
from utils.errors import UserError


class Domain(NamedTuple):
    """One domain: its name, its samples, labelled or not, and a held-out split if it comes with one."""

    name: str
    train: Samples
    test: Samples | None = None


class Pair(NamedTuple):
    """Two domains over the same classes. ``attributes`` names the values of the source samples' attribute."""

    source: Domain
    target: Domain
    classes: tuple[str, ...]
    attributes: tuple[str, ...] = ()


def check_classes(a: str, ours: Sequence, b: str, theirs: Sequence) -> None:
    """Raise UserError if the classes of the domains ``a`` and ``b`` differ; a domain without labels fits any."""
    if ours and theirs and list(ours) != list(theirs):
        _refuse(a, ours, b, theirs)


def check_target_classes(a: str, ours: Sequence, b: str, theirs: Sequence) -> None:
    """Raise UserError if the target ``b`` has classes that the source ``a`` lacks.

    It may have fewer: no label of it is used in training, and reports measure the classes that there are.
    """
    if ours and not set(theirs) <= set(ours):
        _refuse(a, ours, b, theirs)


def _refuse(a: str, ours: Sequence, b: str, theirs: Sequence) -> None:
    missing, extra = (", ".join(map(str, sorted(set(x) - set(y))[:5])) for x, y in ((ours, theirs), (theirs, ours)))
    parts = [f"'{b}' lacks {missing}"] if missing else []
    parts += [f"'{a}' lacks {extra}"] if extra else []
    raise UserError(f"The classes of '{a}' and '{b}' differ ({'; '.join(parts)}): both domains need the same ones.")
