"""Explanations of a run's networks: which pixels or features a score hangs on, and what moves a generator's samples."""

import copy
import textwrap
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from adversarial.draws import rng
from adversarial.gradients import spectrum
from adversarial.penalties import path_lengths
from utils import pictures
from utils.errors import UserError, check_name, nearest
from utils.evaluation.attribution import ATTRIBUTIONS, Score, baseline, grad_cam, layers_with_maps
from utils.evaluation.records import Record, record
from utils.evaluation.sampling import evaluating, every_class, has_mapping, latents
from utils.tasks.task import Explanation

LATTICE = 60  # points of a score's field along either axis
TOP = 15  # features in a picture of vectors
DIRECTIONS, COLUMNS, REACH = 5, 7, 2.0  # rows and columns of a picture of directions, which go so many deviations far
FOR_SPREAD = 64  # styles of which that deviation is taken


class Scored(NamedTuple):
    """Named samples ``[N, ...]`` on the networks' device, and the score of each that is to be explained."""

    name: str
    x: Tensor
    score: Score


# --- scores ----------------------------------------------------------------------------------------------------------


def explain_score(
    name: str, output: str, sides: list[Scored], field: Score, network: nn.Module, layer: str = ""
) -> Explanation:
    """Attributions of a score of the ``network`` on all sides, Grad-CAM at one of its layers among them where ``layer``
    names it. ``output`` names the score, ``name`` the picture.

    Images are shown as rows of maps, points in the plane with their gradients over the score's ``field``, a function of
    points ``[n, 2]``, and vectors as the features that matter most. Raises UserError for a layer that gives no maps.
    """
    found, records, methods = [], [], dict(ATTRIBUTIONS)
    with evaluating(network):
        if layer:
            methods[f"Grad-CAM at {layer}"] = partial(grad_cam, layer=_layer(layer, network, sides))
        for side in sides:
            found.append({method: attribute(side.score, side.x) for method, attribute in methods.items()})
            records += [_record(output, side, method, values) for method, values in found[-1].items()]
        shape = sides[0].x.shape[1:]
        if len(shape) == 3:
            picture = _maps(sides, found)
        elif shape == (2,):
            picture = _field(output, sides, found, field)
        else:
            picture = _features(found)
    return Explanation({name: picture}, records)


def _layer(name: str, network: nn.Module, sides: list[Scored]) -> nn.Module:
    """The layer of this name. Raises UserError for one that does not exist or gives no maps."""
    layers = {k: layer for side in sides for k, layer in layers_with_maps(side.score, side.x, network).items()}
    if not layers:
        raise UserError(
            f"--layer {name} is for images: no layer gives maps [N, C, H, W] of these samples; leave it out."
        )
    if name not in layers and name in dict(network.named_modules()):
        raise UserError(f"Layer {name!r} gives no maps [N, C, H, W]; {nearest(name, sorted(layers))}.")
    check_name("Layer", name, layers)
    return layers[name]


def joined(parts: list[Explanation]) -> Explanation:
    """All pictures and records."""
    found = {name: image for part in parts for name, image in part.pictures.items()}
    return Explanation(found, [record for part in parts for record in part.records])


@torch.no_grad()
def _record(output: str, side: Scored, method: str, values: Tensor) -> Record:
    """What is known of an attribution in numbers; of vectors, the features that matter most."""
    scores = side.score(side.x)
    about = {"output": output, "side": side.name, "method": method, "samples": len(side.x), "scores": scores.tolist()}
    if method == "integrated gradients":  # what they should sum to, and by how much they miss it
        change = float((scores - side.score(baseline(side.x))).sum())
        about |= {"change": change, "missed": float(values.sum()) - change}
    if values.ndim == 2:
        about["features"] = _top(values).tolist()
    norms = values.flatten(1).norm(dim=1)
    note = f" is the mean norm of the {method} of the {output} at {len(side.x)} samples, {side.name}"
    return record("attribution", float(norms.mean()), "", note, norms=norms.tolist(), **about)


@torch.no_grad()
def _maps(sides: list[Scored], found: list[dict[str, Tensor]]) -> Tensor:
    captions = []
    for side in sides:
        scores = side.score(side.x)
        name = textwrap.fill(side.name, 14)  # about the width of an image
        captions += [f"{name}\n{value:.2f}" for value in scores.repeat_interleave(len(side.x) // len(scores)).tolist()]
    maps = {method: torch.cat([values[method] for values in found]) for method in found[0]}
    return pictures.attributions(torch.cat([side.x for side in sides]), captions, maps)


@torch.no_grad()
def _field(output: str, sides: list[Scored], found: list[dict[str, Tensor]], field: Score) -> Tensor:
    points = torch.cat([side.x for side in sides])
    low, high = points.min(0).values, points.max(0).values
    margin = 0.2 * (high - low).max().clamp(min=0.1)
    ends = zip((low - margin).tolist(), (high + margin).tolist(), strict=True)
    axes = [torch.linspace(*pair, LATTICE) for pair in ends]
    u, v = torch.meshgrid(*axes, indexing="xy")
    score = field(torch.stack([u, v], dim=-1).flatten(0, 1).to(points)).unflatten(0, u.shape)
    clouds = {side.name: (side.x.cpu(), values["gradient"].cpu()) for side, values in zip(sides, found, strict=True)}
    return pictures.score_field(u, v, score.cpu(), clouds, output)


def _features(found: list[dict[str, Tensor]]) -> Tensor:
    """The features with the largest attributions over all sides: their mean size, with the sign of their mean; a panel
    for each way to attribute.
    """
    rows = {}
    for method in found[0]:
        values = torch.cat([side[method] for side in found])
        top = _top(values)
        signed = values.abs().mean(0) * values.mean(0).sign()
        rows[method] = ([f"feature {i}" for i in top.tolist()], signed[top].cpu())
    return pictures.bars(rows)


def _top(values: Tensor) -> Tensor:
    """The indices of the features ``[N, D]`` with the largest mean size, the largest first."""
    return values.abs().mean(0).topk(min(TOP, values.shape[1])).indices


# --- a generator's Jacobian ------------------------------------------------------------------------------------------


def explain_generator(
    generator: nn.Module, latent_dim: int, classes: int, shape: tuple[int, ...], count: int, seed: int, chunk: int
) -> Explanation:
    """How far samples move with the latent z, or with the style w of a generator that has a mapping network: singular
    values and condition number of the Jacobian (Odena et al. 2018) and path lengths (Karras et al. 2020) at ``count``
    latents, and for images the directions that change the first of them most.

    In float64, in which small singular values are right. Raises UserError if that takes too much memory.
    """
    generator = copy.deepcopy(generator).double().eval().requires_grad_(False)
    device = next(generator.parameters()).device
    # Of one sample, styles would have no standard deviation.
    drawn = max(count, FOR_SPREAD)
    z = latents(drawn, latent_dim, seed).to(device, torch.float64)
    label = every_class(drawn, classes)
    label = None if label is None else label.to(device)
    point, make, spread, space = _moved(generator, z, label)
    z, label = z[:count], None if label is None else label[:count]
    try:
        found = [spectrum(_of_one(make, label, i), point[i], chunk) for i in range(count)]
    except MemoryError as error:
        what = str(error).partition(":")[0]
        raise UserError(f"{what}: use a smaller --chunk than {chunk}, or run.device=cpu.") from None
    values = torch.stack([spectrum.values for spectrum in found]).cpu()
    numbers = [_finite(spectrum.condition_number) for spectrum in found]
    noise = torch.randn(count, *shape, generator=rng(seed, "path"), dtype=torch.float64).to(device)
    lengths = _path_lengths(generator, z, label, noise).tolist()
    about = {"space": space, "samples": count, "seed": seed}
    of_condition = {"values": numbers, "singular_values": values.tolist(), **about}
    of_length = {"values": lengths, **about}
    records = [
        record("condition number", _median(numbers), "", f" of the Jacobian by {space}, median of {count} samples",
               **of_condition),
        record("path length", sum(lengths) / count, "", f" by {space}, mean of {count} samples", **of_length),
    ]  # fmt: skip
    made = {"singular-values": pictures.spectra(values)}
    if len(shape) == 3:
        first = found[0]
        made["directions"] = _walks(_of_one(make, label, 0), point[0], first.values, first.directions * spread)
    return Explanation(made, records)


Make = Callable[[Tensor, Tensor | None], Tensor]


@torch.no_grad()
def _moved(generator: nn.Module, z: Tensor, label: Tensor | None) -> tuple[Tensor, Make, float, str]:
    """What is moved (latents or styles ``[N, d]``), the function of it that makes samples, its standard deviation in
    one dimension, and its name.
    """
    if not has_mapping(generator):
        return z, generator, 1.0, "z"
    styles = generator.map(z, label)  # the mapping ignores the length of z: by z the Jacobian is singular
    w, layers = styles[:, 0], styles.shape[1]
    return w, lambda w, _: generator.synthesise(w[:, None].expand(-1, layers, -1)), float(styles.std(0).mean()), "w"


def _path_lengths(generator: nn.Module, z: Tensor, label: Tensor | None, noise: Tensor) -> Tensor:
    """|Jᵀ y| of each sample for the noise y, by z or, as the penalty takes it, by the styles of all layers."""
    if not has_mapping(generator):
        z.requires_grad_()
        return path_lengths(generator(z, label), z, noise).detach()
    with torch.no_grad():
        styles = generator.map(z, label)
    styles.requires_grad_()
    return path_lengths(generator.synthesise(styles), styles, noise).detach()


def _of_one(make: Make, label: Tensor | None, i: int) -> Callable[[Tensor], Tensor]:
    """Latent ``[d]`` i to its sample."""
    of_class = None if label is None else label[i : i + 1]
    return lambda x: make(x[None], of_class)[0]


@torch.no_grad()
def _walks(make: Callable[[Tensor], Tensor], start: Tensor, values: Tensor, directions: Tensor) -> Tensor:
    """A row for each of the first ``directions``, from ``start`` both ways along it."""
    rows = min(DIRECTIONS, len(directions))
    ways = torch.linspace(-REACH, REACH, COLUMNS, dtype=torch.float64).tolist()
    images = torch.stack([make(start + way * directions[row]) for row in range(rows) for way in ways])
    captions = [f"σ = {values[row]:.3g}" if way == ways[0] else f"{way:+.1f}" for row in range(rows) for way in ways]
    return pictures.captioned(images.float().cpu(), captions, COLUMNS)


def _finite(value: Tensor) -> float | None:
    """A number that JSON can hold."""
    return float(value) if bool(torch.isfinite(value)) else None


def _median(numbers: list[float | None]) -> float | None:
    """None, the condition number of a singular Jacobian, counts as infinite."""
    return _finite(torch.tensor([float("inf") if number is None else number for number in numbers]).quantile(0.5))
