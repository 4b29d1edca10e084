"""Pictures for people: grids of images, scatter plots of points. PNG files, and arrays for TensorBoard."""

import importlib.util
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from utils.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Matplotlib, scikit-learn, Pillow, PyAV and torchvision are imported inside functions: commands start faster without.

MIN_SIDE = 48  # pixels: smaller images are enlarged, smoothly, because people cannot read strokes in large squares
FRAMES_PER_SECOND = 25
LONGEST_SIDE = {"webp": 16383, "gif": 65535, "mp4": 16384}  # pixels of a film, at most


def picture(x: Tensor, columns: int, centres: Tensor | None = None, aspect: float | None = None) -> Tensor:
    """Draw images or points as one uint8 picture ``[3, H, W]``.

    Images ``[N, C, H, W]`` in [-1, 1] become a grid with ``columns`` a row, each ``aspect`` times as wide as it is high
    if that is given: images that were stretched for training have their own shape again. Points ``[N, 2]`` become a
    scatter plot over the ``centres`` ``[K, 2]`` of the modes that they should cover.
    """
    if x.ndim != 4:
        return _scatter(x, centres)
    return _grid(unstretched(x, aspect), columns)


def save(image: Tensor, path: Path) -> Path:
    """Write a uint8 picture ``[3, H, W]`` as PNG, whole or not at all, and return the path."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(partial, format="PNG")
    return partial.replace(path)


def save_film(frames: Tensor, path: Path) -> Path:
    """Write uint8 frames ``[T, 3, H, W]`` as a WebP or GIF that begins again at its end, or as an MP4; return the path.

    Raises UserError for frames that are larger than the format can be.
    """
    form = path.suffix.lower().removeprefix(".")
    H, W = frames.shape[2:]
    if max(H, W) > LONGEST_SIDE[form]:
        raise UserError(
            f"{path.name} would be of {W} x {H} pixels, and a .{form} has at most {LONGEST_SIDE[form]} a side: ask for "
            "fewer images (--count) or other --columns."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    if form == "mp4":
        _write_mp4(frames, partial)
    else:
        from PIL import Image

        first, *others = (Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in frames)
        lasting = 1000 // FRAMES_PER_SECOND  # milliseconds
        first.save(partial, format=form, save_all=True, append_images=others, duration=lasting, loop=0)
    return partial.replace(path)


def check_mp4(text: str) -> None:
    """Raise UserError, which names the file ``text``, unless the package that writes MP4 is installed."""
    if importlib.util.find_spec("av") is None:
        raise UserError(f"'{text}' needs the package av: run 'pip install av', or name a .webp or .gif file.")


def _write_mp4(frames: Tensor, path: Path) -> None:
    import av

    H, W = frames.shape[2:]
    frames = pad(frames, (0, W % 2, 0, H % 2), value=255)  # one colour is stored for 2 x 2 pixels
    with av.open(str(path), "w", format="mp4") as file:
        stream = file.add_stream("libx264", rate=FRAMES_PER_SECOND, options={"crf": "18"})  # hardly any loss
        stream.height, stream.width, stream.pix_fmt = *frames.shape[2:], "yuv420p"
        for frame in frames:
            image = av.VideoFrame.from_ndarray(frame.permute(1, 2, 0).contiguous().numpy(), format="rgb24")
            file.mux(stream.encode(image))
        file.mux(stream.encode())  # the frames that it still holds back


def load(path: Path) -> Tensor | None:
    """The uint8 picture ``[3, H, W]`` in a PNG file, or None where there is none that is whole."""
    import numpy
    from PIL import Image

    try:
        with Image.open(path) as image:
            return torch.from_numpy(numpy.array(image.convert("RGB"))).permute(2, 0, 1)
    except (OSError, SyntaxError):  # Pillow finds an error of syntax in a broken PNG
        return None


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
    """Features in two dimensions, by cloud and by class, and the decision boundary if a ``plane`` is given.

    The dimensions are the two principal components of all features, or t-SNE's, which preserves neighbourhoods and
    takes seconds for a thousand points. Returns a uint8 picture ``[3, H, W]``.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    flat = _two_dimensions(torch.cat([cloud.features for cloud in clouds]), tsne)
    flat = flat.split([len(cloud.label) for cloud in clouds])
    panels = 2 if plane is None else 3
    figure = Figure(figsize=(4.5 * panels, 5), dpi=100)
    axes = figure.subplots(1, panels)
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
    axes[1].text(0.5, 1.02, "predicted for unlabelled samples", **where)
    if plane is not None:
        _boundary(axes[2], plane)
    for panel in axes[:2]:
        panel.set(xticks=[], yticks=[])
    return _pixels(figure)


def _two_dimensions(features: Tensor, tsne: bool) -> Tensor:
    """Features ``[n, D]`` as points ``[n, 2]``, by PCA or t-SNE."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    features = torch.nn.functional.pad(features, (0, max(0, 2 - features.shape[1])))  # a single feature makes a line
    # t-SNE's perplexity, about the number of neighbours, must be below the number of points.
    reduce = TSNE(perplexity=min(30.0, (len(features) - 1) / 3), random_state=0) if tsne else PCA(2, random_state=0)
    return torch.from_numpy(reduce.fit_transform(features.numpy()))


def _boundary(axes: "Axes", plane: Plane) -> None:
    from matplotlib import colormaps

    colours = colormaps["tab10"]
    axes.contourf(plane.u, plane.v, plane.predicted % 10, levels=[k - 0.5 for k in range(11)], cmap=colours, alpha=0.2)
    axes.scatter(*plane.source.T, s=8, c=plane.label % 10, cmap=colours, vmin=0, vmax=9, label="source")
    axes.scatter(*plane.target.T, s=8, c="black", marker="x", linewidths=0.7, label="target (no labels)")
    axes.set_title("inputs and predicted class", pad=34)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False, fontsize="small")
    axes.set_aspect("equal")


def confusion(matrix: Tensor, class_names: tuple[str, ...]) -> Tensor:
    """A confusion matrix ``[K, K]`` of counts as a uint8 picture ``[3, H, W]``.

    Rows are true classes; shades are shares of a row, and the numbers are the counts.
    """
    from matplotlib.figure import Figure

    share = matrix / matrix.sum(1, keepdim=True).clamp(min=1)
    K = len(class_names)
    figure = Figure(figsize=(max(4.0, 0.45 * K + 2), max(3.5, 0.45 * K + 1.5)), dpi=100)
    axes = figure.subplots()
    image = axes.imshow(share.numpy(), vmin=0, vmax=1, cmap="Blues")
    axes.set(xlabel="predicted", ylabel="true", xticks=range(K), yticks=range(K))
    axes.set_xticklabels(class_names, rotation=90)
    axes.set_yticklabels(class_names)
    if K <= 20:  # more numbers would be too small to read
        for row, column in itertools.product(range(K), range(K)):
            if count := int(matrix[row, column]):
                colour = "white" if share[row, column] > 0.5 else "black"
                axes.text(column, row, str(count), ha="center", va="center", fontsize=7, color=colour)
    figure.colorbar(image, label="share of the true class")
    return _pixels(figure)


def captioned(images: Tensor, captions: list[str], columns: int) -> Tensor:
    """Images ``[N, C, R, R]`` in [-1, 1] with a line of text above each: a uint8 picture ``[3, H, W]``."""
    from matplotlib.figure import Figure

    rows = -(-len(images) // columns)
    figure = Figure(figsize=(columns, 1.2 * rows), dpi=100)
    axes = figure.subplots(rows, columns, squeeze=False)
    for panel in axes.flat:
        panel.axis("off")
    for panel, image, caption in zip(axes.flat, images, captions, strict=False):
        shown = ((image.clamp(-1, 1) + 1) / 2).permute(1, 2, 0).numpy()
        panel.imshow(shown, cmap="gray", vmin=0, vmax=1)
        panel.set_title(caption, fontsize=8, pad=2)
    return _pixels(figure)


# --- gradients -------------------------------------------------------------------------------------------------------


def attributions(images: Tensor, captions: list[str], maps: dict[str, Tensor]) -> Tensor:
    """Images ``[N, C, R, R]`` in [-1, 1] under their captions, and below each a row of every map ``[N, C, R, R]``: a
    uint8 picture ``[3, H, W]``.

    Maps are summed over channels: red is positive, blue negative, white 0; full colour is each one's own 99th
    percentile.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(0.9 * len(images) + 0.6, 0.95 * (1 + len(maps)) + 0.4), dpi=100)
    axes = figure.subplots(1 + len(maps), len(images), squeeze=False)
    for panel in axes.flat:
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set_visible(False)
    for panel, image, caption in zip(axes[0], images.cpu(), captions, strict=True):
        panel.imshow(((image.clamp(-1, 1) + 1) / 2).permute(1, 2, 0).numpy(), cmap="gray", vmin=0, vmax=1)
        panel.set_title(caption, fontsize=7, pad=2)
    for row, (name, values) in zip(axes[1:], maps.items(), strict=True):
        row[0].set_ylabel(name.replace(" ", "\n"), fontsize=7)
        for panel, value in zip(row, values.sum(1).cpu(), strict=True):
            limit = max(float(value.abs().flatten().quantile(0.99)), 1e-30)
            panel.imshow(value.numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit)
    return _pixels(figure)


def score_field(u: Tensor, v: Tensor, score: Tensor, clouds: dict[str, tuple[Tensor, Tensor]], title: str) -> Tensor:
    """Scores over a lattice of the plane (``u``, ``v``, ``score`` ``[H, W]``), and in it named points ``[N, 2]`` with
    their gradients ``[N, 2]`` as arrows, all scaled alike: a uint8 picture ``[3, H, W]``. White is a score of 0.
    """
    from matplotlib.colors import CenteredNorm
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 5.5), dpi=100)
    axes = figure.subplots()
    filled = axes.contourf(u, v, score, levels=20, cmap="RdBu_r", alpha=0.6, norm=CenteredNorm())
    figure.colorbar(filled, label=title, shrink=0.7)
    colours = []
    for (name, (points, _)), colour in zip(clouds.items(), ("tab:green", "black"), strict=False):
        axes.scatter(*points.T, s=10, color=colour, label=name)
        colours += [colour] * len(points)
    points, gradients = (torch.cat(parts) for parts in zip(*clouds.values(), strict=True))
    axes.quiver(*points.T, *gradients.T, color=colours, width=0.003)  # one call: each has a scale of its own
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    axes.set_aspect("equal")
    return _pixels(figure)


def bars(rows: dict[str, tuple[list[str], Tensor]]) -> Tensor:
    """A panel of named horizontal bars for each entry, the first at the top, as long as the values are large, and red
    for positive ones, blue for negative ones: a uint8 picture ``[3, H, W]``.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3 * len(rows), 4.5), dpi=100)
    panels = figure.subplots(1, len(rows), squeeze=False)[0]
    for panel, (title, (names, values)) in zip(panels, rows.items(), strict=True):
        colours = ["tab:red" if value > 0 else "tab:blue" for value in values.tolist()]
        panel.barh(range(len(names)), values.abs().numpy(), color=colours)
        panel.set_yticks(range(len(names)), names, fontsize=7)
        panel.invert_yaxis()
        panel.set_title(title, fontsize=9)
    return _pixels(figure)


def spectra(values: Tensor) -> Tensor:
    """Singular values ``[N, n]`` of N Jacobians, as lines over their rank: a uint8 picture ``[3, H, W]``."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4), dpi=100)
    axes = figure.subplots()
    axes.semilogy(range(1, values.shape[1] + 1), values.clamp(min=1e-30).T.numpy(), marker=".")
    axes.set(xlabel="rank", ylabel="singular value", title="the generator's Jacobian, a line a sample")
    return _pixels(figure)


# --- helpers ---------------------------------------------------------------------------------------------------------


def _grid(images: Tensor, columns: int) -> Tensor:
    from torchvision.utils import make_grid

    zoom = -(-MIN_SIDE // min(images.shape[2:]))
    images = images.float().cpu()
    if zoom > 1:
        images = interpolate(images, scale_factor=zoom, mode="bicubic")
    images = (images.clamp(-1, 1) + 1) * 127.5
    return make_grid(images, nrow=columns, padding=2, pad_value=255).round().to(torch.uint8)


def unstretched(images: Tensor, aspect: float | None) -> Tensor:
    """Images ``[N, C, H, W]`` of which one side is longer, so that width / height is ``aspect`` if that is given."""
    if aspect is None:
        return images
    H, W = images.shape[2:]
    size = (H, round(H * aspect)) if aspect * H >= W else (round(W / aspect), W)
    return interpolate(images.float(), size, mode="bicubic")


def _scatter(points: Tensor, centres: Tensor | None) -> Tensor:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), dpi=100)
    axes = figure.subplots()
    if centres is not None:
        axes.scatter(*centres.T, s=120, facecolors="none", edgecolors="tab:orange", label="target modes")
        reach = 1.3 * float(centres.abs().max())  # fixed, whatever the points: pictures of a run can be compared
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach))
    axes.scatter(*points.cpu().T, s=3, alpha=0.4, color="tab:blue", label="samples")
    axes.set_aspect("equal")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)  # above: it must hide no mode
    return _pixels(figure)


def _pixels(figure: "Figure") -> Tensor:
    """Draw a figure: uint8 ``[3, H, W]``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)  # draws in memory: pyplot would keep every figure, and may want a display
    figure.tight_layout()
    canvas.draw()
    pixels = torch.frombuffer(bytearray(canvas.buffer_rgba()), dtype=torch.uint8)
    width, height = canvas.get_width_height()
    return pixels.view(height, width, 4)[:, :, :3].permute(2, 0, 1).contiguous()
