"""DCGAN: strided convolutions, no pooling (Radford et al. 2016), for images of 8 to 128 pixels.

In the class-conditional pair an embedding of the label is concatenated to the latent, and the critic's score adds
the inner product of its features with an embedding of the label (projection critic: Miyato and Koyama 2018, eq. 3).
"""

import itertools
import math
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from models.rectangles import doublings

RESOLUTIONS = (8, 16, 28, 32, 64, 128)
COARSEST = {8: 2, 28: 7}  # pixels of the smallest feature map's shorter side, where they are not 4
Norm = Literal["none", "batch", "group", "spectral"]
NORMS = get_args(Norm)


@dataclass
class Config:
    """Fields of ``model.*``."""

    name: str = "dcgan"  # family of networks: a key of models.FAMILIES
    latent_dim: Annotated[int, Ge(1)] = 100  # length of the latent vector z
    generator_width: Annotated[int, Ge(1)] = 64  # generator channels at half the image size; doubled with each halving
    critic_width: Annotated[int, Ge(1)] = 64  # critic channels at half the image size; doubled with each halving
    generator_norm: Norm = "batch"  # none, batch, group or spectral
    critic_norm: Norm = "none"  # none, batch, group or spectral; batch cannot be played by update.rule=single_pass


class Generator(nn.Module):
    """``latent [N, latent_dim]``, ``label [N]`` or None, to images ``[N, C, H, W]`` in [-1, 1].

    ``shape`` is (C, H, W) and ``classes`` 0 without labels. Raises ValueError for another resolution or norm.
    """

    def __init__(self, config: Config, shape: tuple[int, ...], classes: int):
        super().__init__()
        channels, base, widths = _plan(config.generator_width, shape, config.generator_norm)
        widths.reverse()  # narrow towards the image
        norm = config.generator_norm
        self.embed = nn.Embedding(classes, config.latent_dim) if classes else None
        size = config.latent_dim * (2 if classes else 1)
        layers = [nn.Linear(size, widths[0] * math.prod(base)), nn.Unflatten(1, (widths[0], *base))]
        layers += [*_normalise(norm, widths[0]), nn.ReLU(True)]
        for a, b in itertools.pairwise(widths):
            layers += [nn.ConvTranspose2d(a, b, 4, stride=2, padding=1), *_normalise(norm, b), nn.ReLU(True)]
        layers += [nn.ConvTranspose2d(widths[-1], channels, 4, stride=2, padding=1), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        _initialise(self, norm)

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        if self.embed is not None:
            latent = torch.cat([latent, self.embed(label)], dim=1)
        return self.layers(latent)


class Critic(nn.Module):
    """Images ``[N, C, H, W]``, ``label [N]`` or None, to raw scores ``[N]``. Arguments as the generator's."""

    def __init__(self, config: Config, shape: tuple[int, ...], classes: int):
        super().__init__()
        channels, base, widths = _plan(config.critic_width, shape, config.critic_norm)
        norm = config.critic_norm
        layers = [nn.Conv2d(channels, widths[0], 4, stride=2, padding=1), nn.LeakyReLU(0.2, True)]
        for a, b in itertools.pairwise(widths):
            layers += [nn.Conv2d(a, b, 4, stride=2, padding=1), *_normalise(norm, b), nn.LeakyReLU(0.2, True)]
        self.features = nn.Sequential(*layers, nn.Flatten())
        size = widths[-1] * math.prod(base)
        self.last = nn.Linear(size, 1)
        self.embed = nn.Embedding(classes, size) if classes else None
        _initialise(self, norm)

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        return self.score(self.features(x), label)

    def score(self, features: Tensor, label: Tensor | None = None) -> Tensor:
        """Scores ``[N]`` of features ``[N, d]``."""
        score = self.last(features).squeeze(1)
        return score if self.embed is None else score + (self.embed(label) * features).sum(1)


def initialise(module: nn.Module) -> None:
    """Weights from N(0, 0.02²), as in Radford et al. 2016, section 4; norm gains from N(1, 0.02²), zero biases."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
        nn.init.normal_(module.weight, 1.0, 0.02)
    if getattr(module, "bias", None) is not None:
        nn.init.zeros_(module.bias)


def _initialise(network: nn.Module, norm: str) -> None:
    network.apply(initialise)
    if norm == "spectral":
        for module in list(network.modules()):
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.Embedding):
                spectral_norm(module)


def _normalise(norm: str, channels: int) -> list[nn.Module]:
    if norm == "batch":
        return [nn.BatchNorm2d(channels)]
    if norm == "group":
        return [nn.GroupNorm(math.gcd(32, channels), channels)]
    return []


def _plan(width: int, shape: tuple[int, ...], norm: str) -> tuple[int, tuple[int, int], list[int]]:
    """Image channels, the size of the smallest feature map, and the channels from fine to coarse."""
    count = doublings("dcgan", shape, RESOLUTIONS, COARSEST.get(min(shape[1:], default=0), 4))
    if norm not in NORMS:
        raise ValueError(f"norm '{norm}' is unknown; valid are: {', '.join(NORMS)}")
    channels, H, W = shape
    return channels, (H >> count, W >> count), [width * 2**i for i in range(count)]
