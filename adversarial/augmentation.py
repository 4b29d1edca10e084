"""Augmentations of the images that the critic sees, real and fake, so that it cannot memorise a small data set.

Both sides are augmented, with independent draws, and the gradient reaches the generator through the augmentation.
DiffAugment (Zhao et al. 2020) changes every image; the pipeline of ADA (Karras et al. 2020) applies each of its
transforms with probability p, which a schedule gives (R3GAN: Huang et al. 2024) or the critic's overfitting moves.

ADA's pipeline differs from the authors' code in three ways. Pixels between pixels are interpolated linearly, not by a
sym6 wavelet filter of the doubled image. The mirrored border goes on without end, where theirs turns black after one
image's width. And p is clamped to [0, 1], theirs at 0 only: it can pass 1, where it changes no more, and takes as long
to come back.

All of it is differentiable twice with respect to the image: penalties are taken on the image *before* it. No sample
depends on another, so a single pass stays exact.

Images are ``[N, C, R, R]``, about [-1, 1].
"""

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from .draws import Draw
from .games import Augmentation, Transform

DIFFAUGMENT = ("colour", "translation", "cutout")
PIPELINE = ("blit", "geometry", "colour", "cutout")
ADA = {"blit": 1.0, "geometry": 1.0, "colour": 1.0}
REACH = 1 / 8  # the largest translation, as a share of the image: both papers' value
BILINEAR, NEAREST, ZEROS, REFLECTION = 0, 1, 0, 2  # ATen's numbers


# --- DiffAugment -----------------------------------------------------------------------------------------------------


def diffaugment(policy: tuple[str, ...] = DIFFAUGMENT) -> Augmentation:
    """Every transform of ``policy``, on every image (Zhao et al. 2020, section 3.2; sizes as in the authors' code)."""

    def augmentation(draw: Draw, stream: str, p: float | Tensor) -> Transform:
        transforms = [_DIFFAUGMENT[name](draw, f"{stream} {name}") for name in policy]
        return lambda x: reduce(lambda seen, transform: transform(seen), transforms, x)

    return augmentation


def _tint(draw: Draw, stream: str) -> Transform:
    """Brightness by up to ±1/2, saturation 0 to 2 times, contrast 1/2 to 3/2 times."""
    brightness, saturation, contrast = draw.uniform(stream, (3, 1, 1, 1)).unbind(1)

    def transform(x: Tensor) -> Tensor:
        x = x + (brightness - 0.5)
        grey = x.mean(1, keepdim=True)
        x = grey + 2 * saturation * (x - grey)
        level = x.mean((1, 2, 3), keepdim=True)
        return level + (contrast + 0.5) * (x - level)

    return transform


def _shift(draw: Draw, stream: str) -> Transform:
    """Whole pixels, up to an eighth of the image; zeros move in."""
    u = draw.uniform(stream, (2,))

    def transform(x: Tensor) -> Tensor:
        size = x.shape[-1]
        most = int(size * REACH + 0.5)
        pixels = torch.floor(u * (2 * most + 1)) - most
        return resampled(x, _move(pixels / size), NEAREST, ZEROS)

    return transform


def _hole(draw: Draw, stream: str) -> Transform:
    """Half the image's height and width become 0, around any point of it."""
    u = draw.uniform(stream, (2,))
    return lambda x: torch.where(_window(u, x), 0.0, x)


def _mirror(draw: Draw, stream: str) -> Transform:
    """Left is right in every other image. Not of DiffAugment, but of the consistency penalty (``penalties``)."""
    u = draw.uniform(stream, (1, 1, 1))
    return lambda x: torch.where(u < 0.5, x.flip(3), x)


_DIFFAUGMENT: dict[str, Callable[[Draw, str], Transform]] = {
    "colour": _tint,
    "translation": _shift,
    "cutout": _hole,
    "mirror": _mirror,
}


def _window(u: Tensor, x: Tensor) -> Tensor:
    """Which pixels lie in a square of half the image's size around the points ``u`` ``[N, 2]``: ``[N, 1, R, R]``."""
    size = x.shape[-1]
    width = size // 2
    begin = torch.floor(u * (size + 1 - width % 2)) - width // 2
    place = torch.arange(size, device=x.device)
    inside = (place >= begin[:, :, None]) & (place < begin[:, :, None] + width)
    return (inside[:, 0, :, None] & inside[:, 1, None, :])[:, None]


# --- ADA's pipeline --------------------------------------------------------------------------------------------------


def pipeline(policy: dict[str, float]) -> Augmentation:
    """ADA's transforms, each applied to an image with probability p (Karras et al. 2020, appendix B, figure 16).

    ``policy`` names groups and what multiplies p in each: blit (mirror, quarter turns, whole-pixel translation),
    geometry (scale, rotation, stretch, translation), colour (brightness, contrast, luma flip, hue, saturation) and
    cutout. ADA's "bgc" is the first three with 1; R3GAN's is those and cutout, colour with 1/2.

    Images need 1 or 3 channels where colours change.
    """

    def augmentation(draw: Draw, stream: str, p: float | Tensor) -> Transform:
        numbers = {
            group: _GROUPS[group](draw, f"{stream} {group}", torch.as_tensor(p) * multiplier)
            for group, multiplier in policy.items()
        }

        def transform(x: Tensor) -> Tensor:
            places = [numbers[group](x) for group in ("blit", "geometry") if group in numbers]
            if places:
                x = resampled(x, reduce(torch.matmul, places), BILINEAR, REFLECTION)
            for group in ("colour", "cutout"):
                x = numbers[group](x) if group in numbers else x
            return x

        return transform

    return augmentation


def _blit(draw: Draw, stream: str, p: Tensor) -> Callable[[Tensor], Tensor]:
    """Transforms that move whole pixels: a function from the image to ``[N, 3, 3]``, output places to input places."""
    happens, u = draw.uniform(stream, (3,)) < p, draw.uniform(f"{stream} sizes", (4,))
    flip = 1 - 2 * torch.floor(2 * u[:, 0]) * happens[:, 0]
    turn = _turn(math.pi / 2 * torch.floor(4 * u[:, 1]) * happens[:, 1])
    shift = REACH * (2 * u[:, 2:] - 1) * happens[:, 2:]

    def places(x: Tensor) -> Tensor:
        size = x.shape[-1]
        return _stretch(flip, torch.ones_like(flip)) @ turn @ _move(torch.round(shift * size) / size)

    return places


def _geometry(draw: Draw, stream: str, p: Tensor) -> Callable[[Tensor], Tensor]:
    """Scale, rotation before and after the anisotropic stretch, translation: a function to ``[N, 3, 3]``."""
    chance, u = draw.uniform(stream, (5,)), draw.uniform(f"{stream} angles", (2,))
    z = draw.normal(f"{stream} sizes", (4,))
    # Two rotations: one of them happens with probability p if each does with 1 - sqrt(1 - p).
    rotates = chance[:, :2] < 1 - torch.sqrt(1 - p.clamp(max=1))
    happens = chance[:, 2:] < p
    angle = math.pi * (2 * u - 1) * rotates
    scale, stretch = torch.exp2(0.2 * z[:, 0] * happens[:, 0]), torch.exp2(0.2 * z[:, 1] * happens[:, 1])
    move = _move(REACH * z[:, 2:] * happens[:, 2:])
    matrix = _stretch(1 / scale, 1 / scale) @ _turn(angle[:, 0]) @ _stretch(1 / stretch, stretch)
    matrix = matrix @ _turn(angle[:, 1]) @ move
    return lambda x: matrix


def _colour(draw: Draw, stream: str, p: Tensor) -> Transform:
    """An affine map of every pixel's colour, around the grey axis."""
    happens, u = draw.uniform(stream, (5,)) < p, draw.uniform(f"{stream} turns", (2,))
    z = draw.normal(f"{stream} sizes", (3,))
    brightness = 0.2 * z[:, 0] * happens[:, 0]
    contrast = torch.exp2(0.5 * z[:, 1] * happens[:, 1])[:, None, None]
    one = torch.eye(3, dtype=z.dtype, device=z.device)
    grey = torch.full_like(one, 1 / 3)  # projects on the grey axis (1, 1, 1) / √3
    flip = one - 2 * grey * (torch.floor(2 * u[:, 0]) * happens[:, 2])[:, None, None]
    hue = _about_grey(math.pi * (2 * u[:, 1] - 1) * happens[:, 3], grey)
    saturation = grey + (one - grey) * torch.exp2(z[:, 2] * happens[:, 4])[:, None, None]
    linear = saturation @ hue @ flip * contrast
    # Brightness is added first: contrast and the luma flip act on it, hue and saturation leave a grey as it is.
    offset = (linear @ brightness[:, None, None].expand(-1, 3, 1)).squeeze(2)

    def transform(x: Tensor) -> Tensor:
        a, b = linear.to(x.dtype), offset.to(x.dtype)
        if x.shape[1] == 1:  # a grey pixel (v, v, v) and the mean of what becomes of it
            return x * a.sum((1, 2))[:, None, None, None] / 3 + b.mean(1)[:, None, None, None]
        return torch.einsum("nij,njhw->nihw", a, x) + b[:, :, None, None]

    return transform


def _cutout(draw: Draw, stream: str, p: Tensor) -> Transform:
    """``_hole``, with probability p."""
    happens, u = draw.uniform(stream, (1, 1, 1)) < p, draw.uniform(f"{stream} places", (2,))
    return lambda x: torch.where(_window(u, x) & happens, 0.0, x)


_GROUPS: dict[str, Callable[[Draw, str, Tensor], Callable[[Tensor], Tensor]]] = {
    "blit": _blit,
    "geometry": _geometry,
    "colour": _colour,
    "cutout": _cutout,
}


# --- matrices, from the place of an output pixel to its place in the input, in units of half the image ----------------


def _move(shift: Tensor) -> Tensor:
    """Move the image right and down by ``shift`` ``[N, 2]``, in units of the image."""
    one, zero = torch.ones_like(shift[:, 0]), torch.zeros_like(shift[:, 0])
    return _matrix([[one, zero, -2 * shift[:, 0]], [zero, one, -2 * shift[:, 1]]])


def _stretch(x: Tensor, y: Tensor) -> Tensor:
    zero = torch.zeros_like(x)
    return _matrix([[x, zero, zero], [zero, y, zero]])


def _turn(angle: Tensor) -> Tensor:
    cos, sin, zero = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle)
    return _matrix([[cos, -sin, zero], [sin, cos, zero]])


def _matrix(rows: list[list[Tensor]]) -> Tensor:
    """``[N, 3, 3]`` from the first two rows."""
    zero, one = torch.zeros_like(rows[0][0]), torch.ones_like(rows[0][0])
    return torch.stack([torch.stack(row, dim=1) for row in [*rows, [zero, zero, one]]], dim=1)


def _about_grey(angle: Tensor, grey: Tensor) -> Tensor:
    """Rotations of colours about the grey axis by ``angle`` ``[N]``: ``[N, 3, 3]`` (Rodrigues' formula)."""
    one = torch.eye(3, dtype=grey.dtype, device=grey.device)
    across = (one.roll(1, 0) - one.roll(1, 1)) / math.sqrt(3)  # the cross product with (1, 1, 1) / √3
    cos, sin = torch.cos(angle)[:, None, None], torch.sin(angle)[:, None, None]
    return grey + cos * (one - grey) + sin * across


# --- resampling ------------------------------------------------------------------------------------------------------


def resampled(x: Tensor, matrix: Tensor, interpolation: int, padding: int) -> Tensor:
    """Images ``[N, C, R, R]`` with the pixel at place v taken from place M v, M of ``[N, 3, 3]``, a constant.

    Beyond the border there are zeros, or the image mirrored at its outermost pixels, which are not repeated (numpy's
    "reflect", as the authors pad). On GPUs the gradient is summed in no fixed order.
    """
    size = x.shape[-1]
    grid = affine_grid(matrix[:, :2].to(x.dtype), list(x.shape), align_corners=False)
    # Places are in units of half the image. With align_corners, grid_sample's are of half the way between the middles
    # of the outermost pixels, and there it mirrors; without, it would mirror at the image's edge and repeat these.
    return _Resample.apply(x, grid * (size / (size - 1)), interpolation, padding)


class _Resample(torch.autograd.Function):
    """``grid_sample`` with respect to the image alone, in which it is linear: so its gradient is its transpose, and
    the transpose's gradient is it again. Not every PyTorch that is supported can differentiate its own gradient.
    """

    @staticmethod
    def forward(x: Tensor, grid: Tensor, interpolation: int, padding: int) -> Tensor:
        modes = {BILINEAR: "bilinear", NEAREST: "nearest"}, {ZEROS: "zeros", REFLECTION: "reflection"}
        return grid_sample(x, grid, modes[0][interpolation], modes[1][padding], align_corners=True)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, grid, *ctx.modes = inputs
        ctx.shape = x.shape
        ctx.save_for_backward(grid)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor):
        (grid,) = ctx.saved_tensors
        return _Transpose.apply(gradient, grid, ctx.shape, *ctx.modes), None, None, None


class _Transpose(torch.autograd.Function):
    @staticmethod
    def forward(gradient: Tensor, grid: Tensor, shape: torch.Size, interpolation: int, padding: int) -> Tensor:
        like = torch.empty(shape, dtype=gradient.dtype, device=gradient.device)  # its values play no part
        backward = torch.ops.aten.grid_sampler_2d_backward
        return backward(gradient, like, grid, interpolation, padding, True, [True, False])[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        _, grid, _, *ctx.modes = inputs
        ctx.save_for_backward(grid)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor):
        (grid,) = ctx.saved_tensors
        return _Resample.apply(gradient, grid, *ctx.modes), None, None, None, None


# --- by name ---------------------------------------------------------------------------------------------------------

SCHEDULED, ADAPTIVE = "scheduled", "ada"
NAMES = ("none", "diffaugment", SCHEDULED, ADAPTIVE)


def augmentation(name: str, policy: list[str]) -> Augmentation | None:
    """An augmentation by its name and the transforms in it; an empty ``policy`` is the paper's.

    ``diffaugment`` changes every image. ``scheduled`` and ``ada`` are the pipeline, whose groups may be written with
    what multiplies p, as in "colour:0.5". Raises ValueError for a transform that there is not, or no multiplier.
    """
    if name == "none":
        return None
    if name == "diffaugment":
        _check_policy(policy, DIFFAUGMENT)
        return diffaugment(tuple(policy) or DIFFAUGMENT)
    parts = {group: _multiplier(given) for group, _, given in (entry.partition(":") for entry in policy)}
    _check_policy(list(parts), PIPELINE)
    return pipeline(parts or ADA)


def _multiplier(given: str) -> float:
    try:
        value = float(given or 1)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ValueError(f"the multiplier '{given}' is no number from 0 up; write it as in colour:0.5")
    return value


def resamples(name: str, policy: list[str]) -> bool:
    """Whether the augmentation moves pixels about; PyTorch's gradient of that is not deterministic on GPUs."""
    whole = {"none": (), "diffaugment": DIFFAUGMENT}.get(name, PIPELINE)
    return any(entry.partition(":")[0] in ("translation", "blit", "geometry") for entry in policy or whole)


def _check_policy(policy: list[str], valid: tuple[str, ...]) -> None:
    if unknown := [name for name in policy if name not in valid]:
        raise ValueError(f"'{unknown[0]}' is unknown; valid are: {', '.join(valid)}")
