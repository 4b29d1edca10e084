"""What a generator makes from latents: images or points.

A generator with a mapping network (StyleGAN2) has ``map``, from latents to styles w, and ``synthesise``, from styles to
images. There truncation and walks are of styles.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from adversarial.draws import rng
from utils.errors import NotFiniteError

BATCH = 100
BLOCK = 64  # latents that are drawn at once
MEAN_OF = 10_000  # latents that a mean style is computed from, as in StyleGAN2's projection
# From so many dimensions on, latents lie near enough to a sphere for walks on great circles: one walk in 10,000 goes
# more than 1.5 times as far out as its farther end. In 3 it is one in 30: ends of different length are often opposite.
SPHERE = 8


def latents(count: int, dimension: int, seed: int, truncation: float | None = None) -> Tensor:
    """Standard normal latents ``[count, dimension]``; each row is a function of the seed and its index alone.

    With ``truncation`` every component is drawn from the normal distribution cut to ±truncation (the truncation trick
    of Brock et al. 2019, section 3.1): smaller values give more typical, less varied images.
    """
    blocks = latent_blocks(dimension, seed, truncation)
    return torch.cat(list(itertools.islice(blocks, -(-count // BLOCK))))[:count]


def latent_blocks(dimension: int, seed: int, truncation: float | None = None) -> Iterator[Tensor]:
    """The same latents without end, in blocks ``[BLOCK, dimension]``."""
    draw = rng(seed, "samples")
    while True:
        # Whole blocks: with other shapes PyTorch would give the last rows other numbers.
        block = torch.empty(BLOCK, dimension)
        if truncation is None:
            yield block.normal_(generator=draw)
        else:
            yield nn.init.trunc_normal_(block, a=-truncation, b=truncation, generator=draw)


def share(count: int, rank: int, size: int) -> slice:
    """The rows of ``count`` latents that one of ``size`` processes draws images of: whole batches, so that every image
    is made in the batch in which one process alone would make it.
    """
    rows = -(-count // (BATCH * size)) * BATCH
    return slice(rank * rows, (rank + 1) * rows)


def every_class(count: int, classes: int) -> Tensor | None:
    """Labels ``[count]``: 0, 1, ..., 0, 1, ...; or None for a generator without classes."""
    return torch.arange(count) % classes if classes else None


def sample(generator: nn.Module, latent: Tensor, label: Tensor | None) -> Tensor:
    """What a generator in evaluation mode makes of latents ``[N, latent_dim]``: ``[N, ...]`` on the CPU.

    In PyTorch's default precision, whatever the generator's own.
    """
    return _in_batches(generator, generator, latent, label)


def drawn_images(generator: nn.Module, latent: Tensor, label: Tensor | None) -> Iterator[Tensor]:
    """The images of ``sample``, batch by batch, as they are saved: uint8 ``[n, C, R, R]``.

    Raises NotFiniteError where a pixel is not finite.
    """
    labels = [None] * -(-len(latent) // BATCH) if label is None else label.split(BATCH)
    for z, y in zip(latent.split(BATCH), labels, strict=True):
        images = sample(generator, z, y)
        if not bool(torch.isfinite(images).all()):
            raise NotFiniteError(
                "The generator makes NaN or infinite pixels; the last checkpoint is from before. Lower optimizer.*_lr, "
                "add penalty.r1, or try another seed."
            )
        yield to_bytes(images)


def to_bytes(images: Tensor) -> Tensor:
    """Images in [-1, 1] as they are saved: clamped and rounded to uint8."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def has_mapping(generator: nn.Module) -> bool:
    """Whether a generator maps latents to styles first."""
    return hasattr(generator, "map") and hasattr(generator, "synthesise")


Means = dict[int | None, Tensor]  # the mean style [L, d] by class, or of None


def styles(
    generator: nn.Module,
    latent: Tensor,
    label: Tensor | None,
    truncation: float | None = None,
    means: Means | None = None,
) -> Tensor:
    """The styles w ``[N, L, d]`` of latents, on the CPU.

    With ``truncation`` ψ they are w̄ + ψ (w - w̄), w̄ the mean style of the sample's class (Karras et al. 2019, appendix
    B): 1 changes nothing, and at 0 all samples of a class are the same. ``means`` keeps them from call to call.
    """
    w = _in_batches(generator, generator.map, latent, label)
    if truncation is None:
        return w
    classes = [None] * len(w) if label is None else label.tolist()
    means = {} if means is None else means
    for k in set(classes) - means.keys():
        means[k] = mean_style(generator, latent.shape[1], k)
    return torch.lerp(torch.stack([means[k] for k in classes]), w, truncation)


def mean_style(generator: nn.Module, dimension: int, label: int | None) -> Tensor:
    """The mean w ``[L, d]`` over many latents, always the same ones, of a class or without classes."""
    batches = latents(MEAN_OF, dimension, seed=0).split(BATCH)
    of_class = None if label is None else torch.full((BATCH,), label)
    return torch.stack([styles(generator, batch, of_class).mean(0) for batch in batches]).mean(0)


def synthesise(generator: nn.Module, w: Tensor) -> Tensor:
    """What a generator makes of styles ``[N, L, d]``, as ``sample`` does of latents."""
    return _in_batches(generator, lambda w, _: generator.synthesise(w), w, None)


@torch.no_grad()
def _in_batches(
    generator: nn.Module, function: Callable[[Tensor, Tensor | None], Tensor], x: Tensor, label: Tensor | None
) -> Tensor:
    """A function of the generator in evaluation mode, on the CPU and in PyTorch's default precision."""
    device = next(generator.parameters()).device
    labels = [None] * -(-len(x) // BATCH) if label is None else label.split(BATCH)
    with evaluating(generator):
        made = [
            function(part.to(device), None if y is None else y.to(device)).to(torch.get_default_dtype()).cpu()
            for part, y in zip(x.split(BATCH), labels, strict=True)
        ]
    return torch.cat(made)


def walks(ends: Tensor, columns: int) -> Tensor:
    """Latents ``[rows * columns, d]``: each row walks from one of ``ends`` ``[2 * rows, d]`` to another, on a great
    circle.

    Spherical, because Gaussian latents lie near a sphere that a straight line would leave (White 2016). In few
    dimensions they do not, and the line is straight.
    """
    if ends.shape[1] < SPHERE:
        return straight_walks(ends, columns)
    a, b, t = _between(ends, columns)
    # The clamp keeps sin(angle) above 0: parallel ends have no great circle, and give nearly a straight line.
    angle = torch.acos(torch.nn.functional.cosine_similarity(a, b, dim=-1).clamp(-0.9999, 0.9999))[..., None]
    return ((torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)).flatten(0, 1)


def straight_walks(ends: Tensor, columns: int) -> Tensor:
    """Latents or styles ``[rows * columns, ...]``: each row walks on a straight line through ``[2 * rows, ...]``."""
    return torch.lerp(*_between(ends, columns)).flatten(0, 1)


def loop(ends: Tensor, frames: int) -> Iterator[Tensor]:
    """Latents ``[n, d]`` of each frame of a walk from the first half of ``ends`` ``[2 n, d]`` through the second and
    back: cos φ a + sin φ b with φ from 0 to 2π, which is standard normal at every φ if a and b are.
    """
    a, b = ends.chunk(2)
    for frame in range(frames):
        angle = 2 * math.pi * frame / frames
        yield math.cos(angle) * a + math.sin(angle) * b


def mixtures(coarse: Tensor, fine: Tensor, layers: int) -> Tensor:
    """Styles ``[n * m, L, d]``: of each of ``coarse`` ``[n, L, d]`` the first ``layers``, with the rest of each of
    ``fine`` ``[m, L, d]`` (Karras et al. 2019, section 3.1).
    """
    n, m = len(coarse), len(fine)
    rows, columns = coarse.repeat_interleave(m, dim=0), fine.repeat(n, 1, 1)
    return torch.cat([rows[:, :layers], columns[:, layers:]], dim=1)


def _between(ends: Tensor, columns: int) -> tuple[Tensor, Tensor, Tensor]:
    """Begin and end of each row, ``[rows, 1, ...]``, and the share of the way, ``[1, columns, 1, ...]``."""
    a, b = ends[:, None].chunk(2)
    return a, b, torch.linspace(0, 1, columns).reshape(1, columns, *[1] * (ends.ndim - 1))


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Inside, the module is in evaluation mode; afterwards all that is in it is in the mode that it was in before."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
