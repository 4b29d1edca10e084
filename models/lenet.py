"""LeNet for digits of 8 to 64 pixels (LeCun et al. 1998), as domain-adaptation papers use it: two convolutions with
pooling and a layer of features (Ganin et al. 2016, figure 4a; Long et al. 2018 with 20, 50 and 500 units).
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Lt
from torch import Tensor, nn

from models.domain import CriticConfig

NORMS = {
    "none": lambda channels: [],
    "batch": lambda channels: [nn.BatchNorm2d(channels)],
    "instance": lambda channels: [nn.InstanceNorm2d(channels, affine=True)],  # forgets an image's contrast and tint
}


@dataclass
class Config(CriticConfig):
    """Fields of ``model.*``."""

    name: str = "lenet"  # family of networks: a key of models.FAMILIES
    channels: Annotated[int, Ge(1)] = 20  # of the first convolution; the second has two and a half times as many
    width: Annotated[int, Ge(1)] = 500  # units in the layer of features
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.5  # units dropped after the second convolution and the last layer
    norm: Literal["none", "batch", "instance"] = "none"  # none, batch or instance: after each convolution


class Features(nn.Module):
    """Images ``[N, C, R, R]`` to the features of both convolutions and of the last layer, each ``[N, d]``.

    Raises ValueError for images of fewer than 8 or more than 64 pixels, and for an unknown norm.
    """

    def __init__(self, config: Config, shape: tuple[int, ...]):
        super().__init__()
        if len(shape) != 3 or shape[1] != shape[2] or not 8 <= shape[1] <= 64:
            raise ValueError(f"lenet reads square images of 8 to 64 pixels, not samples of shape {tuple(shape)}")
        if not 0 <= config.dropout < 1:
            raise ValueError(f"dropout is {config.dropout} and must be at least 0 and below 1")
        if config.norm not in NORMS:
            raise ValueError(f"norm '{config.norm}' is unknown; valid are: {', '.join(NORMS)}")
        a, b = config.channels, config.channels * 5 // 2
        kernel, padding = (5, 0) if shape[1] >= 28 else (3, 1)  # small images have no border to lose
        self.first, self.second = (
            nn.Sequential(nn.Conv2d(i, o, kernel, padding=padding), *NORMS[config.norm](o), nn.ReLU(), nn.MaxPool2d(2))
            for i, o in ((shape[0], a), (a, b))
        )
        self.dropout = nn.Dropout(config.dropout)
        with torch.no_grad():
            self.eval()  # or the norms would take in these zeros
            first = self.first(torch.zeros(1, *shape))
            sizes = [first.numel(), self.second(first).numel()]
            self.train()
        self.last = nn.Sequential(nn.Linear(sizes[-1], config.width), nn.ReLU())
        self.sizes = [*sizes, config.width]

    def forward(self, x: Tensor) -> list[Tensor]:
        first = self.first(x)
        second = self.second(first)
        last = self.dropout(self.last(self.dropout(second).flatten(1)))
        return [first.flatten(1), second.flatten(1), last]
