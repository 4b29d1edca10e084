"""StyleGAN2 (Karras et al. 2020a) for images of 8 to 1024 pixels, with the label as in StyleGAN2-ADA (2020b).

Layers that the authors run in float32 (mapping, styles, demodulation, resampling, the critic's last two) stay there
under autocast. The papers' networks: ``channel_base: 32768`` is config F, ``channel_base: 16384`` what StyleGAN2-ADA
takes at 256 pixels. Its CIFAR-10 has ``mapping_layers: 2``, ``mixing: 0``, ``critic: plain``, ``minibatch_std: 32``.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, leaky_relu, linear, one_hot

from models.rectangles import doublings
from models.resampling import Blur, Downsample, Upsample

RESOLUTIONS = (8, 16, 32, 64, 128, 256, 512, 1024)
CriticKind = Literal["residual", "plain"]
CRITICS = get_args(CriticKind)


@dataclass
class Config:
    """Fields of ``model.*``."""

    name: str = "stylegan2"  # family of networks: a key of models.FAMILIES
    latent_dim: Annotated[int, Ge(1)] = 512  # length of the latent vector z and of the style w
    mapping_layers: Annotated[int, Ge(1), Le(1000)] = 8  # layers from z to w
    label_layers: Annotated[int, Ge(1), Le(1000)] = 8  # layers from the label to what features are projected on
    channel_base: Annotated[int, Ge(1)] = 16384  # at R pixels there are channel_base / R channels ...
    channel_max: Annotated[int, Ge(1)] = 512  # ... but at most these
    mixing: Annotated[float, Ge(0), Le(1)] = 0.9  # training: share of samples with another latent for finer layers
    critic: CriticKind = "residual"  # residual or plain: the critic's blocks with shortcuts or without
    minibatch_std: Annotated[int, Ge(1)] = 4  # group of the minibatch standard deviation; 1: off, as single_pass needs


class Generator(nn.Module):
    """``latent [N, latent_dim]``, ``label [N]`` or None, to images ``[N, C, H, W]``; no tanh bounds them to [-1, 1].

    In training every layer adds fresh noise, and some samples mix two styles: both are drawn from torch's global
    random state, which the training loop sets at every step. In evaluation the noise is the same for every sample and
    no style is mixed, so an image is a function of its latent. ``shape`` is (C, H, W) and ``classes`` 0 without
    labels. Raises ValueError for another resolution, and for channels or a share that make no sense.
    """

    def __init__(self, config: Config, shape: tuple[int, ...], classes: int):
        super().__init__()
        widths, (height, width) = _plan(config, shape)
        if not 0 <= config.mixing <= 1:
            raise ValueError(f"mixing is {config.mixing} and must be from 0 to 1")
        self.mixing = config.mixing
        self.styles = 2 * len(widths)  # two for each resolution; a to-RGB layer shares that of the layer after it
        self.mapping = Mapping(config.latent_dim, classes, config.latent_dim, config.mapping_layers)
        self.constant = nn.Parameter(torch.randn(widths[0], height, width))
        self.blocks = nn.ModuleList(
            SynthesisBlock(a, b, shape[0], config.latent_dim, (height << i, width << i))
            for i, (a, b) in enumerate(itertools.pairwise([0, *widths]))
        )

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        return self.synthesise(self.map(latent, label))

    def map(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        """Latents and labels to styles ``[N, L, latent_dim]``, the same for all L layers but where two are mixed."""
        w = self.mapping(latent, label)[:, None].repeat(1, self.styles, 1)
        if self.training and self.mixing > 0:
            other = self.mapping(torch.randn_like(latent), label)[:, None]
            w = self._mix(w, other)
        return w

    def synthesise(self, w: Tensor) -> Tensor:
        """Styles ``[N, L, latent_dim]`` to images ``[N, C, H, W]``."""
        # Not len(w), here and below: torch.export would take it for a constant.
        x, image = self.constant.expand(w.shape[0], -1, -1, -1), None
        for i, block in enumerate(self.blocks):
            x, image = block(x, image, w[:, max(2 * i - 1, 0) : 2 * i + 2])
        return image

    def _mix(self, w: Tensor, other: Tensor) -> Tensor:
        """From a random layer on, a random share of samples has the other style (Karras et al. 2019, section 3.1)."""
        n = len(w)
        first = torch.randint(1, self.styles, (n, 1, 1), device=w.device)
        mixed = torch.rand(n, 1, 1, device=w.device) < self.mixing
        finer = torch.arange(self.styles, device=w.device)[:, None] >= first
        return torch.where(mixed & finer, other, w)


class Critic(nn.Module):
    """Images ``[N, C, H, W]``, ``label [N]`` or None, to raw scores ``[N]``. Arguments and errors as the generator's.

    With labels the score is the inner product of the features' projection with the mapped label (Karras et al. 2020b).
    """

    def __init__(self, config: Config, shape: tuple[int, ...], classes: int):
        super().__init__()
        widths, (height, width) = _plan(config, shape)
        widths.reverse()
        if config.critic not in CRITICS:
            raise ValueError(f"critic '{config.critic}' is unknown; valid are: {', '.join(CRITICS)}")
        grouped = config.minibatch_std > 1
        size = widths[-1]
        layers = [Convolution(shape[0], widths[0], 1)]
        layers += [CriticBlock(a, b, config.critic == "residual") for a, b in itertools.pairwise(widths)]
        layers += [MinibatchDeviation(config.minibatch_std)] if grouped else []
        layers += [Convolution(size + grouped, size, 3), nn.Flatten(), Dense(height * width * size, size)]
        self.layers = nn.Sequential(*layers)
        self.last = Dense(size, size if classes else 1)
        self.mapping = Mapping(0, classes, size, config.label_layers) if classes else None

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        return self.score(self.features(x), label)

    def features(self, x: Tensor) -> Tensor:
        """Images to ``[N, d]``, d channels as at 4 pixels."""
        return _activate(self.layers(x))

    def score(self, features: Tensor, label: Tensor | None = None) -> Tensor:
        """Features and labels to scores ``[N]``."""
        projected = self.last(features)
        if self.mapping is None:
            return projected.squeeze(1)
        return (projected * self.mapping(None, label)).sum(1) / math.sqrt(projected.shape[1])


class Mapping(nn.Module):
    """Latents ``[N, latent]`` and labels ``[N]`` to ``[N, width]``; either may be None where its number is 0."""

    def __init__(self, latent: int, classes: int, width: int, layers: int):
        super().__init__()
        self.classes = classes
        self.embed = Dense(classes, width) if classes else None
        sizes = [latent + (width if classes else 0)] + [width] * layers
        self.layers = nn.ModuleList(Dense(a, b, rate=0.01) for a, b in itertools.pairwise(sizes))

    def forward(self, latent: Tensor | None, label: Tensor | None) -> Tensor:
        parts = [] if latent is None else [_normalise(latent)]
        if self.embed is not None:
            parts.append(_normalise(self.embed(one_hot(label, self.classes))))
        x = torch.cat(parts, dim=1)
        for layer in self.layers:
            x = _activate(layer(x))
        return x


class SynthesisBlock(nn.Module):
    """A resolution: one layer at 4 pixels, where ``inputs`` is 0, else two, the first of which doubles the pixels.

    What a to-RGB layer makes of them is added to the image so far (output skips: Karras et al. 2020a, figure 7b).
    """

    def __init__(self, inputs: int, outputs: int, channels: int, style: int, size: tuple[int, int]):
        super().__init__()
        self.layers = nn.ModuleList([StyledConvolution(inputs, outputs, style, size, double=True)] if inputs else [])
        self.layers.append(StyledConvolution(outputs, outputs, style, size, double=False))
        self.to_rgb = ToRGB(outputs, channels, style)
        self.upsample = Upsample()

    def forward(self, x: Tensor, image: Tensor | None, w: Tensor) -> tuple[Tensor, Tensor]:
        """``w`` is ``[N, layers + 1, style]``, one for each layer and for to-RGB."""
        *styles, style = w.unbind(1)
        for layer, s in zip(self.layers, styles, strict=True):
            x = layer(x, s)
        rgb = self.to_rgb(x, style)
        return x, rgb if image is None else self.upsample(image) + rgb


class StyledConvolution(nn.Module):
    """Modulated 3x3 convolution, noise, bias and leaky ReLU, to a map of ``size`` (Karras et al. 2020a, figure 2c)."""

    def __init__(self, inputs: int, outputs: int, style: int, size: tuple[int, int], double: bool):
        super().__init__()
        self.style = Dense(style, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise", torch.randn(*size))  # of evaluation
        self.blur = Blur(padding=1, gain=4.0) if double else None

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        x = modulated(x, self.weight, self.style(w), self.blur)
        fresh = (x.shape[0], 1, *self.noise.shape)
        noise = torch.randn(fresh, dtype=x.dtype, device=x.device) if self.training else self.noise.to(x.dtype)
        return _activate(x + self.strength * noise + self.bias.to(x.dtype)[:, None, None])


class ToRGB(nn.Module):
    """Modulated 1x1 convolution without demodulation, to an image in the type of its bias."""

    def __init__(self, inputs: int, channels: int, style: int):
        super().__init__()
        self.style = Dense(style, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(channels, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        style = self.style(w) / math.sqrt(x.shape[1])
        return conv2d(_scaled(x, style), self.weight) + self.bias[:, None, None]


def modulated(x: Tensor, weight: Tensor, style: Tensor, blur: Blur | None = None) -> Tensor:
    """Convolution of ``x [N, I, H, W]`` by ``weight [O, I, 3, 3]``: ``style [N, I]`` scales the inputs of each sample,
    whose outputs are then scaled to unit variance, for inputs that had it (Karras et al. 2020a, eq. 1 and 3).

    Scaling what goes in and what comes out is the same as scaling kernels, since a convolution is linear, and needs
    none for each sample. With ``blur`` the pixels are doubled: by a transposed convolution, smoothed afterwards.
    """
    with torch.autocast(x.device.type, enabled=False):
        energy = linear(style.square(), weight.square().sum((2, 3)))
    x = _scaled(x, style)
    x = conv2d(x, weight, padding=1) if blur is None else blur(conv_transpose2d(x, weight.transpose(0, 1), stride=2))
    return _scaled(x, torch.rsqrt(energy + 1e-8))


class CriticBlock(nn.Module):
    """Two convolutions that halve the pixels; ``residual`` adds a linear shortcut (Karras et al. 2020a, figure 7c)."""

    def __init__(self, inputs: int, outputs: int, residual: bool):
        super().__init__()
        self.layers = nn.Sequential(Convolution(inputs, inputs, 3), HalvingConvolution(inputs, outputs))
        self.skip = nn.Sequential(Downsample(), Projection(inputs, outputs)) if residual else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        return y if self.skip is None else (y + self.skip(x)) * math.sqrt(0.5)  # keeps the variance


class Projection(nn.Module):
    """1x1 convolution alone. Equalised learning rate (Karras et al. 2018, section 4.1): weights from N(0, 1), scaled
    as they are used, so that Adam's steps are the same share of every layer's weights.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 1):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.scale = 1 / math.sqrt(inputs * kernel**2)

    def forward(self, x: Tensor) -> Tensor:
        return conv2d(x, self.weight * self.scale)


class Convolution(Projection):
    """Convolution of odd ``kernel`` at the same size, bias and leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int):
        super().__init__(inputs, outputs, kernel)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return _activate(conv2d(x, self.weight * self.scale, self.bias, padding=self.weight.shape[2] // 2))


class HalvingConvolution(Convolution):
    """The same of 3x3 to half the size: with a stride, on what has been smoothed."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, 3)
        self.blur = Blur(padding=2)

    def forward(self, x: Tensor) -> Tensor:
        return _activate(conv2d(self.blur(x), self.weight * self.scale, self.bias, stride=2))


class Dense(nn.Module):
    """Linear layer ``[N, inputs]`` to ``[N, outputs]`` with an equalised learning rate, ``rate`` times everyone's."""

    def __init__(self, inputs: int, outputs: int, bias: float = 0.0, rate: float = 1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias / rate))
        self.scale, self.rate = rate / math.sqrt(inputs), rate

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return linear(x.to(self.weight.dtype), self.weight * self.scale, self.bias * self.rate)


class MinibatchDeviation(nn.Module):
    """``[N, C, H, W]`` to ``[N, C + 1, H, W]``: the mean standard deviation over groups of samples as a channel of its
    own (Karras et al. 2018, section 3). Groups have at most ``group`` samples, and as many as divide N.
    """

    def __init__(self, group: int):
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        group = next(g for g in range(min(self.group, n), 0, -1) if n % g == 0)
        variance = x.unflatten(0, (group, -1)).var(0, correction=0)  # a group is every (N / group)-th sample
        deviation = (variance + 1e-8).sqrt().mean((1, 2, 3))
        return torch.cat([x, deviation.repeat(group)[:, None, None, None].expand(-1, 1, h, w)], dim=1)


def _activate(x: Tensor) -> Tensor:
    return leaky_relu(x, 0.2) * math.sqrt(2)


def _normalise(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)


def _scaled(x: Tensor, by: Tensor) -> Tensor:
    """``x [N, C, H, W]`` times ``by [N, C]``, in the type of ``x``."""
    return x * by.to(x.dtype)[:, :, None, None]


def _plan(config: Config, shape: tuple[int, ...]) -> tuple[list[int], tuple[int, int]]:
    """Channels at 4, 8, ... pixels of the shorter side, and the size of the coarsest map."""
    count = doublings("stylegan2", shape, RESOLUTIONS)
    short = min(shape[1:])
    if config.channel_base < short:
        raise ValueError(f"channel_base {config.channel_base} leaves no channel at {short} pixels")
    widths = [min(config.channel_base // 2**i, config.channel_max) for i in range(2, count + 3)]
    return widths, (shape[1] >> count, shape[2] >> count)
