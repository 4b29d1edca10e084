"""The three update rules: how a game becomes parameter gradients.

A rule is a Python generator. It runs forwards and backwards, and yields a ``Turn`` when the gradients of one or both
players lie in ``parameter.grad``; the caller steps those players' optimisers, clears their gradients and resumes it:

    for turn in alternating(game, objective, rounds):
        for player in turn.players:
            optimizers[player].step()
            optimizers[player].zero_grad()

``rounds`` holds one (batch, draw) per critic update; the last one serves the generator's update as well. All rules
give the same gradients at the same parameters and draws; they differ in cost. In units of one network forward of a
batch (|G| = |D|, a layer's input gradient and weight gradient cost one forward each):

    rule                          generator       critic              total
    alternating, fresh fakes      1 + 1 + 2       2 + 4 + 1 + 1       12
    alternating, reused fakes     1 + 2           2 + 4 + 1 + 1       11
    simultaneous                  1 + 2           2 + 4 + 1           10   (real and fake judged apart)
    single pass                   1 + 2           2 + 4                9
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from adversarial.games import Batch, Draw, Game, Play
from adversarial.objectives import Objective
from adversarial.penalties import NO_PENALTY, Gamma, input_gradients, zero_centred

CRITIC, GENERATOR = "critic", "generator"
Rounds = Sequence[tuple[Batch, Draw]]


class Turn(NamedTuple):
    """Players whose gradients are ready, and what to log: detached losses (scalars) and scores ``[N]``."""

    players: tuple[str, ...]
    report: dict[str, Tensor]


@dataclass(frozen=True)
class Weights:
    """Weights at one step: penalties γ, and λ on the generator's adversarial loss (the critic's own update and the
    generator side's task loss are not scaled by it).
    """

    gamma: Gamma = NO_PENALTY
    coefficient: float = 1.0


def alternating(
    game: Game, objective: Objective, rounds: Rounds, weights: Weights = Weights(), reuse_fakes: bool = False
) -> Iterator[Turn]:
    """The classic: critic steps on detached fakes, then a generator step through a frozen critic.

    ``reuse_fakes`` gives the generator's step the fakes of the last critic step instead of fresh ones.
    """
    for i, (batch, draw) in enumerate(rounds):
        keep_graph = reuse_fakes and i == len(rounds) - 1
        with nullcontext() if keep_graph else torch.no_grad():
            play = game.play(batch, draw)
        yield _critic_turn(game, objective, play, weights.gamma)

    if not reuse_fakes:
        batch, draw = rounds[-1]
        play = game.play(batch, draw.fork("generator"))
    with _frozen(game.critic):
        if _judges_real(objective, play):
            real, fake = game.judge(play)
        else:
            real, fake = None, game.judge_fake(play)
        loss = weights.coefficient * objective.generator_loss(real, fake).mean()
        _backward([loss, play.task_loss], [None, None])
    yield Turn((GENERATOR,), {"generator_loss": loss.detach()})


def simultaneous(game: Game, objective: Objective, rounds: Rounds, weights: Weights = Weights()) -> Iterator[Turn]:
    """One shared forward, two cotangents through the critic's graph: one for the samples, one for its parameters.

    Serves every critic, batch-coupled ones too. Both players move from the same point.
    """
    yield from _critic_rounds(game, objective, rounds, weights.gamma)
    shared = _shared_forward(game, objective, *rounds[-1], weights)
    cotangents = torch.autograd.grad(
        shared.scores, [shared.cut[side] for side in shared.moved], shared.g, retain_graph=True
    )
    _backward([*shared.scores, shared.penalty], [*shared.c, None], _trainable(game.critic))
    yield _generator_backward(shared, cotangents)


def single_pass(game: Game, objective: Objective, rounds: Rounds, weights: Weights = Weights()) -> Iterator[Turn]:
    """One shared forward and one backward for both players: gradient reversal with one coefficient per sample.

    Where the critic judges each sample on its own, its backward carries c_i · ∂s_i/∂x_i to fake i (c_i = ∂L_D/∂s_i).
    Times g_i / c_i (g_i = ∂L_G/∂s_i) that is the gradient of the generator's own loss, whatever the loss: plain
    gradient reversal is the minimax case, g_i / c_i = -λ. A penalised side needs no coefficient: its penalty has
    computed ∂s_i/∂x_i already, and g_i times that is the generator's gradient.

    The reversal is placed by cutting the graph at the samples: backward to the cut, multiply, continue into the
    generator. Wrong for a critic that couples samples: ``games.couples_samples`` finds one.
    """
    yield from _critic_rounds(game, objective, rounds, weights.gamma)
    shared = _shared_forward(game, objective, *rounds[-1], weights)
    reversed_sides = [side for side in shared.moved if side not in shared.input_gradients]
    seeds = _floored(shared.c, reversed_sides)
    leaves = [shared.cut[side] for side in reversed_sides]
    _backward([*shared.scores, shared.penalty], [*seeds, None], [*_trainable(game.critic), *leaves])

    cotangents = []
    for side in shared.moved:
        if side in reversed_sides:
            arrived, coefficient = shared.cut[side].grad, shared.g[side] / seeds[side]
        else:
            arrived, coefficient = shared.input_gradients[side].detach(), shared.g[side]
        cotangents.append(arrived * _per_sample(coefficient, arrived))
    yield _generator_backward(shared, cotangents)


RULES: dict[str, Callable[..., Iterator[Turn]]] = {
    "alternating": alternating,
    "simultaneous": simultaneous,
    "single_pass": single_pass,
}


# --- the critic's own turn -------------------------------------------------------------------------------------------


def _critic_rounds(game: Game, objective: Objective, rounds: Rounds, gamma: Gamma) -> Iterator[Turn]:
    """All critic updates but the last, which the rule shares with the generator's."""
    for batch, draw in rounds[:-1]:
        with torch.no_grad():
            play = game.play(batch, draw)
        yield _critic_turn(game, objective, play, gamma)


def _critic_turn(game: Game, objective: Objective, play: Play, gamma: Gamma) -> Turn:
    inputs = replace(play, real=_leaf(play.real, gamma.r1 > 0), fake=_leaf(play.fake, gamma.r2 > 0))
    real, fake = game.judge(inputs)
    loss = objective.critic_loss(real, fake).mean()
    penalty, _ = _penalties(inputs, [real, fake], gamma)
    _backward([loss, penalty], [None, None], _trainable(game.critic))
    return Turn((CRITIC,), _report(play, [real, fake], critic_loss=loss, penalty=penalty))


def _penalties(inputs: Play, scores: list[Tensor], gamma: Gamma) -> tuple[Tensor | None, dict[int, Tensor]]:
    """The weighted penalties and, per penalised side (0 real, 1 fake), the input gradients ∂s_i/∂x_i."""
    sides = [side for side, weight in enumerate(gamma) if weight > 0]
    if not sides:
        return None, {}
    samples = (inputs.real, inputs.fake)
    gradients = input_gradients([scores[side] for side in sides], [samples[side] for side in sides])
    terms = [gamma[side] * zero_centred(gradient).mean() for side, gradient in zip(sides, gradients, strict=True)]
    return sum(terms[1:], terms[0]), dict(zip(sides, gradients, strict=True))


# --- both players' turn from one forward -----------------------------------------------------------------------------


class _Shared(NamedTuple):
    """One forward, cut where the generator side hands its samples to the critic. Lists are [real, fake]."""

    play: Play
    cut: list[Tensor]  # the critic's inputs: leaves at which its backward ends
    scores: list[Tensor]
    c: list[Tensor]  # c_i = ∂L_D/∂s_i
    g: list[Tensor]  # g_i = λ ∂L_G/∂s_i
    moved: list[int]  # the sides that the generator side made: 0 real, 1 fake
    penalty: Tensor | None
    input_gradients: dict[int, Tensor]  # ∂s_i/∂x_i of the penalised sides
    report: dict[str, Tensor]


def _shared_forward(game: Game, objective: Objective, batch: Batch, draw: Draw, weights: Weights) -> _Shared:
    play = game.play(batch, draw)
    made = [play.real, play.fake]
    moved = [side for side in (0, 1) if made[side].requires_grad]
    cut = [_leaf(x, side in moved or weights.gamma[side] > 0) for side, x in enumerate(made)]
    inputs = replace(play, real=cut[0], fake=cut[1])
    scores = list(game.judge(inputs))
    penalty, input_gradients = _penalties(inputs, scores, weights.gamma)

    def generator_loss(real: Tensor, fake: Tensor) -> Tensor:
        return weights.coefficient * objective.generator_loss(real if _judges_real(objective, play) else None, fake)

    critic_loss, c = _score_gradients(objective.critic_loss, *scores)
    loss, g = _score_gradients(generator_loss, *scores)
    report = _report(play, scores, critic_loss=critic_loss, generator_loss=loss, penalty=penalty)
    return _Shared(play, cut, scores, c, g, moved, penalty, input_gradients, report)


def _generator_backward(shared: _Shared, cotangents: Sequence[Tensor]) -> Turn:
    """Continue from the cut into the generator side, together with its own loss."""
    made = (shared.play.real, shared.play.fake)
    roots = [*(made[side] for side in shared.moved), shared.play.task_loss]
    _backward(roots, [*cotangents, None])
    return Turn((CRITIC, GENERATOR), shared.report)


def _floored(c: list[Tensor], sides: list[int]) -> list[Tensor]:
    """``c`` with a power of two in place of every |c_i| below it on the given sides, so that g_i / c_i exists.

    c_i vanishes for an inactive hinge or a saturated sigmoid, where the generator's g_i need not. The floor is
    2^-17 of what the format resolves beside the batch's largest |c|: 2^-40 of it in float32, 2^-69 in float64. So a
    floored sample moves the critic's gradient by less than the format can hold, and the generator's is recovered
    exactly, because scaling by a power of two rounds nothing. Where all c_i vanish, the largest is taken as 2^-40
    (2^-69): neither the seed nor the ratio then leaves the format's range.
    """
    bits = 17 - round(math.log2(torch.finfo(c[0].dtype).eps))
    largest = torch.cat([x.flatten().abs() for x in c]).max().clamp(min=2.0**-bits)
    _, exponent = torch.frexp(largest)  # 2^(exponent - 1) <= largest
    floor = torch.ldexp(torch.ones_like(largest), exponent - 1 - bits)
    return [torch.where(x.abs() < floor, torch.copysign(floor, x), x) if i in sides else x for i, x in enumerate(c)]


def _score_gradients(
    loss: Callable[[Tensor, Tensor], Tensor], real: Tensor, fake: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """The batch mean of ``loss`` and its derivative by every score: autograd on 2N numbers, no formula per loss."""
    leaves = [real.detach().requires_grad_(), fake.detach().requires_grad_()]
    value = loss(*leaves).mean()
    return value, list(torch.autograd.grad(value, leaves, materialize_grads=True))


# --- small parts -----------------------------------------------------------------------------------------------------


def _judges_real(objective: Objective, play: Play) -> bool:
    """Whether the generator's loss depends on the real scores."""
    return objective.pairs or play.real.requires_grad


def _leaf(x: Tensor, requires_grad: bool) -> Tensor:
    return x.detach().requires_grad_(requires_grad)


def _per_sample(coefficient: Tensor, x: Tensor) -> Tensor:
    return coefficient.reshape(-1, *[1] * (x.ndim - 1)).to(x.dtype)


def _trainable(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def _backward(roots: list[Tensor | None], seeds: list[Tensor | None], leaves: list[Tensor] | None = None) -> None:
    """Accumulate gradients; with ``leaves`` into these alone: input gradients that nobody needs are not computed."""
    pairs = [(root, seed) for root, seed in zip(roots, seeds, strict=True) if root is not None]
    torch.autograd.backward([root for root, _ in pairs], [seed for _, seed in pairs], inputs=leaves)


def _report(play: Play, scores: list[Tensor], **losses: Tensor | None) -> dict[str, Tensor]:
    values = {**losses, "task_loss": play.task_loss, "real_score": scores[0], "fake_score": scores[1]}
    return {name: value.detach() for name, value in values.items() if value is not None}


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """No weight gradients are computed inside, and DistributedDataParallel awaits none."""
    parameters = _trainable(module)
    no_sync = module.no_sync if isinstance(module, nn.parallel.DistributedDataParallel) else nullcontext
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        with no_sync():
            yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
