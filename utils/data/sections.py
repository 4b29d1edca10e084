"""The keys of ``data.*``."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from utils.errors import check_name

_DOMAINS = ("moons", "digit_patches", "digit_cameras", "images", "domain_folders", "vectors", "amazon_reviews")
REGISTRIES = {
    "generation": (
        "digits", "ring", "grid", "mnist", "fashion_mnist", "stacked_mnist", "cifar10", "folder", "zip",
    ),
    "adaptation": _DOMAINS,
    "invariance": _DOMAINS,
}  # fmt: skip


@dataclass
class DataConfig:
    """Fields of ``data.*``."""

    name: str = "digits"  # key of utils.data.datasets.DATASETS, or of utils.data.domains.DOMAINS for games of domains
    root: str = "data"  # folder (or .zip file) that holds the data; unused by sets that need no files
    source: str = ""  # games of domains: the labelled domain, a set, folder or file; folders may be joined, as "a+b"
    target: str = ""  # games of domains: the unlabelled domain
    photos: str = ""  # mnist_m: folder of photographs behind the digits
    validation: float = 0.1  # games of domains: share of the source held out, where it has no split of its own
    transform: str = "none"  # vectors, amazon_reviews: none, binary, log (of 1 + x) or unit (length 1)
    download: bool = False  # let torchvision fetch (stacked) MNIST, Fashion-MNIST, CIFAR-10, USPS or SVHN into root
    resolution: int = 8  # pixels of a side after `fit`; unused by points and vectors
    fit: str = "exact"  # exact: size must be right; pad: black borders; crop: centre square, resized with antialiasing
    mirror: bool = False  # random horizontal mirroring
    workers: Annotated[int, Ge(0)] = 2  # loader processes for sets too large to hold decoded
    resident_gib: Annotated[float, Ge(0)] = 4.0  # sets whose pixels fit in this live on the device, others are streamed


def data_section(name: str, game: str) -> type:
    """The dataclass of the keys of the data set ``name`` in a ``game``.

    Raises UserError, with the nearest valid names, for an unknown name of either.
    """
    check_name("game.name", game, REGISTRIES)
    check_name("data.name", name, REGISTRIES[game])
    return DataConfig
