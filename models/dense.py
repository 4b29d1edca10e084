"""Fully connected feature network for vectors: the shallow ones of Ganin et al. 2016, section 5.1, and deeper ones."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from models.domain import CriticConfig

ACTIVATIONS = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh}


@dataclass
class Config(CriticConfig):
    """Fields of ``model.*``."""

    name: str = "dense"  # family of networks: a key of models.FAMILIES
    width: Annotated[int, Ge(1)] = 50  # units in each layer of features
    depth: Annotated[int, Ge(1), Le(1000)] = 1  # layers of features
    activation: Literal["relu", "sigmoid", "tanh"] = "relu"  # after each layer: relu, sigmoid or tanh


class Features(nn.Module):
    """``[N, *shape]`` to the features ``[N, width]`` of every layer. Raises ValueError for an unknown activation."""

    def __init__(self, config: Config, shape: tuple[int, ...]):
        super().__init__()
        if config.activation not in ACTIVATIONS:
            raise ValueError(f"activation '{config.activation}' is unknown; valid are: {', '.join(ACTIVATIONS)}")
        self.sizes = [config.width] * config.depth
        inputs = [torch.Size(shape).numel(), *self.sizes[:-1]]
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(a, config.width), ACTIVATIONS[config.activation]()) for a in inputs
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        x = x.flatten(1)
        features = []
        for layer in self.layers:
            features.append(x := layer(x))
        return features
