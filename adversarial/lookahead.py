"""Looking ahead: a shared step is played where its players will be if each of them repeats its last step.

Under ``simultaneous`` and ``single_pass`` both players move from the same point, so the generator answers the critic of
the step before; under ``alternating`` it answers a critic that has already moved. Here the shared step is played at
w̄ = w + α (w - w_before) instead, both players' gradients are taken there, and their optimisers step from w. With α = 1
for the critic, the generator meets nearly the critic that alternating play would show it; with α = 1 for both players
this is extrapolation from the past (Daskalakis et al. 2018; Gidel et al. 2019, algorithm 3; a prediction step in Yadav
et al. 2018). It costs no pass through a network.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from types import MappingProxyType

import torch
from torch import Tensor, nn

from .passes import Turn, trainable


class Lookahead:
    """The weights that players had before their last steps, from which their next steps are guessed.

    ``networks`` are those of the players that look ahead. ``limits`` says for a player whose weights are clipped after
    its steps (``clip_weights``) to what: w̄ stays within the limit, too. ``before`` is one copy of the weights of each,
    in the order of ``trainable``. It is part of a run's state.
    """

    def __init__(self, networks: Mapping[str, nn.Module], limits: Mapping[str, float] = MappingProxyType({})):
        self.limits = limits
        self.weights = {player: trainable(network) for player, network in networks.items()}
        self.before = {
            player: [weight.detach().clone() for weight in weights] for player, weights in self.weights.items()
        }

    def around(self, turns: Iterator[Turn], shared: int, alphas: Mapping[str, float]) -> Iterator[Turn]:
        """The same ``turns``, of which number ``shared`` (from 0) is played ahead. For a step's turns from a rule.

        ``alphas`` says for each player that looks ahead how many of its last steps.
        """
        for number in count():
            if number == shared and self.before:
                with self._ahead(alphas):
                    turn = next(turns, None)
            else:
                turn = next(turns, None)
            if turn is None:
                return
            for player in self.before.keys() & turn.players:  # which the caller is about to move
                torch._foreach_copy_(self.before[player], self.weights[player])
            yield turn

    def forget(self) -> None:
        """Take the weights as they are for those from before the last step: nobody has moved."""
        for player, before in self.before.items():
            torch._foreach_copy_(before, [weight.detach() for weight in self.weights[player]])

    @contextmanager
    def _ahead(self, alphas: Mapping[str, float]) -> Iterator[None]:
        """Players stand at w̄ inside, and exactly at w again afterwards."""
        for player, before in self.before.items():
            with torch.no_grad():  # w_before becomes w̄ in place: no third copy
                torch._foreach_lerp_(before, self.weights[player], 1 + alphas[player])
                if limit := self.limits.get(player, 0):
                    torch._foreach_clamp_min_(before, -limit)
                    torch._foreach_clamp_max_(before, limit)
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        """Exchange the contents of ``weights`` and ``before`` without moving a byte."""
        for player, before in self.before.items():
            for i, weight in enumerate(self.weights[player]):
                weight.data, before[i] = before[i], weight.data


def by_name(network: nn.Module, tensors: list[Tensor]) -> dict[str, Tensor]:
    """``tensors`` in the order of ``trainable``, by the names of the parameters."""
    names = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    return dict(zip(names, tensors, strict=True))
