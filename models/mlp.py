"""Fully connected pair for points in the plane and other short vectors."""

import itertools
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn
from torch.nn.functional import one_hot


@dataclass
class Config:
    """Fields of ``model.*``."""

    name: str = "mlp"  # family of networks: a key of models.FAMILIES
    latent_dim: Annotated[int, Ge(1)] = 2  # length of the latent vector z
    width: Annotated[int, Ge(1)] = 128  # units in each hidden layer
    depth: Annotated[int, Ge(1), Le(1000)] = 3  # hidden layers in each network


class Generator(nn.Module):
    """``latent [N, latent_dim]``, ``label [N]`` or None, to ``points [N, *shape]``; ``classes`` is 0 without labels."""

    def __init__(self, config: Config, shape: tuple[int, ...], classes: int):
        super().__init__()
        self.shape, self.classes = tuple(shape), classes
        size = torch.Size(shape).numel()
        self.layers = _layers(config.latent_dim + classes, config.width, config.depth, size, nn.ReLU())
        self.apply(initialise)

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        return self.layers(_with_label(latent, label, self.classes)).unflatten(1, self.shape)


class Critic(nn.Module):
    """``points [N, *shape]``, ``label [N]`` or None, to raw scores ``[N]``."""

    def __init__(self, config: Config, shape: tuple[int, ...], classes: int):
        super().__init__()
        self.classes = classes
        size = torch.Size(shape).numel()
        self.layers = _layers(size + classes, config.width, config.depth, 1, nn.LeakyReLU(0.2))
        self.apply(initialise)

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        return self.layers(_with_label(x.flatten(1), label, self.classes)).squeeze(1)


def initialise(module: nn.Module) -> None:
    """He initialisation of the weights, zero biases (He et al. 2015)."""
    if isinstance(module, nn.Linear):
        nn.init.kaiming_normal_(module.weight)
        nn.init.zeros_(module.bias)


def _layers(size: int, width: int, depth: int, out: int, activation: nn.Module) -> nn.Sequential:
    sizes = [size] + [width] * depth
    hidden = [layer for a, b in itertools.pairwise(sizes) for layer in (nn.Linear(a, b), activation)]
    return nn.Sequential(*hidden, nn.Linear(sizes[-1], out))


def _with_label(x: Tensor, label: Tensor | None, classes: int) -> Tensor:
    return x if label is None else torch.cat([x, one_hot(label, classes).to(x.dtype)], dim=1)
