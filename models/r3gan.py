"""R3GAN, config E (Huang et al. 2024, section 3): two mirrored ResNets of grouped convolutions, without normalisation.

``widths`` says everything about a network's size, from 4x4 pixels to the image; one entry more doubles the image. The
paper's table 9 has, with two blocks each: Stacked MNIST and CIFAR-10 [768, 768, 768, 768], FFHQ at 64 pixels
[768, 768, 768, 768, 384] and at 256 also 192 and 96, ImageNet four (32 pixels) or five (64 pixels) times 1536 and
``group_width: 32``, which is its 96 groups.
"""

import itertools
import math
from dataclasses import dataclass, field
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from models.rectangles import doublings
from models.resampling import Downsample, Upsample

RESOLUTIONS = (8, 16, 32, 64, 128, 256)
SLOPE = 0.2
GAIN = math.sqrt(2 / (1 + SLOPE**2))  # keeps the variance after a leaky ReLU (He et al. 2015, eq. 15)


@dataclass
class Config:
    """Fields of ``model.*``."""

    name: str = "r3gan"  # family of networks: a key of models.FAMILIES
    latent_dim: Annotated[int, Ge(1)] = 64  # length of the latent vector z, and of the label's embedding
    widths: list[Annotated[int, Ge(1)]] = field(default_factory=lambda: [768] * 4)  # channels at 4, 8, 16, ... pixels
    blocks: Annotated[int, Ge(1), Le(1000)] = 2  # residual blocks at each resolution
    expansion: Annotated[int, Ge(1)] = 2  # inside a block there are this many times as many channels
    group_width: Annotated[int, Ge(1)] = 16  # channels in a group of the 3x3 convolutions; 32 for ImageNet


class Generator(nn.Module):
    """``latent [N, latent_dim]``, ``label [N]`` or None, to images ``[N, C, H, W]``; no tanh bounds them to [-1, 1].

    ``shape`` is (C, H, W) and ``classes`` 0 without labels. Raises ValueError where the size is not offered, or
    ``widths`` and ``group_width`` do not fit.
    """

    def __init__(self, config: Config, shape: tuple[int, ...], classes: int):
        super().__init__()
        base = _coarsest(config, shape)
        widths = config.widths
        # At a variance of 1 / classes, as in the authors' code, where a linear layer reads one-hot labels.
        self.embed = _embedding(classes, config.latent_dim, 1 / math.sqrt(classes)) if classes else None
        self.basis = nn.Parameter(torch.randn(widths[0], *base))
        self.modulation = _linear(config.latent_dim * (2 if classes else 1), widths[0])
        layers = _blocks(config, widths[0])
        for a, b in itertools.pairwise(widths):
            layers += [*_change_width(a, b), Upsample(), *_blocks(config, b)]
        self.layers = nn.Sequential(*layers, _convolution(widths[-1], shape[0]))

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        if self.embed is not None:
            latent = torch.cat([latent, self.embed(label)], dim=1)
        return self.layers(self.basis * self.modulation(latent)[:, :, None, None])


class Critic(nn.Module):
    """Images ``[N, C, H, W]``, ``label [N]`` or None, to raw scores ``[N]``. Arguments as the generator's.

    With labels it is a projection critic without an unconditional term: the score is the inner product of what the
    last layer makes of the features with the label's embedding (Huang et al. 2024, appendix D).
    """

    def __init__(self, config: Config, shape: tuple[int, ...], classes: int):
        super().__init__()
        base = _coarsest(config, shape)
        widths = config.widths[::-1]
        layers = [_convolution(shape[0], widths[0])]
        for a, b in itertools.pairwise(widths):
            layers += [*_blocks(config, a), Downsample(), *_change_width(a, b)]
        size = widths[-1]
        self.layers = nn.Sequential(*layers, *_blocks(config, size))
        self.basis = _convolution(size, size, kernel=base, groups=size)
        self.last = _linear(size, size if classes else 1)
        self.embed = _embedding(classes, size, 1 / math.sqrt(classes * size)) if classes else None

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        return self.score(self.features(x), label)

    def features(self, x: Tensor) -> Tensor:
        """Images to ``[N, widths[0]]``: the coarsest map of each channel, weighed by its learned basis."""
        return self.basis(self.layers(x)).flatten(1)

    def score(self, features: Tensor, label: Tensor | None = None) -> Tensor:
        """Features and labels to scores ``[N]``."""
        projected = self.last(features)
        return projected.squeeze(1) if self.embed is None else (projected * self.embed(label)).sum(1)


class Block(nn.Module):
    """1x1, grouped 3x3 and 1x1 convolutions with a shortcut, widest in the middle (Huang et al. 2024, figure 2c)."""

    def __init__(self, config: Config, width: int):
        super().__init__()
        wide = config.expansion * width
        # Fix-up (Zhang et al. 2019): L blocks whose last layer starts at zero, the two before it at L^(-1/4).
        gain = GAIN * (config.blocks * len(config.widths)) ** -0.25
        self.layers = nn.Sequential(
            _convolution(width, wide, bias=True, gain=gain),
            nn.LeakyReLU(SLOPE, True),
            _convolution(wide, wide, kernel=3, groups=wide // config.group_width, bias=True, gain=gain),
            nn.LeakyReLU(SLOPE, True),
            _convolution(wide, width, gain=0.0),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def _blocks(config: Config, width: int) -> list[nn.Module]:
    return [Block(config, width) for _ in range(config.blocks)]


def _change_width(before: int, after: int) -> list[nn.Module]:
    return [] if before == after else [_convolution(before, after)]


def _convolution(
    inputs: int, outputs: int, kernel: int | tuple[int, int] = 1, groups: int = 1, bias: bool = False, gain: float = 1.0
) -> nn.Conv2d:
    padding = 1 if kernel == 3 else 0
    layer = nn.Conv2d(inputs, outputs, kernel, padding=padding, groups=groups, bias=bias)
    if bias:
        nn.init.zeros_(layer.bias)
    return _initialised(layer, gain)


def _linear(inputs: int, outputs: int) -> nn.Linear:
    return _initialised(nn.Linear(inputs, outputs, bias=False), 1.0)


def _initialised(layer: nn.Module, gain: float) -> nn.Module:
    """Weights from N(0, gain² / fan-in)."""
    nn.init.normal_(layer.weight, 0.0, gain / math.sqrt(layer.weight[0].numel()))
    return layer


def _embedding(classes: int, size: int, deviation: float) -> nn.Embedding:
    layer = nn.Embedding(classes, size)
    nn.init.normal_(layer.weight, 0.0, deviation)
    return layer


def _coarsest(config: Config, shape: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of the coarsest map: 4 pixels, and more in the direction of a longer side."""
    count = doublings("r3gan", shape, RESOLUTIONS)
    if len(config.widths) != count + 1:
        raise ValueError(
            f"{min(shape[1:])} pixels are made in {count + 1} stages from 4 pixels up, and widths {config.widths} has "
            f"{len(config.widths)} entries"
        )
    for width in config.widths:
        if width < 1 or config.expansion * width % config.group_width:
            raise ValueError(
                f"width {width} times expansion {config.expansion} does not divide into groups of group_width "
                f"{config.group_width}"
            )
    return shape[1] >> count, shape[2] >> count
