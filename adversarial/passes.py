"""The parts of a step that the update rules share: losses, cuts, derivatives by score, backward passes, reports."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .draws import Draw
from .games import Batch, Game, Pair, Play, Side
from .objectives import Auxiliary, Objective, total, weighed
from .penalties import GENERATOR, SCORES, SLOPES, Penalty, take_slopes

Rounds = Sequence[tuple[Batch, Draw]]


class Turn(NamedTuple):
    """Players whose gradients are ready, and what to log, detached: losses, scores and whether the critic is right, all
    per sample ``[N]``, and scalars; of a single pass also the sides that were ``reversed``, which have their ``ratio``.
    """

    players: tuple[str, ...]
    report: dict[str, Tensor]
    reversed: Sequence[Side] = ()


@dataclass(frozen=True)
class Strengths:
    """How much each term counts at one step: γ > 0 of the penalties that are due, and λ on the generator's adversarial
    loss (the critic's own update and the generator side's task loss are not scaled by it).
    """

    penalties: Mapping[Penalty, float] = field(default_factory=dict)
    coefficient: float = 1.0


# --- losses and penalties --------------------------------------------------------------------------------------------


def losses_of(loss: Callable[..., Tensor], pairs: Sequence[Pair]) -> list[Tensor]:
    """A ``loss(real_scores, fake_scores, weights)`` per sample ``[N]``, for each critic."""
    found = []
    for real, fake in pairs:
        scores = [None if side is None else side.score for side in (real, fake)]
        weights = [1.0 if side is None else side.weight for side in (real, fake)]
        found.append(loss(*scores, weights))
    return found


def mean(losses: Sequence[Tensor]) -> Tensor:
    """The mean over samples, summed over critics: a scalar."""
    return total([loss.mean() for loss in losses])


def mean_seeds(losses: Sequence[Tensor], coefficient: float = 1.0) -> list[Tensor]:
    """The derivatives of ``coefficient`` times their ``mean`` by the losses, with which a backward pass begins."""
    return [torch.full_like(loss, coefficient / loss.numel()) for loss in losses]


def generator_pairs(objective: Objective | Auxiliary, pairs: Sequence[Pair]) -> Sequence[Pair]:
    """What the generator's loss looks at: fakes, and reals where it compares them or has made them."""
    if objective.pairs or any(pair.real.samples.requires_grad for pair in pairs):
        return pairs
    return [Pair(None, pair.fake) for pair in pairs]


def penalty_terms(play: Play, penalties: Mapping[Penalty, float], *acts_on: str) -> list[Tensor]:
    """γ times the terms of the critic's penalties that act on SLOPES, on SCORES, or on either. They are reported."""
    terms = []
    for penalty, gamma in penalties.items():
        if penalty.acts_on in acts_on:
            terms.append(gamma * penalty.term(play, play.watched[penalty]))
    if terms:
        before = [play.report["penalty"]] if "penalty" in play.report else []
        play.report["penalty"] = total([term.detach() for term in terms] + before)
    return terms


def generator_losses(game: Game, play: Play, draw: Draw, penalties: Mapping[Penalty, float]) -> list[Tensor]:
    """What the generator side minimises besides its adversarial loss: its task, and γ times its own penalties."""
    losses = [] if play.task_loss is None else [play.task_loss]
    for penalty, gamma in penalties.items():
        if penalty.acts_on == GENERATOR:
            term, values = penalty.generator_term(game, play, draw)
            losses.append(gamma * term)
            play.report |= values
    return losses


# --- the critic's forward --------------------------------------------------------------------------------------------


def cut(play: Play, draw: Draw, penalties: Mapping[Penalty, float], reached: Sequence[Side] = ()) -> None:
    """Detach the samples: the critics' backward pass ends at them.

    A gradient arrives only at the sides named in ``reached`` and at those whose slope a penalty takes.
    """
    play.watched = {penalty: penalty.pairs(play, draw) for penalty in penalties}
    sloped = [side for p, pairs in play.watched.items() if p.acts_on == SLOPES for pair in pairs for side in pair]
    for side in play.sides:
        side.cut = side.samples.detach().requires_grad_(side in sloped or side in reached)


def judge(game: Game, play: Play) -> None:
    """Have the critics score the play, and what else penalties look at; take the slopes that they need."""
    game.judge(play.pairs)
    sloped = []
    for penalty, pairs in play.watched.items():
        sides = [side for pair in pairs for side in pair if side is not None]
        if sides and sides[0].score is None:
            game.judge(pairs)
        if penalty.acts_on == SLOPES:
            sloped += sides
    if sloped:
        take_slopes(sloped)


# --- derivatives by score --------------------------------------------------------------------------------------------


def score_derivatives(objective: Objective | Auxiliary, play: Play, strengths: Strengths) -> list[Side]:
    """Set c_i = ∂L_D/∂s_i, penalties on scores included, and g_i = λ ∂L_G/∂s_i on the sides.

    They are derivatives of a few numbers per sample, by autograd on detached scores: no formula per loss. Returns the
    sides that have c: those of the play, and those that penalties on scores look at.
    """
    on_scores = [pairs for penalty, pairs in play.watched.items() if penalty.acts_on == SCORES]
    judged = [*play.sides, *(side for pairs in on_scores for pair in pairs for side in pair)]
    scores = [side.score for side in judged]
    # Leaves of their own for either player, so that one call gives both players' derivatives.
    for_critic = take_leaf_scores(judged)
    of_critic = losses_of(objective.critic_loss, play.pairs)
    terms = penalty_terms(play, strengths.penalties, SCORES)
    for_generator = take_leaf_scores(play.sides)
    of_generator = losses_of(objective.generator_loss, generator_pairs(objective, play.pairs))
    roots = [*of_critic, *terms, *of_generator]
    seeds = [*mean_seeds(of_critic), *(None for _ in terms), *mean_seeds(of_generator, strengths.coefficient)]
    # A side that the generator's loss does not look at has a derivative of zero.
    derivatives = torch.autograd.grad(roots, [*for_critic, *for_generator], seeds, materialize_grads=True)
    for side, score, c in zip(judged, scores, derivatives[: len(judged)], strict=True):
        side.score, side.c = score, c
    for side, g in zip(play.sides, derivatives[len(judged) :], strict=True):
        side.g = g
    play.report["critic_loss"] = total(of_critic)
    play.report["generator_loss"] = weighed(total(of_generator), strengths.coefficient)
    return judged


def take_leaf_scores(sides: Sequence[Side]) -> list[Tensor]:
    """Put a detached score in the place of each side's own, and return them: losses can be differentiated by them."""
    for side in sides:
        side.score = side.score.detach().requires_grad_()
    return [side.score for side in sides]


def floor_c(all_sides: Sequence[Side], reversed_sides: Sequence[Side]) -> None:
    """Put a power of two in the place of every |c_i| below it, on the sides whose g_i / c_i is needed.

    c_i vanishes for an inactive hinge or a saturated sigmoid, where the generator's g_i need not. The floor is
    2^-17 of what the format resolves next to the batch's largest |c|: 2^-40 of it in float32, 2^-69 in float64. So a
    floored sample moves the critic's gradient by less than the format can hold, and the generator's is recovered
    exactly, because scaling by a power of two rounds nothing. Where all c_i vanish, the largest is taken as 2^-40
    (2^-69): neither the seed nor the ratio then leaves the format's range.
    """
    if not reversed_sides:
        return
    bits = 17 - round(math.log2(torch.finfo(all_sides[0].c.dtype).eps))
    largest = torch.linalg.vector_norm(torch.cat([side.c for side in all_sides]), torch.inf).clamp(min=2.0**-bits)
    mantissa, _ = torch.frexp(largest)  # in [1/2, 1)
    floor = largest * 2.0 ** (-1 - bits) / mantissa  # a power of two, exactly
    for side in reversed_sides:
        side.floor = floor
        side.c = side.c.abs().clamp(min=floor).copysign(side.c)


# --- backward passes -------------------------------------------------------------------------------------------------


def per_sample(ratio: Tensor, x: Tensor) -> Tensor:
    """A number per score ``[N / m]``, shaped to multiply the m samples ``x`` ``[N, ...]`` of each."""
    if len(ratio) != len(x):
        ratio = ratio.repeat_interleave(len(x) // len(ratio))
    return ratio.reshape(-1, *[1] * (x.ndim - 1)).to(x.dtype)


def trainable(network: nn.Module) -> list[nn.Parameter]:
    """The parameters that are not frozen."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """No weight gradients are computed inside, and DistributedDataParallel awaits none."""
    parameters = trainable(network)
    no_sync = network.no_sync if isinstance(network, nn.parallel.DistributedDataParallel) else nullcontext
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        with no_sync():
            yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


# --- reports ---------------------------------------------------------------------------------------------------------


def report(objective: Objective | Auxiliary, play: Play) -> dict[str, Tensor]:
    """What to log of a turn, detached: what the play's report holds, and how the last critic scored either side. A log
    wants the means of what is per sample ``[N]``, and can take those of many turns at once.
    """
    values = {name: value.detach() for name, value in play.report.items()}
    if play.task_loss is not None:
        values["task_loss"] = play.task_loss.detach()
    last = play.pairs[-1]
    for name, side in (("real", last.real), ("fake", last.fake)):
        if side is None:
            continue
        scores = side.score.detach()
        score = scores if scores.ndim == 1 else scores[:, 0]  # the first of several is the own class's
        values[f"{name}_score"] = score
        if objective.boundary is not None and last.fake is not None:  # one of K attributes is not told by a boundary
            right = score > objective.boundary if name == "real" else score < objective.boundary
            values[f"critic_accuracy_{name}"] = right
        if isinstance(objective, Auxiliary):
            values[f"class_probability_{name}"] = scores[:, 1].sigmoid()
    return values
