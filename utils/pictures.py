"""Pictures for people: grids of images, scatter plots of points. PNG files, and arrays for TensorBoard."""

import itertools
from pathlib import Path
from typing import NamedTuple

import matplotlib
import torch
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.utils import make_grid

from utils.data.datasets import Modes

matplotlib.use("Agg")
from matplotlib import colormaps, pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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


class Cloud(NamedTuple):
    """Named features ``[n, D]`` and their classes ``[n]``."""

    name: str
    features: Tensor
    label: Tensor


class Plane(NamedTuple):
    """Classes predicted over a lattice of inputs (``u``, ``v``, ``predicted`` ``[H, W]``), and the points in it."""

    u: Tensor
    v: Tensor
    predicted: Tensor
    source: Tensor
    label: Tensor
    target: Tensor


def clouds(clouds: list[Cloud], class_names: tuple[str, ...], plane: Plane | None = None, tsne: bool = False) -> Tensor:
    """Features in two dimensions, by cloud and by class, and the decision boundary where there is a ``plane``.

    The dimensions are the two main directions of all features, or ``tsne``'s, which keeps neighbourhoods and takes
    seconds for a thousand points.
    """
    features = torch.cat([cloud.features for cloud in clouds])
    features = torch.nn.functional.pad(features, (0, max(0, 2 - features.shape[1])))  # a single feature makes a line
    reduce = TSNE(perplexity=min(30.0, (len(features) - 1) / 3), random_state=0) if tsne else PCA(2, random_state=0)
    flat = torch.from_numpy(reduce.fit_transform(features.numpy())).split([len(cloud.label) for cloud in clouds])
    panels = 2 if plane is None else 3
    figure, axes = pyplot.subplots(1, panels, figsize=(4.5 * panels, 5), dpi=100)
    colours = colormaps["tab10"]
    for i, (cloud, points) in enumerate(zip(clouds, flat, strict=True)):
        axes[0].scatter(*points.T, s=8, alpha=0.5, color=colours(i % 10), label=cloud.name)
        axes[1].scatter(
            *points.T, s=8, alpha=0.5, c=cloud.label % 10, cmap=colours, vmin=0, vmax=9, marker=".x+v^s"[i % 6]
        )
    axes[0].set_title("features by domain", pad=34)
    axes[0].legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False, fontsize="small")
    axes[1].set_title(f"features by class ({len(class_names)} colours)", pad=34)
    where = {"ha": "center", "va": "bottom", "fontsize": "small", "transform": axes[1].transAxes}
    axes[1].text(0.5, 1.02, "predicted where there is no label", **where)
    if plane is not None:
        _boundary(axes[2], plane)
    for panel in axes[:2]:
        panel.set(xticks=[], yticks=[])
    return _pixels(figure)


def _boundary(axes: Axes, plane: Plane) -> None:
    colours = colormaps["tab10"]
    axes.contourf(plane.u, plane.v, plane.predicted % 10, levels=[k - 0.5 for k in range(11)], cmap=colours, alpha=0.2)
    axes.scatter(*plane.source.T, s=8, c=plane.label % 10, cmap=colours, vmin=0, vmax=9, label="source")
    axes.scatter(*plane.target.T, s=8, c="black", marker="x", linewidths=0.7, label="target (no labels)")
    axes.set_title("inputs and predicted class", pad=34)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False, fontsize="small")
    axes.set_aspect("equal")


def confusion(matrix: Tensor, class_names: tuple[str, ...]) -> Tensor:
    """A confusion matrix ``[K, K]`` of counts: rows are true classes, shown as shares of their row."""
    share = matrix / matrix.sum(1, keepdim=True).clamp(min=1)
    K = len(class_names)
    figure, axes = pyplot.subplots(figsize=(max(4.0, 0.45 * K + 2), max(3.5, 0.45 * K + 1.5)), dpi=100)
    image = axes.imshow(share.numpy(), vmin=0, vmax=1, cmap="Blues")
    axes.set(xlabel="predicted", ylabel="true", xticks=range(K), yticks=range(K))
    axes.set_xticklabels(class_names, rotation=90)
    axes.set_yticklabels(class_names)
    if K <= 20:
        for row, column in itertools.product(range(K), range(K)):
            if count := int(matrix[row, column]):
                colour = "white" if share[row, column] > 0.5 else "black"
                axes.text(column, row, str(count), ha="center", va="center", fontsize=7, color=colour)
    figure.colorbar(image, label="share of the true class")
    return _pixels(figure)


def captioned(images: Tensor, captions: list[str], columns: int) -> Tensor:
    """Images ``[N, C, R, R]`` in [-1, 1] with a line of text above each."""
    rows = -(-len(images) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(columns, 1.2 * rows), dpi=100, squeeze=False)
    for panel in axes.flat:
        panel.axis("off")
    for panel, image, caption in zip(axes.flat, images, captions, strict=False):
        shown = ((image.clamp(-1, 1) + 1) / 2).permute(1, 2, 0).numpy()
        panel.imshow(shown, cmap="gray", vmin=0, vmax=1)
        panel.set_title(caption, fontsize=8, pad=2)
    return _pixels(figure)


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
    return _pixels(figure)


def _pixels(figure: Figure) -> Tensor:
    """Draw and close a figure: uint8 ``[3, H, W]``."""
    figure.tight_layout()
    figure.canvas.draw()
    pixels = torch.frombuffer(bytearray(figure.canvas.buffer_rgba()), dtype=torch.uint8)
    pyplot.close(figure)
    height, width = figure.canvas.get_width_height()[::-1]
    return pixels.view(height, width, 4)[:, :, :3].permute(2, 0, 1).contiguous()
