"""Pictures for people: grids of images, scatter plots of points. PNG files, and arrays for TensorBoard."""

from pathlib import Path

import matplotlib
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.utils import make_grid

from utils.datasets import Modes

matplotlib.use("Agg")
from matplotlib import pyplot

MIN_SIDE = 48  # pixels: smaller images are enlarged, smoothly, because people cannot read strokes in large squares


def picture(samples: Tensor, columns: int, modes: Modes | None = None) -> Tensor:
    """Draw samples as one uint8 picture ``[3, H, W]``.

    Images ``[N, C, R, R]`` in [-1, 1] become a grid with ``columns`` a row; points ``[N, 2]`` a scatter plot over the
    target's ``modes``.
    """
    return _grid(samples, columns) if samples.ndim == 4 else _scatter(samples, modes)


def save(image: Tensor, path: Path) -> Path:
    """Write a uint8 picture ``[3, H, W]`` as PNG, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(partial, format="PNG")
    return partial.replace(path)


def _grid(images: Tensor, columns: int) -> Tensor:
    zoom = -(-MIN_SIDE // images.shape[-1])
    images = images.float().cpu()
    if zoom > 1:
        images = interpolate(images, scale_factor=zoom, mode="bicubic")
    images = (images.clamp(-1, 1) + 1) * 127.5
    return make_grid(images, nrow=columns, padding=2, pad_value=255).round().to(torch.uint8)


def _scatter(points: Tensor, modes: Modes | None) -> Tensor:
    figure, axes = pyplot.subplots(figsize=(5, 5), dpi=100)
    if modes is not None:
        axes.scatter(*modes.centres.T, s=120, facecolors="none", edgecolors="tab:orange", label="target modes")
        reach = 1.3 * float(modes.centres.abs().max())
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach))
    axes.scatter(*points.cpu().T, s=3, alpha=0.4, color="tab:blue", label="samples")
    axes.set_aspect("equal")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)  # above: it must hide no mode
    figure.tight_layout()
    figure.canvas.draw()
    pixels = torch.tensor(bytearray(figure.canvas.buffer_rgba()), dtype=torch.uint8)
    pyplot.close(figure)
    height, width = figure.canvas.get_width_height()[::-1]
    return pixels.view(height, width, 4)[:, :, :3].permute(2, 0, 1).contiguous()
