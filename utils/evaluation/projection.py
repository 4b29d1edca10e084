"""Projection: the latent, or the style w, from which a generator makes a given image."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from utils.evaluation import sampling
from utils.evaluation.sampling import evaluating, every_class, has_mapping, latents
from utils.evaluation.spaces import Space

POOL = 256  # random samples, of which the nearest ones are where searches start
RATE = 0.1  # Adam's first learning rate, in standard deviations of random points

Embedding = Callable[[Tensor], Tensor]  # images [N, C, H, W] in [-1, 1] to [N, D], whose squared distances are compared


class Found(NamedTuple):
    """What was found for N images, on the CPU."""

    point: Tensor  # [N, d]: latents, or of a generator with a mapping network styles w, the same for all layers
    label: Tensor | None  # [N]
    samples: Tensor  # [N, C, H, W]
    distance: Tensor  # [N], squared, between the embedding of each image and of its sample
    before: Tensor  # [N]: the same of the nearest of random samples


def pixels(x: Tensor) -> Tensor:
    """The embedding in which the squared distance of two images is the mean over their pixels."""
    return x.flatten(1) / x[0].numel() ** 0.5


def with_features(space: Space, target: Tensor) -> Embedding:
    """Pixels, and features of a network beside them, in units of the features of the images ``target``."""

    def features(x: Tensor) -> Tensor:
        return space.read((x + 1) * 127.5)[0]  # not rounded: bytes have no gradient

    with torch.no_grad():
        scale = features(target).square().sum(1).mean().sqrt()
    return lambda x: torch.cat([pixels(x), features(x) / scale], dim=1)


def project(
    generator: nn.Module,
    target: Tensor,
    latent_dim: int,
    classes: int | Tensor,
    embedding: Embedding,
    starts: int,
    steps: int,
    seed: int,
) -> Found:
    """Search for images ``target`` ``[N, C, H, W]`` in [-1, 1], by ``steps`` steps of Adam from the ``starts`` nearest
    of 256 random samples.

    ``classes`` is how many there are (0: none), or the one to search in, ``[1]``. As in StyleGAN2's projection (Karras
    et al. 2020a, appendix D) the learning rate falls to 0, and one w serves all layers; noise stays as it is.
    """
    device = next(generator.parameters()).device
    z = latents(POOL, latent_dim, seed).to(device)
    label = every_class(POOL, classes) if isinstance(classes, int) else classes.expand(POOL)
    label = None if label is None else label.to(device)
    found = []
    with evaluating(generator), tqdm(total=len(target) * steps, desc="searching", disable=None, leave=False) as bar:
        with torch.no_grad():
            points = generator.map(z, label)[:, 0] if has_mapping(generator) else z
            images = sample_points(generator, points, label).to(device)
            pool = torch.cat([embedding(part) for part in images.split(sampling.BATCH)])
        for image in target.to(device).split(1):
            with torch.no_grad():
                wanted = embedding(image)
                nearest = (pool - wanted).square().sum(1).topk(starts, largest=False)
            known = None if label is None else label[nearest.indices]
            point = _descend(generator, points[nearest.indices], known, wanted, embedding, steps, points.std(), bar)
            with torch.no_grad():
                made = _made(generator, point, known)
                distance, best = (embedding(made) - wanted).square().sum(1).min(0)
            own = None if known is None else known[best]
            found.append((point[best], own, made[best], distance, nearest.values[0]))
    columns = [None if column[0] is None else torch.stack(column).cpu() for column in zip(*found, strict=True)]
    return Found(*columns)


def _descend(
    generator: nn.Module,
    start: Tensor,
    label: Tensor | None,
    wanted: Tensor,
    embedding: Embedding,
    steps: int,
    spread: Tensor,
    bar: tqdm,
) -> Tensor:
    """The points ``[starts, d]`` to which Adam comes, all of them at once."""
    point = start.clone().requires_grad_()
    adam = torch.optim.Adam([point], lr=RATE * float(spread))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    for _ in range(steps):
        distance = (embedding(_made(generator, point, label)) - wanted).square().sum()
        # Of the point alone: backward() would leave gradients at the generator, too.
        (point.grad,) = torch.autograd.grad(distance, point)
        adam.step()
        schedule.step()
        bar.update()
    return point.detach()


def _made(generator: nn.Module, point: Tensor, label: Tensor | None) -> Tensor:
    if not has_mapping(generator):
        return generator(point, label)
    return generator.synthesise(_for_all_layers(generator, point))


def _for_all_layers(generator: nn.Module, point: Tensor) -> Tensor:
    return point[:, None].expand(-1, generator.styles, -1)


def sample_points(generator: nn.Module, point: Tensor, label: Tensor | None) -> Tensor:
    """What a generator makes of points ``[N, d]``: ``[N, ...]`` on the CPU."""
    if not has_mapping(generator):
        return sampling.sample(generator, point, label)
    return sampling.synthesise(generator, _for_all_layers(generator, point))


def walks(generator: nn.Module, found: Found, columns: int) -> Tensor:
    """Images of walks from each image that was found to the next, ``columns`` of each: ``[(N - 1) * columns, ...]``."""
    ends = torch.cat([found.point[:-1], found.point[1:]])
    if has_mapping(generator):
        return sample_points(generator, sampling.straight_walks(ends, columns), None)
    label = None if found.label is None else found.label[:-1].repeat_interleave(columns)
    return sample_points(generator, sampling.walks(ends, columns), label)
