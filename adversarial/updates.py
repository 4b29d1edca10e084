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
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import wraps
from itertools import chain, zip_longest
from typing import NamedTuple

import torch
from torch import Tensor, nn

from adversarial.augmentation import diffaugment
from adversarial.games import Batch, Draw, Game, Play, Samples
from adversarial.objectives import Auxiliary, Objective, own_class
from adversarial.penalties import (
    NO_PENALTY,
    Gamma,
    around,
    between,
    clip_weights,
    consistency,
    input_gradients,
    lecam,
    one_centred,
    path_lengths,
    zero_centred,
)

CRITIC, GENERATOR = "critic", "generator"
CHANGED = diffaugment(("mirror", "translation"))  # what the critic should not mind: bCR
Rounds = Sequence[tuple[Batch, Draw]]


class Turn(NamedTuple):
    """Players whose gradients are ready, and what to log: detached losses (scalars) and scores ``[N]``."""

    players: tuple[str, ...]
    report: dict[str, Tensor]


Rule = Callable[..., Iterator[Turn]]


@dataclass(frozen=True)
class Weights:
    """Weights at one step: penalties γ, and λ on the generator's adversarial loss (the critic's own update and the
    generator side's task loss are not scaled by it).
    """

    gamma: Gamma = NO_PENALTY
    coefficient: float = 1.0


def _clipping(rule: Rule) -> Rule:
    """Between two turns, the critic has stepped and its weights can be clipped."""

    @wraps(rule)
    def clipped(
        game: Game, objective: Objective, rounds: Rounds, weights: Weights = Weights(), **options
    ) -> Iterator[Turn]:
        for turn in rule(game, objective, rounds, weights, **options):
            yield turn
            if weights.gamma.clip > 0 and CRITIC in turn.players:
                clip_weights(game.critic, weights.gamma.clip)

    return clipped


@_clipping
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
        yield _critic_turn(game, objective, play, draw, weights.gamma)

    batch, draw = rounds[-1]
    if not reuse_fakes:
        play = game.play(batch, draw.fork("generator"))
    path, lengths = _path_penalty(game, play, draw, weights.gamma)
    with _frozen(game.critic):
        real, fake = game.judge(play) if _judges_real(objective, play) else ((), game.judge_fake(play))
        loss = weights.coefficient * _adversarial(objective.generator_loss, play, real, fake)
        _backward([loss, play.task_loss, path], [None, None, None])
    yield Turn((GENERATOR,), {"generator_loss": loss.detach(), **lengths})


@_clipping
def simultaneous(game: Game, objective: Objective, rounds: Rounds, weights: Weights = Weights()) -> Iterator[Turn]:
    """One shared forward, two cotangents through the critic's graph: one for the samples, one for its parameters.

    Serves every critic, batch-coupled ones too. Both players move from the same point.
    """
    yield from _critic_rounds(game, objective, rounds, weights.gamma)
    shared = _shared_forward(game, objective, *rounds[-1], weights)
    cotangents = torch.autograd.grad(shared.scores, [shared.cut[i] for i in shared.moved], shared.g, retain_graph=True)
    _backward([*shared.scores, *shared.changed, shared.penalty], [*shared.c, None], _trainable(game.critic))
    yield _generator_backward(shared, cotangents)


@_clipping
def single_pass(game: Game, objective: Objective, rounds: Rounds, weights: Weights = Weights()) -> Iterator[Turn]:
    """One shared forward and one backward for both players: gradient reversal with one coefficient per sample.

    Where the critic judges each sample on its own, its backward carries c_i · ∂s_i/∂x_i to fake i (c_i = ∂L_D/∂s_i).
    Times g_i / c_i (g_i = ∂L_G/∂s_i) that is the gradient of the generator's own loss, whatever the loss: plain
    gradient reversal is the minimax case, g_i / c_i = -λ. A penalised side needs no coefficient: its penalty has
    computed ∂s_i/∂x_i already, and g_i times that is the generator's gradient.

    The reversal is placed by cutting the graph at the samples: backward to the cut, multiply, continue into the
    generator. Wrong for a critic that couples samples: ``games.couples_samples`` finds one. Raises ValueError where a
    sample has several scores from one critic: their gradients cannot be told apart any more at the sample.
    """
    yield from _critic_rounds(game, objective, rounds, weights.gamma)
    shared = _shared_forward(game, objective, *rounds[-1], weights)
    if any(score.ndim > 1 for score in shared.scores):
        raise ValueError("A single pass needs one score per sample; use the simultaneous or the alternating rule.")
    reversed_entries = [i for i in shared.moved if i not in shared.input_gradients]
    seeds = _floored(shared.c, reversed_entries)
    leaves = [shared.cut[i] for i in reversed_entries]
    roots = [*shared.scores, *shared.changed, shared.penalty]
    _backward(roots, [*seeds, None], [*_trainable(game.critic), *leaves])

    cotangents = []
    for i in shared.moved:
        if i in reversed_entries:
            arrived, coefficient = shared.cut[i].grad, shared.g[i] / seeds[i]
        else:
            arrived, coefficient = shared.input_gradients[i].detach(), shared.g[i]
        cotangents.append(arrived * _per_sample(coefficient, arrived))
    yield _generator_backward(shared, cotangents)


RULES: dict[str, Rule] = {
    "alternating": alternating,
    "simultaneous": simultaneous,
    "single_pass": single_pass,
}


# --- micro-batches ---------------------------------------------------------------------------------------------------


def accumulated(
    rule: Callable[..., Iterator[Turn]],
    game: Game,
    objective: Objective,
    rounds: Rounds,
    weights: Weights = Weights(),
    parts: int = 1,
) -> Iterator[Turn]:
    """Play every turn of ``rule`` on ``parts`` equal micro-batches one after the other; the gradients are their mean.

    That is the gradient of the whole batch for networks without statistics over the batch. Processes exchange gradients
    once a turn. Not for reused fakes: their graphs would all be kept.
    """
    plays = [rule(game, objective, _part(rounds, i, parts), weights) for i in range(parts)]
    while True:
        with _unsynchronised(game):
            turns = [next(play, None) for play in plays[:-1]]
        turns.append(next(plays[-1], None))
        if turns[-1] is None:
            return
        if parts > 1:
            _divide_gradients(game, turns[-1].players, parts)
        yield Turn(turns[-1].players, _merged([turn.report for turn in turns]))


def _part(rounds: Rounds, i: int, parts: int) -> Rounds:
    size = len(rounds[0][0].x) // parts
    rows = slice(i * size, (i + 1) * size)
    return [(batch.part(rows), draw.part(rows)) for batch, draw in rounds]


def _divide_gradients(game: Game, players: tuple[str, ...], parts: int) -> None:
    networks = [getattr(game, player) for player in players]
    gradients = [p.grad for network in networks for p in network.parameters() if p.grad is not None]
    torch._foreach_div_(gradients, parts)


def _merged(reports: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Scalars are averaged, scores ``[N]`` joined."""
    values = {name: [report[name] for report in reports] for name in reports[0]}
    return {
        name: torch.cat(parts) if parts[0].ndim else torch.stack(parts).mean() for name, parts in values.items()
    }  # fmt: skip


@contextmanager
def _unsynchronised(game: Game) -> Iterator[None]:
    """Gradients stay in this process inside."""
    with ExitStack() as stack:
        for network in (game.generator, game.critic):
            if isinstance(network, nn.parallel.DistributedDataParallel):
                stack.enter_context(network.no_sync())
        yield


# --- the critic's own turn -------------------------------------------------------------------------------------------


def _critic_rounds(game: Game, objective: Objective, rounds: Rounds, gamma: Gamma) -> Iterator[Turn]:
    """All critic updates but the last, which the rule shares with the generator's."""
    for batch, draw in rounds[:-1]:
        with torch.no_grad():
            play = game.play(batch, draw)
        yield _critic_turn(game, objective, play, draw, gamma)


def _critic_turn(game: Game, objective: Objective, play: Play, draw: Draw, gamma: Gamma) -> Turn:
    penalised = zip(_entries(play), _zero_centred(play, gamma), strict=True)
    inputs = _with_samples(play, [_leaf(x, weight > 0) for x, weight in penalised])
    real, fake = game.judge(inputs)
    changed = _judge_changed(game, inputs, draw, gamma)
    loss = _adversarial(objective.critic_loss, play, real, fake)
    slopes, _ = _slope_penalties(game, inputs, [*real, *fake], draw, gamma)
    penalty = _sum([slopes, _score_penalties(game, gamma, real, fake, changed)])
    _backward([loss, penalty], [None, None], _trainable(game.critic))
    return Turn((CRITIC,), _report(objective, play, real, fake, critic_loss=loss, penalty=penalty))


def _slope_penalties(
    game: Game, inputs: Play, scores: list[Tensor], draw: Draw, gamma: Gamma
) -> tuple[Tensor | None, dict[int, Tensor]]:
    """The weighted penalties on input gradients and, per entry with R1 or R2, the input gradients ∂s_i/∂x_i."""
    weights = _zero_centred(inputs, gamma)
    penalised = [i for i, weight in enumerate(weights) if weight > 0]
    samples, terms, slopes = _entries(inputs), [], []
    if penalised:
        slopes = input_gradients([own_class(scores[i]) for i in penalised], [samples[i] for i in penalised])
        by_entry = zip(penalised, slopes, strict=True)
        terms = [weights[i] * zero_centred(_of_score(x, scores[i])).mean() for i, x in by_entry]
    for weight, points in _other_points(inputs, len(scores[0]), draw, gamma):
        judged = [own_class(score) for score in game.judge_fake(replace(inputs, fake=points))]
        at_points = zip(input_gradients(judged, list(points)), judged, strict=True)
        terms += [weight * one_centred(_of_score(x, score)).mean() for x, score in at_points]
    return _sum(terms), dict(zip(penalised, slopes, strict=True))


def _other_points(inputs: Play, scores: int, draw: Draw, gamma: Gamma) -> Iterator[tuple[float, Samples]]:
    """Where else the critic's slope should be 1, and what that weighs: leaves, to be judged as fakes are."""
    if gamma.gp > 0:
        share = draw.uniform("gradient penalty")
        pack = len(share) // scores
        share = share[::pack].repeat_interleave(pack)  # a pack moves as one
        yield gamma.gp, tuple(between(real, fake, share) for real, fake in zip(inputs.real, inputs.fake, strict=True))
    if gamma.dragan > 0:
        noise = [gamma.noise * draw.normal("dragan", tuple(real.shape[1:])) for real in inputs.real]
        yield gamma.dragan, tuple(around(real, x) for real, x in zip(inputs.real, noise, strict=True))


def _judge_changed(game: Game, inputs: Play, draw: Draw, gamma: Gamma) -> Samples:
    """Scores of all samples once more, mirrored and shifted, where the critic is asked to be consistent; else ()."""
    if gamma.consistency == 0:
        return ()
    changed = [CHANGED(draw, f"consistency {i}", 1.0)(x.detach()) for i, x in enumerate(_entries(inputs))]
    real, fake = game.judge(_with_samples(inputs, changed))
    return (*real, *fake)


def _score_penalties(game: Game, gamma: Gamma, real: Samples, fake: Samples, changed: Samples) -> Tensor | None:
    """The weighted penalties on scores."""
    scores = [list(map(own_class, side)) for side in (real, fake, changed)]
    terms = []
    if gamma.lecam > 0:
        terms.append(gamma.lecam * lecam(scores[0], scores[1], game.memory))
    if gamma.consistency > 0:
        terms.append(gamma.consistency * consistency([*scores[0], *scores[1]], scores[2]))
    return _sum(terms)


# --- both players' turn from one forward -----------------------------------------------------------------------------


class _Shared(NamedTuple):
    """One forward, cut where the generator side hands its samples to the critics. Lists have an entry for what each
    critic is given as real, then for what each is given as fake.
    """

    play: Play
    cut: list[Tensor]  # the critics' inputs: leaves at which their backward ends
    scores: list[Tensor]
    changed: Samples  # scores of the same samples once more, mirrored and shifted; or ()
    c: list[Tensor]  # c_i = ∂L_D/∂s_i, of the scores and the changed ones behind them
    g: list[Tensor]  # g_i = λ ∂L_G/∂s_i
    moved: list[int]  # the entries that the generator side made
    penalty: Tensor | None  # on input gradients
    input_gradients: dict[int, Tensor]  # ∂s_i/∂x_i of the entries with R1 or R2
    path: Tensor | None  # the generator's own penalty
    report: dict[str, Tensor]


def _shared_forward(game: Game, objective: Objective, batch: Batch, draw: Draw, weights: Weights) -> _Shared:
    play = game.play(batch, draw)
    made, gamma = _entries(play), _zero_centred(play, weights.gamma)
    moved = [i for i, x in enumerate(made) if x.requires_grad]
    cut = [_leaf(x, i in moved or gamma[i] > 0) for i, x in enumerate(made)]
    inputs = _with_samples(play, cut)
    real, fake = game.judge(inputs)
    changed = _judge_changed(game, inputs, draw, weights.gamma)
    slopes, input_gradients = _slope_penalties(game, inputs, [*real, *fake], draw, weights.gamma)
    path, lengths = _path_penalty(game, play, draw, weights.gamma)

    def critic_loss(real: Samples, fake: Samples, changed: Samples) -> tuple[Tensor, Tensor | None]:
        loss = _adversarial(objective.critic_loss, play, real, fake)
        return loss, _score_penalties(game, weights.gamma, real, fake, changed)

    def generator_loss(real: Samples, fake: Samples) -> tuple[Tensor]:
        judged = real if _judges_real(objective, play) else ()
        return (weights.coefficient * _adversarial(objective.generator_loss, play, judged, fake),)

    (loss_of_critic, on_scores), c = _score_gradients(critic_loss, real, fake, changed)
    (loss,), g = _score_gradients(generator_loss, real, fake)
    losses = {"critic_loss": loss_of_critic, "generator_loss": loss, "penalty": _sum([slopes, on_scores])}
    report = {**_report(objective, play, real, fake, **losses), **lengths}
    return _Shared(play, cut, [*real, *fake], changed, c, g, moved, slopes, input_gradients, path, report)


def _generator_backward(shared: _Shared, cotangents: Sequence[Tensor]) -> Turn:
    """Continue from the cut into the generator side, together with its own loss."""
    made = _entries(shared.play)
    roots = [*(made[i] for i in shared.moved), shared.play.task_loss, shared.path]
    _backward(roots, [*cotangents, None, None])
    return Turn((CRITIC, GENERATOR), shared.report)


def _floored(c: list[Tensor], entries: list[int]) -> list[Tensor]:
    """``c`` with a power of two in place of every |c_i| below it in the given entries, so that g_i / c_i exists.

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
    return [torch.where(x.abs() < floor, torch.copysign(floor, x), x) if i in entries else x for i, x in enumerate(c)]


def _score_gradients(
    losses: Callable[..., tuple[Tensor | None, ...]], *sides: Samples
) -> tuple[tuple[Tensor | None, ...], list[Tensor]]:
    """The ``losses`` of scores and the derivative of their sum by every score: autograd on a few numbers per sample, no
    formula per loss.
    """
    leaves = [tuple(score.detach().requires_grad_() for score in side) for side in sides]
    values = losses(*leaves)
    return values, list(torch.autograd.grad(_sum(values), [*chain(*leaves)], materialize_grads=True))


def _path_penalty(game: Game, play: Play, draw: Draw, gamma: Gamma) -> tuple[Tensor | None, dict[str, Tensor]]:
    """The generator's weighted path length penalty on fakes of its own, and what to report of it."""
    if gamma.path == 0:
        return None, {}
    draw = draw.fork("path")
    images, w = game.synthesise(play.condition, draw)
    lengths = path_lengths(images, w, draw.normal("noise", tuple(images.shape[1:])).to(images.dtype))
    penalty = gamma.path * (lengths - game.memory["path_mean"]).square().mean()
    return penalty, {"path_penalty": penalty.detach(), "path_length": lengths.detach().mean()}


# --- small parts -----------------------------------------------------------------------------------------------------


def _adversarial(loss: Callable[..., Tensor], play: Play, real: Samples, fake: Samples) -> Tensor:
    """The mean over samples, summed over critics, of a player's loss on scores; a side that is not played is ()."""
    critics = list(zip_longest(real, fake))
    weights = play.weights or ((1, 1),) * len(critics)
    return _sum([loss(r, f, weight).mean() for (r, f), weight in zip(critics, weights, strict=True)])


def _sum(terms: Sequence[Tensor | None]) -> Tensor | None:
    """The sum of those that there are."""
    found = [term for term in terms if term is not None]
    return sum(found[1:], found[0]) if found else None


def _of_score(x: Tensor, score: Tensor) -> Tensor:
    """Samples ``[N, ...]`` as the inputs of scores ``[N / m]``: ``[N / m, ...]``."""
    return x.reshape(len(score), -1)


def _entries(play: Play) -> list[Tensor]:
    return [*play.real, *play.fake]


def _with_samples(play: Play, entries: list[Tensor]) -> Play:
    n = len(play.real)
    return replace(play, real=tuple(entries[:n]), fake=tuple(entries[n:]))


def _zero_centred(play: Play, gamma: Gamma) -> list[float]:
    """γ of the zero-centred penalty on each entry."""
    return [gamma.r1] * len(play.real) + [gamma.r2] * len(play.fake)


def _judges_real(objective: Objective, play: Play) -> bool:
    """Whether the generator's loss depends on the real scores."""
    return objective.pairs or any(x.requires_grad for x in play.real)


def _leaf(x: Tensor, requires_grad: bool) -> Tensor:
    return x.detach().requires_grad_(requires_grad)


def _per_sample(coefficient: Tensor, x: Tensor) -> Tensor:
    """A coefficient per score, for the one or several samples ``x`` of each."""
    coefficient = coefficient.repeat_interleave(len(x) // len(coefficient))
    return coefficient.reshape(-1, *[1] * (x.ndim - 1)).to(x.dtype)


def _trainable(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def _backward(roots: list[Tensor | None], seeds: list[Tensor | None], leaves: list[Tensor] | None = None) -> None:
    """Accumulate gradients; with ``leaves`` into these alone: input gradients that nobody needs are not computed."""
    pairs = [(root, seed) for root, seed in zip(roots, seeds, strict=True) if root is not None]
    torch.autograd.backward([root for root, _ in pairs], [seed for _, seed in pairs], inputs=leaves)


def _report(
    objective: Objective, play: Play, real: Samples, fake: Samples, **losses: Tensor | None
) -> dict[str, Tensor]:
    """What to log of a turn: losses, the game's own figures, and what the last critic made of either side."""
    values = {**losses, "task_loss": play.task_loss, **play.report}
    for name, scores, sign in (("real", real, 1), ("fake", fake, -1)):
        if scores:
            score = values[f"{name}_score"] = own_class(scores[-1])
            if objective.boundary is not None and play.fake:  # one of K attributes is not told by a boundary
                values[f"critic_accuracy_{name}"] = (sign * (score - objective.boundary) > 0).float().mean()
            if isinstance(objective, Auxiliary):
                values[f"class_probability_{name}"] = scores[-1][:, 1].sigmoid().mean()
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
