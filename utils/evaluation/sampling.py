"""What a generator makes from latents: images or points."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from adversarial.draws import rng

BATCH = 500


def latents(count: int, dimension: int, seed: int, truncation: float | None = None) -> Tensor:
    """Standard normal latents ``[count, dimension]``, a function of the seed.

    With ``truncation`` every component is drawn from the normal distribution cut to ±truncation (the truncation trick
    of Brock et al. 2019, section 3.1): smaller values give more typical, less varied images.
    """
    draw = rng(seed, "samples")
    if truncation is None:
        return torch.randn(count, dimension, generator=draw)
    return nn.init.trunc_normal_(torch.empty(count, dimension), a=-truncation, b=truncation, generator=draw)


def every_class(count: int, classes: int) -> Tensor | None:
    """Labels ``[count]``: 0, 1, ..., 0, 1, ...; or None for a generator without classes."""
    return torch.arange(count) % classes if classes else None


@torch.no_grad()
def sample(generator: nn.Module, latent: Tensor, label: Tensor | None) -> Tensor:
    """What a generator in evaluation mode makes of latents ``[N, latent_dim]``: ``[N, ...]`` on the CPU.

    In PyTorch's default precision, whatever the generator's own.
    """
    device = next(generator.parameters()).device
    labels = [None] * -(-len(latent) // BATCH) if label is None else label.split(BATCH)
    with evaluating(generator):
        made = [
            generator(z.to(device), None if y is None else y.to(device)).to(torch.get_default_dtype()).cpu()
            for z, y in zip(latent.split(BATCH), labels, strict=True)
        ]
    return torch.cat(made)


def interpolation(rows: int, columns: int, dimension: int, seed: int) -> Tensor:
    """Latents ``[rows * columns, dimension]``: each row walks from one latent to another along a great circle.

    Spherical, because Gaussian latents lie near a sphere that a straight line would leave (White 2016).
    """
    ends = latents(2 * rows, dimension, seed)
    a, b = ends[:rows, None], ends[rows:, None]
    t = torch.linspace(0, 1, columns)[None, :, None]
    # The clamp keeps sin(angle) above 0: parallel ends have no great circle, and give nearly a straight line.
    angle = torch.acos(torch.nn.functional.cosine_similarity(a, b, dim=-1).clamp(-0.9999, 0.9999))[..., None]
    return ((torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)).flatten(0, 1)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Inside, the module is in evaluation mode; afterwards in the mode that it was in before."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)
