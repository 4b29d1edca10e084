"""Images of any size to H x W pixels, and the keys of ``data.*`` that say how."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from annotated_types import Ge, Le
from torch import Tensor

from utils.data.decoding import rgb
from utils.errors import UserError, check_name

Fit = Literal["exact", "pad", "crop", "stretch"]


@dataclass(frozen=True, eq=False)
class Either:
    """Constraint of an ``Annotated[Any, ...]`` whose values are of more than one type: ``holds`` tells good ones."""

    words: str
    holds: Callable[[Any], bool]


def _is_size(value: Any) -> bool:
    sides = value if isinstance(value, list) and len(value) == 2 else [value]
    return all(type(side) is int and side >= 1 for side in sides)  # type: True is an int to isinstance


def _is_colour(value: Any) -> bool:
    try:
        return bool(rgb(value))
    except (ValueError, TypeError):
        return False


Resolution = Annotated[Any, Either("a whole number from 1 up or two of them, [height,width]", _is_size)]
Colour = Annotated[Any, Either("a colour's name, a gray level from 0 to 255 or three such numbers", _is_colour)]


@dataclass
class Images:
    """Fields of ``data.*`` for images that are drawn at the wanted resolution."""

    name: str = "digits"  # key of utils.data.datasets.DATASETS, or of utils.data.domains.DOMAINS for games of domains
    resolution: Resolution = 8  # pixels of a side, as the networks see the images; or [height,width]
    mirror: bool = False  # random horizontal mirroring


@dataclass
class FittedImages(Images):
    """Fields of ``data.*`` for images of any size."""

    fit: Fit = "exact"  # exact: size must be right; pad: black borders; crop: centre, resized; stretch: resized alone


@dataclass
class ImageFiles(FittedImages):
    """Fields of ``data.*`` for image files."""

    root: str = "data"  # folder (or .zip file) that holds the images
    background: Colour = "black"  # what transparent pixels show: a name, a gray level or [red,green,blue], 0 to 255
    workers: Annotated[int, Ge(0), Le(1024)] = 2  # loader processes for sets too large to hold decoded
    resident_gib: Annotated[float, Ge(0)] = 4.0  # sets whose pixels fit in this are kept on the device, others streamed


def check_size(config: Images) -> None:
    """Raise UserError for an unknown ``data.fit`` or a ``data.resolution`` that is no size."""
    if isinstance(config, FittedImages):
        check_name("data.fit", config.fit, get_args(Fit))
    if not _is_size(config.resolution):
        raise UserError(f"data.resolution={config.resolution} is no image size; set it to 1 or more.")


def size_of(config: Images) -> tuple[int, int]:
    """Height and width of ``data.resolution``."""
    height, width = config.resolution if isinstance(config.resolution, list) else [config.resolution] * 2
    return height, width


def fit(x: Tensor, size: tuple[int, int], how: Fit, what: str) -> Tensor:
    """Return uint8 images ``[..., C, h, w]`` as ``[..., C, H, W]``, where ``size`` is (H, W).

    Raises UserError, which calls the images ``what``, if ``how`` cannot bring them to that size.
    """
    h, w = x.shape[-2:]
    H, W = size
    if (h, w) == (H, W):
        return x
    # Torchvision takes a second to import, and the modules that registries import must load fast.
    from torchvision.transforms.v2 import functional as tv

    if how == "stretch":
        return resize(x, size)
    if how == "crop":
        scale = min(h / H, w / W)  # the largest part of the shape of H x W
        return resize(tv.center_crop(x, [min(h, round(scale * H)), min(w, round(scale * W))]), size)
    if how == "exact" or h > H or w > W:
        raise _wrong_size((h, w), size, how, what)
    left, top = (W - w) // 2, (H - h) // 2
    return tv.pad(x, [left, top, W - w - left, H - h - top])


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Return uint8 images ``[..., C, h, w]`` as ``[..., C, *size]``: bicubic, with antialiasing."""
    from torchvision.transforms.v2 import InterpolationMode  # here for a fast start-up
    from torchvision.transforms.v2 import functional as tv

    return tv.resize(x, list(size), InterpolationMode.BICUBIC, antialias=True)


def _wrong_size(found: tuple[int, int], wanted: tuple[int, int], how: Fit, what: str) -> UserError:
    remedies = ["data.fit=crop", "data.fit=stretch"]
    if found[0] <= wanted[0] and found[1] <= wanted[1]:
        remedies.insert(0, "data.fit=pad")
    # Only sizes that all families of networks make: powers of two, from 8 pixels up.
    larger = max(8, 1 << (max(found) - 1).bit_length())
    if how == "pad":
        remedies.append(f"data.resolution={larger} if no image is larger")
    elif found == (larger, larger):
        remedies.append(f"data.resolution={larger} if all images have that size")
    (h, w), (H, W) = found, wanted
    return UserError(
        f"{what} has {w}x{h} pixels (width x height) and data.fit={how} asks for {'at most ' if how == 'pad' else ''}"
        f"{W}x{H}; set {' or '.join(remedies)}."
    )
