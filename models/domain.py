"""What domain-adversarial games add to any feature network: a label head, a frozen source side (ADDA), the critics."""

import copy
import itertools
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from adversarial.games import Recognition

CriticNorm = Literal["none", "batch", "spectral"]
NORMS = get_args(CriticNorm)


@dataclass
class CriticConfig:
    """Fields of ``model.*`` that all families for domain-adversarial games share."""

    critic_width: Annotated[int, Ge(1)] = 128  # units in each hidden layer of a critic
    critic_depth: Annotated[int, Ge(0)] = 1  # hidden layers of a critic; 0: logistic regression on what it sees
    critic_norm: CriticNorm = "none"  # none, batch or spectral; batch cannot be played by update.rule=single_pass


class Recogniser(nn.Module):
    """Any number of batches ``[N, ...]`` to a ``Recognition`` each; they go through the network as one batch.

    ``features`` maps ``[N, ...]`` to one tensor ``[N, d]`` per layer and has their ``sizes``.
    """

    def __init__(self, features: nn.Module, classes: int):
        super().__init__()
        self.features = features
        self.head = nn.Linear(features.sizes[-1], classes)

    def forward(self, *batches: Tensor) -> tuple[Recognition, ...]:
        layers = self.features(torch.cat(batches) if len(batches) > 1 else batches[0])
        sizes = [len(x) for x in batches]
        parts = zip(*(x.split(sizes) for x in (*layers, self.head(layers[-1]))), strict=True)
        return tuple(Recognition(part[:-1], part[-1]) for part in parts)


class SplitRecogniser(nn.Module):
    """ADDA (Tzeng et al. 2017): a frozen network and head for the source, and a copy of the network for the target.

    ``forward(source, target)`` as the ``Recogniser``'s; ``forward(x)`` alone takes samples of the target.
    """

    def __init__(self, source: Recogniser):
        super().__init__()
        self.features = copy.deepcopy(source.features)
        self.source = copy.deepcopy(source.features).requires_grad_(False)
        self.head = copy.deepcopy(source.head).requires_grad_(False)

    def start_from(self, source: Recogniser) -> None:
        """Both sides take over a network that was trained on the source."""
        self.features.load_state_dict(source.features.state_dict())
        self.source.load_state_dict(source.features.state_dict())
        self.head.load_state_dict(source.head.state_dict())

    def train(self, mode: bool = True) -> "SplitRecogniser":
        """The source's side stays in evaluation mode: frozen means its statistics, too."""
        super().train(mode)
        self.source.eval()
        return self

    def forward(self, *batches: Tensor) -> tuple[Recognition, ...]:
        networks = (self.source, self.features)[-len(batches) :]
        layers = [tuple(network(x)) for network, x in zip(networks, batches, strict=True)]
        return tuple(Recognition(x, self.head(x[-1])) for x in layers)


class Critics(nn.Module):
    """A perceptron for each entry of what the critics see (``[N, size]``): scores ``[N]``, or logits ``[N, outputs]``.

    Raises ValueError for an unknown norm.
    """

    def __init__(self, config: CriticConfig, sizes: list[int], outputs: int = 1):
        super().__init__()
        if config.critic_norm not in NORMS:
            raise ValueError(f"critic_norm '{config.critic_norm}' is unknown; valid are: {', '.join(NORMS)}")
        self.critics = nn.ModuleList(_perceptron(config, size, outputs) for size in sizes)
        self.single = outputs == 1

    def forward(self, *samples: Tensor) -> tuple[Tensor, ...]:
        scores = [critic(x) for critic, x in zip(self.critics, samples, strict=True)]
        return tuple(score.squeeze(1) for score in scores) if self.single else tuple(scores)


def _perceptron(config: CriticConfig, size: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise([size] + [config.critic_width] * config.critic_depth):
        layers += [nn.Linear(a, b), *([nn.BatchNorm1d(b)] if config.critic_norm == "batch" else []), nn.ReLU()]
    layers.append(nn.Linear(config.critic_width if config.critic_depth else size, outputs))
    if config.critic_norm == "spectral":
        layers = [spectral_norm(layer) if isinstance(layer, nn.Linear) else layer for layer in layers]
    return nn.Sequential(*layers)
