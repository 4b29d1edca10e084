"""Micro-batches: an update rule on parts of a batch, with the gradients of the whole."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from .games import Game
from .objectives import Auxiliary, Objective
from .passes import Rounds, Strengths, Turn
from .rules import Rule


def accumulated(
    rule: Rule,
    game: Game,
    objective: Objective | Auxiliary,
    rounds: Rounds,
    strengths: Strengths = Strengths(),
    parts: int = 1,
) -> Iterator[Turn]:
    """Play every turn of ``rule`` on ``parts`` equal micro-batches one after the other; the gradients are their mean.

    That is the gradient of the whole batch for networks without statistics over the batch. Processes exchange gradients
    once a turn. Not for reused fakes: their graphs would all be kept.
    """
    size = len(rounds[0][0].x) // parts
    plays = []
    for i in range(parts):
        rows = slice(i * size, (i + 1) * size)
        part = [(batch.part(rows), draw.part(rows)) for batch, draw in rounds]
        plays.append(rule(game, objective, part, strengths))
    while True:
        with unsynchronised(game):
            turns = [next(play, None) for play in plays[:-1]]
        turns.append(next(plays[-1], None))
        if turns[-1] is None:
            return
        players = turns[-1].players
        networks = [getattr(game, player) for player in players]
        gradients = [p.grad for network in networks for p in network.parameters() if p.grad is not None]
        torch._foreach_div_(gradients, parts)
        reversed_sides = [side for turn in turns for side in turn.reversed]
        yield Turn(players, merged([turn.report for turn in turns]), reversed_sides)


def merged(reports: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """One report of several: scalars are averaged, scores ``[N]`` joined."""
    result = {}
    for name in reports[0]:
        values = [report[name] for report in reports]
        result[name] = torch.cat(values) if values[0].ndim else torch.stack(values).mean()
    return result


@contextmanager
def unsynchronised(game: Game) -> Iterator[None]:
    """Gradients stay in this process inside."""
    with ExitStack() as stack:
        for network in (game.generator, game.critic):
            if isinstance(network, nn.parallel.DistributedDataParallel):
                stack.enter_context(network.no_sync())
        yield
