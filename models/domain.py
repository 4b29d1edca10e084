"""What games of domains add to any feature network: a classifier head, a frozen copy for the source (ADDA), critics."""

import copy
import itertools
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from adversarial.domains import Prediction

CriticNorm = Literal["none", "batch", "spectral"]
NORMS = get_args(CriticNorm)


@dataclass
class CriticConfig:
    """Fields of ``model.*`` that all families for domain-adversarial games share."""

    critic_width: Annotated[int, Ge(1)] = 128  # units in each hidden layer of a critic
    critic_depth: Annotated[int, Ge(0), Le(1000)] = 1  # hidden layers of a critic; 0: logistic regression
    critic_norm: CriticNorm = "none"  # none, batch or spectral; batch cannot be played by update.rule=single_pass


class Recogniser(nn.Module):
    """A feature network and a linear classifier.

    ``forward`` takes any number of batches ``[N, ...]`` and returns a ``Prediction`` for each; they go through the
    network as one batch. ``features`` maps ``[N, ...]`` to one tensor ``[N, d]`` per layer, and has their ``sizes``.
    """

    def __init__(self, features: nn.Module, classes: int):
        super().__init__()
        self.features = features
        self.head = nn.Linear(features.sizes[-1], classes)

    def forward(self, *batches: Tensor) -> tuple[Prediction, ...]:
        layers = self.features(torch.cat(batches) if len(batches) > 1 else batches[0])
        sizes = [len(x) for x in batches]
        parts = zip(*(x.split(sizes) for x in (*layers, self.head(layers[-1]))), strict=True)
        return tuple(Prediction(part[:-1], part[-1]) for part in parts)

    def predict_source(self, x: Tensor) -> Prediction:
        """What it makes of source samples: the same as of the target's."""
        return self(x)[0]


class SplitRecogniser(nn.Module):
    """ADDA (Tzeng et al. 2017): a frozen feature network and classifier for the source, and for the target a copy of
    the network, which learns.

    ``forward(source, target)`` returns a ``Prediction`` for each; ``forward(x)`` takes target samples alone.
    """

    def __init__(self, source: Recogniser):
        super().__init__()
        self.features = copy.deepcopy(source.features)
        self.source = copy.deepcopy(source.features).requires_grad_(False)
        self.head = copy.deepcopy(source.head).requires_grad_(False)

    def train(self, mode: bool = True) -> "SplitRecogniser":
        """As usual, but the source's network stays in evaluation mode: its BatchNorm statistics are frozen, too."""
        super().train(mode)
        self.source.eval()
        return self

    def forward(self, *batches: Tensor) -> tuple[Prediction, ...]:
        networks = (self.source, self.features)[-len(batches) :]  # one batch: the target's network
        layers = [tuple(network(x)) for network, x in zip(networks, batches, strict=True)]
        return tuple(Prediction(x, self.head(x[-1])) for x in layers)

    def predict_source(self, x: Tensor) -> Prediction:
        """What the frozen network makes of source samples."""
        layers = tuple(self.source(x))
        return Prediction(layers, self.head(layers[-1]))


def split_tensors(recogniser: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a ``SplitRecogniser`` whose two networks are those of a ``Recogniser`` with these tensors."""
    of_source = {f"source.{k.removeprefix('features.')}": x for k, x in recogniser.items() if k.startswith("features.")}
    return {**recogniser, **of_source}


class Critics(nn.Module):
    """A perceptron for each of the inputs ``[N, size]``. Each returns scores ``[N]``, or with ``outputs`` > 1 logits
    ``[N, outputs]``.

    Raises ValueError for an unknown norm.
    """

    def __init__(self, config: CriticConfig, sizes: list[int], outputs: int = 1):
        super().__init__()
        if config.critic_norm not in NORMS:
            raise ValueError(f"critic_norm '{config.critic_norm}' is unknown; valid are: {', '.join(NORMS)}")
        self.config, self.sizes, self.outputs = config, sizes, outputs
        self.critics = nn.ModuleList(_perceptron(config, size, outputs) for size in sizes)

    def forward(self, *samples: Tensor) -> tuple[Tensor, ...]:
        scores = [critic(x) for critic, x in zip(self.critics, samples, strict=True)]
        return tuple(score.squeeze(1) if self.outputs == 1 else score for score in scores)

    def fresh(self) -> "Critics":
        """Critics of the same sizes with new random weights."""
        return Critics(self.config, self.sizes, self.outputs)


def _perceptron(config: CriticConfig, size: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise([size] + [config.critic_width] * config.critic_depth):
        layers += [nn.Linear(a, b), *([nn.BatchNorm1d(b)] if config.critic_norm == "batch" else []), nn.ReLU()]
    layers.append(nn.Linear(config.critic_width if config.critic_depth else size, outputs))
    if config.critic_norm == "spectral":
        layers = [spectral_norm(layer) if isinstance(layer, nn.Linear) else layer for layer in layers]
    return nn.Sequential(*layers)
