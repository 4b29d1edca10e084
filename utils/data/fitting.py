"""Images of any size to R x R pixels, and the keys of ``data.*`` that say how."""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from annotated_types import Ge
from torch import Tensor

from utils.errors import UserError, check_name

Fit = Literal["exact", "pad", "crop"]


@dataclass
class Images:
    """Fields of ``data.*`` for images that are drawn at the wanted resolution."""

    name: str = "digits"  # key of utils.data.datasets.DATASETS, or of utils.data.domains.DOMAINS for games of domains
    resolution: Annotated[int, Ge(1)] = 8  # pixels of a side, as the networks see the images
    mirror: bool = False  # random horizontal mirroring


@dataclass
class FittedImages(Images):
    """Fields of ``data.*`` for images of any size."""

    fit: Fit = "exact"  # exact: size must be right; pad: black borders; crop: centre square, resized with antialiasing


def check_size(config: Images) -> None:
    """Raise UserError for an unknown ``data.fit`` or a ``data.resolution`` below 1."""
    if isinstance(config, FittedImages):
        check_name("data.fit", config.fit, get_args(Fit))
    if config.resolution < 1:
        raise UserError(f"data.resolution={config.resolution} is no image size; set it to 1 or more.")


def fit(x: Tensor, resolution: int, how: Fit, what: str) -> Tensor:
    """Return uint8 images ``[..., C, H, W]`` as ``[..., C, resolution, resolution]``.

    Raises UserError, which calls the images ``what``, if ``how`` cannot bring them to that size.
    """
    H, W = x.shape[-2:]
    if H == W == resolution:
        return x
    # Torchvision takes a second to import, and the modules that registries import must load fast.
    from torchvision.transforms.v2 import functional as tv

    if how == "crop":
        return resize(tv.center_crop(x, [min(H, W)]), resolution)
    if how == "exact" or max(H, W) > resolution:
        raise _wrong_size((W, H), resolution, how, what)
    left, top = (resolution - W) // 2, (resolution - H) // 2
    return tv.pad(x, [left, top, resolution - W - left, resolution - H - top])


def resize(x: Tensor, resolution: int) -> Tensor:
    """Return square uint8 images ``[..., C, S, S]`` at another resolution: bicubic, with antialiasing."""
    from torchvision.transforms.v2 import InterpolationMode  # here for a fast start-up
    from torchvision.transforms.v2 import functional as tv

    return tv.resize(x, [resolution, resolution], InterpolationMode.BICUBIC, antialias=True)


def _wrong_size(size: tuple[int, int], resolution: int, how: Fit, what: str) -> UserError:
    remedies = ["data.fit=crop"]
    if max(size) <= resolution:
        remedies.insert(0, "data.fit=pad")
    if how == "pad":
        remedies.append(f"data.resolution={max(size)} if no image is larger")
    elif size[0] == size[1]:
        remedies.append(f"data.resolution={size[0]} if all images have that size")
    return UserError(
        f"{what} has {size[0]}x{size[1]} pixels and data.fit={how} asks for {'at most ' if how == 'pad' else ''}"
        f"{resolution}x{resolution}; set {' or '.join(remedies)}."
    )
