"""ResNet GANs for square images of 32, 48, 64 or 128 pixels: one pair of networks whose parts are switched on by field.

- SNGAN (Miyato et al. 2018, appendix B) with the projection critic of Miyato and Koyama 2018: the defaults.
- WGAN-GP (Gulrajani et al. 2017): ``layout=wgan_gp``, ``critic_norm=none`` at 32 pixels and ``layer`` at 64.
- SAGAN (Zhang et al. 2019): ``layout=biggan`` (``sngan`` at 32 pixels), ``generator_spectral``, and ``attention`` at
  half the image's size.
- BigGAN (Brock et al. 2019, appendix B): as SAGAN, and ``hierarchical``, ``shared_embedding=128``, both widths 96,
  ``initialisation=orthogonal``, ``latent_dim`` of 20 for each part: 120 at 128 pixels, 100 at 64, 80 at 32.

A label reaches the generator through the gains and biases after its norms (conditional batch norm) and the critic
through an inner product of its features with an embedding of the label (projection: Miyato and Koyama 2018, eq. 3).
"""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Literal, NamedTuple

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, one_hot, relu
from torch.nn.utils.parametrizations import spectral_norm


@dataclass
class Config:
    """Fields of ``model.*``."""

    name: str = "resnet_gan"  # family of networks: a key of models.FAMILIES
    layout: Literal["sngan", "wgan_gp", "biggan"] = "sngan"  # channels and sizes of blocks: sngan, wgan_gp or biggan
    latent_dim: Annotated[int, Ge(1)] = 128  # length of the latent vector z
    generator_width: Annotated[int, Ge(1)] = 64  # generator channels, in units of which the layout counts
    critic_width: Annotated[int, Ge(1)] = 64  # critic channels, in units of which the layout counts
    generator_norm: Literal["none", "batch", "layer"] = "batch"  # none, batch or layer
    critic_norm: Literal["none", "spectral", "layer"] = "spectral"  # none, spectral (of all weights) or layer
    generator_spectral: bool = False  # spectral norm of all generator weights but the labels' embeddings
    attention: list[Annotated[int, Ge(1)]] = field(default_factory=list)  # pixels of the feature maps with attention
    hierarchical: bool = False  # every block gets its own part of z, and the first layer sees one part only
    shared_embedding: Annotated[int, Ge(0)] = 0  # length of one label embedding for all blocks; 0: each has its own
    initialisation: Literal["xavier", "orthogonal", "normal"] = "xavier"  # xavier, orthogonal or normal


class Layout(NamedTuple):
    """A network pair for one resolution; channels in units of the widths."""

    generator: tuple[int, ...]  # channels from the smallest map on; each block doubles the size
    critic: tuple[int, ...]  # channels that each block puts out
    halvings: int  # so many of the critic's blocks, the first ones, halve the size
    stem: int = 0  # channels of a convolution before the critic's blocks; 0: the first block reads the image
    wide: bool = False  # a critic block changes its channels in the first of its convolutions, not in the second
    pool: str = "sum"  # features from the critic's last map: sum, mean or flat


LAYOUTS: dict[str, dict[int, Layout]] = {
    "sngan": {
        32: Layout((4, 4, 4, 4), (2, 2, 2, 2), 2),
        48: Layout((8, 4, 2, 1), (1, 2, 4, 8, 16), 4),
        64: Layout((16, 8, 4, 2, 1), (1, 2, 4, 8, 16), 5),
        128: Layout((16, 16, 8, 4, 2, 1), (1, 2, 4, 8, 16, 16), 5),
    },
    # At 64 pixels the official code's critic has no ReLU before its last layer, and no biases before its norms.
    "wgan_gp": {
        32: Layout((2, 2, 2, 2), (2, 2, 2, 2), 2, pool="mean"),
        64: Layout((8, 8, 4, 2, 1), (2, 4, 8, 8), 4, stem=1, pool="flat"),
    },
    "biggan": {  # 128 pixels in the paper, 32 and 64 in its author's PyTorch code
        32: Layout((4, 4, 4, 4), (4, 4, 4, 4), 2, wide=True),
        64: Layout((16, 16, 8, 4, 2), (1, 2, 4, 8, 16), 4, wide=True),
        128: Layout((16, 16, 8, 4, 2, 1), (1, 2, 4, 8, 16, 16), 5, wide=True),
    },
}
POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda x: x.sum((2, 3)),
    "mean": lambda x: x.mean((2, 3)),
    "flat": lambda x: x.flatten(1),
}
NORMS: dict[str, Callable[..., nn.Module]] = {
    "none": lambda channels, affine=True: nn.Identity(),
    "batch": nn.BatchNorm2d,
    "layer": partial(nn.GroupNorm, 1),  # over channels and positions of a sample, with a gain and a bias a channel
}
CRITIC_NORMS = ("none", "spectral", "layer")  # without batch statistics: the critic judges each sample on its own
INITIALISATIONS: dict[str, Callable[..., Tensor]] = {
    "xavier": nn.init.xavier_uniform_,
    "orthogonal": lambda weight, gain=1.0: nn.init.orthogonal_(weight),
    "normal": lambda weight, gain=1.0: nn.init.normal_(weight, 0.0, 0.02),
}


class Generator(nn.Module):
    """``latent [N, latent_dim]``, ``label [N]`` or None, to images ``[N, C, R, R]`` in [-1, 1].

    ``shape`` is (C, R, R) and ``classes`` 0 without labels. Raises ValueError for a resolution, norm, size of attention
    or latent length that is not offered.
    """

    def __init__(self, config: Config, shape: tuple[int, ...], classes: int):
        super().__init__()
        layout = _layout(config, shape)
        _check("generator_norm", config.generator_norm, NORMS)
        widths = [config.generator_width * units for units in layout.generator]
        blocks = len(widths) - 1
        base = shape[1] // 2**blocks
        parts = 1 + blocks if config.hierarchical else 1
        if config.latent_dim % parts:
            raise ValueError(f"latent_dim {config.latent_dim} cannot be split into {parts} equal parts")
        self.classes, self.part = classes, config.latent_dim // parts
        self.embed = nn.Embedding(classes, config.shared_embedding) if classes and config.shared_embedding else None
        known = (config.shared_embedding or classes) if classes else 0
        own = self.part if config.hierarchical else 0
        reads = Table if self.embed is None and not own else nn.Linear
        norm = partial(Norm, config.generator_norm, condition=known + own, reads=reads)
        self.linear = nn.Sequential(
            nn.Linear(self.part, widths[0] * base * base), nn.Unflatten(1, (widths[0], base, base))
        )
        self.blocks = nn.ModuleList(Block(a, b, b, norm, up=2) for a, b in itertools.pairwise(widths))
        sizes = [base * 2**i for i in range(1, 1 + blocks)]
        self.attention = _attention("generator", config, widths[1:], sizes)
        self.image = nn.Sequential(
            NORMS[config.generator_norm](widths[-1]),
            nn.ReLU(),
            nn.Conv2d(widths[-1], shape[0], 3, padding=1),
            nn.Tanh(),
        )
        _initialise(self, config.initialisation)
        if config.generator_spectral:
            _normalise_weights(self, (nn.Conv2d, nn.Linear))

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        first, *own = latent.split(self.part, dim=1)
        known = [self._known(label, latent.dtype)] if self.classes else []
        x = self.linear(first)
        for i, (block, attend) in enumerate(zip(self.blocks, self.attention, strict=True)):
            condition = known + own[i : i + 1]
            x = attend(block(x, torch.cat(condition, dim=1) if condition else None))
        return self.image(x)

    def _known(self, label: Tensor, dtype: torch.dtype) -> Tensor:
        """The conditioning that the blocks get of the label: a linear layer on a one-hot vector is an embedding."""
        return one_hot(label, self.classes).to(dtype) if self.embed is None else self.embed(label)


class Critic(nn.Module):
    """Images ``[N, C, R, R]``, ``label [N]`` or None, to raw scores ``[N]``. Arguments as the generator's.

    ``features`` and ``score`` are its two halves, for those who need the ``feature_size`` features themselves.
    """

    def __init__(self, config: Config, shape: tuple[int, ...], classes: int):
        super().__init__()
        layout = _layout(config, shape)
        _check("critic_norm", config.critic_norm, CRITIC_NORMS)
        outs = [config.critic_width * units for units in layout.critic]
        stem = config.critic_width * layout.stem
        self.stem = nn.Conv2d(shape[0], stem, 3, padding=1) if stem else nn.Identity()
        norm = partial(Norm, "layer" if config.critic_norm == "layer" else "none")
        self.blocks = nn.ModuleList()
        for i, (a, b) in enumerate(itertools.pairwise([stem or shape[0], *outs])):
            reads_image = i == 0 and not stem
            middle = b if layout.wide or reads_image else a
            self.blocks.append(Block(a, b, middle, norm, down=2 if i < layout.halvings else 1, bare=reads_image))
        sizes = [shape[1] // 2**i for i in range(1, 1 + layout.halvings)]
        self.attention = _attention("critic", config, outs, sizes)
        self.pool = POOLS[layout.pool]
        self.feature_size = outs[-1] * (sizes[-1] ** 2 if layout.pool == "flat" else 1)
        self.linear = nn.Linear(self.feature_size, 1)
        self.embed = nn.Embedding(classes, self.feature_size) if classes else None
        _initialise(self, config.initialisation)
        if config.critic_norm == "spectral":
            _normalise_weights(self, (nn.Conv2d, nn.Linear, nn.Embedding))

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        return self.score(self.features(x), label)

    def features(self, x: Tensor) -> Tensor:
        """Images to features ``[N, feature_size]``."""
        x = self.stem(x)
        for block, attend in zip(self.blocks, self.attention, strict=True):
            x = attend(block(x))
        return self.pool(relu(x))

    def score(self, features: Tensor, label: Tensor | None = None) -> Tensor:
        """Features ``[N, feature_size]`` and labels to raw scores ``[N]``."""
        score = self.linear(features).squeeze(1)
        return score if self.embed is None else score + (self.embed(label) * features).sum(1)


class Block(nn.Module):
    """Two convolutions, each after a norm and a ReLU, with a shortcut: ``[N, a, H, W]`` to ``[N, b, H', W']``.

    H' is H · up / down; ``middle`` counts the channels between the convolutions. A ``bare`` block reads an image, which
    is neither normalised nor rectified, and has no norms at all.
    """

    def __init__(
        self,
        a: int,
        b: int,
        middle: int,
        norm: Callable[[int], nn.Module],
        up: int = 1,
        down: int = 1,
        bare: bool = False,
    ):
        super().__init__()
        self.bare = bare
        self.norm1, self.norm2 = (Norm("none", a), Norm("none", middle)) if bare else (norm(a), norm(middle))
        self.conv1, self.conv2 = nn.Conv2d(a, middle, 3, padding=1), nn.Conv2d(middle, b, 3, padding=1)
        self.shortcut = nn.Conv2d(a, b, 1) if a != b or up > 1 or down > 1 else nn.Identity()
        self.up = nn.Upsample(scale_factor=up) if up > 1 else nn.Identity()
        self.down = nn.AvgPool2d(down) if down > 1 else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        h = x if self.bare else relu(self.norm1(x, condition))
        h = self.conv1(self.up(h))
        h = self.conv2(relu(self.norm2(h, condition)))
        # A 1x1 convolution commutes with both changes of size: it is applied where the map is small.
        return self.down(h) + self.up(self.shortcut(self.down(x)))


class Norm(nn.Module):
    """A norm with a gain and a bias a channel; they are linear in a condition ``[N, condition]`` where there is one.

    So it is a conditional batch norm (de Vries et al. 2017); the gain is 1 plus the linear part, as in BigGAN's code.
    ``reads`` is the type of the layers that read the condition.
    """

    def __init__(self, kind: str, channels: int, condition: int = 0, reads: type[nn.Linear] = nn.Linear):
        super().__init__()
        self.normalise = NORMS[kind](channels, affine=not condition)
        self.gain = reads(condition, channels, bias=False) if condition else None
        self.shift = reads(condition, channels, bias=False) if condition else None

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        x = self.normalise(x)
        if self.gain is None:
            return x
        gain, shift = (layer(condition)[:, :, None, None] for layer in (self.gain, self.shift))
        return x * (1 + gain) + shift


class Table(nn.Linear):
    """A norm's own gains or biases for each label, which comes as a one-hot vector.

    They start at 1 and at 0, as in the code of the projection critic and of SAGAN. Spectral norm leaves them alone, as
    there and in BigGAN's code where it has no shared embedding.
    """


class Attention(nn.Module):
    """Every position adds a mixture of all others, ``[N, C, H, W]`` to the same (Zhang et al. 2019, eqs. 1 to 3).

    The mixture's weight γ starts at 0. Keys and values are pooled to a quarter of the positions, as in the official
    code.
    """

    def __init__(self, channels: int):
        super().__init__()
        narrow, half = max(channels // 8, 1), max(channels // 2, 1)
        self.query, self.key = (nn.Conv2d(channels, narrow, 1, bias=False) for _ in range(2))
        self.value = nn.Conv2d(channels, half, 1, bias=False)
        self.out = nn.Conv2d(half, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(x).flatten(2)
        key, value = (max_pool2d(layer(x), 2).flatten(2) for layer in (self.key, self.value))
        weights = (query.mT @ key).softmax(dim=2)  # [N, positions, pooled positions]
        mixed = (value @ weights.mT).unflatten(2, x.shape[2:])
        return x + self.gamma * self.out(mixed)


def _layout(config: Config, shape: tuple[int, ...]) -> Layout:
    """The layout for images of ``shape``. Raises ValueError where the family has none."""
    _check("layout", config.layout, LAYOUTS)
    _check("initialisation", config.initialisation, INITIALISATIONS)
    offered = LAYOUTS[config.layout]
    if len(shape) != 3 or shape[1] != shape[2] or shape[1] not in offered:
        raise ValueError(
            f"layout '{config.layout}' makes square images of {', '.join(map(str, offered))} pixels, not samples of "
            f"shape {tuple(shape)}"
        )
    return offered[shape[1]]


def _attention(network: str, config: Config, channels: list[int], sizes: list[int]) -> nn.ModuleList:
    """What follows each block: attention where it has just reached one of ``config.attention``."""
    if missing := sorted(set(config.attention) - set(sizes)):
        raise ValueError(f"attention {missing} is no size of the {network}'s feature maps; these have {sorted(sizes)}")
    attends = [size in config.attention for size in sizes]
    return nn.ModuleList(
        Attention(c) if attend else nn.Identity() for c, attend in itertools.zip_longest(channels, attends)
    )


def _check(field_name: str, value: str, valid: Iterable[str]) -> None:
    if value not in valid:
        raise ValueError(f"{field_name} '{value}' is unknown; valid are: {', '.join(valid)}")


def _initialise(network: nn.Module, how: str) -> None:
    """Weights as ``how`` says, zero biases.

    Glorot's gain is √2 in the convolutions of a block and 1 elsewhere, as in the official SNGAN and WGAN-GP.
    """
    blocks = [module for module in network.modules() if isinstance(module, Block)]
    rectified = {conv for block in blocks for conv in (block.conv1, block.conv2)}
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
            INITIALISATIONS[how](module.weight, gain=2**0.5 if module in rectified else 1.0)
        if isinstance(module, Table):
            nn.init.zeros_(module.weight)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def _normalise_weights(network: nn.Module, kinds: tuple[type[nn.Module], ...]) -> None:
    """Divide each weight by its largest singular value (Miyato et al. 2018, eq. 8)."""
    for module in list(network.modules()):
        if isinstance(module, kinds) and not isinstance(module, Table):
            spectral_norm(module)
