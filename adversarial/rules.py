"""The three update rules: how a game becomes parameter gradients. ``docs/idea.py`` is the last one in 30 lines.

A rule is a Python generator. It runs forwards and backwards, and yields a ``Turn`` when the gradients of one or both
players are in ``parameter.grad``; the caller steps those players' optimisers, clears their gradients and resumes it:

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
    simultaneous, zero-sum        1 + 2           2 + 4                9
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from .draws import Draw
from .games import Game, Play, Side
from .objectives import Auxiliary, Objective, total, weighed
from .passes import (
    Rounds,
    Strengths,
    Turn,
    cut,
    floor_c,
    frozen,
    generator_losses,
    generator_pairs,
    judge,
    losses_of,
    mean,
    mean_seeds,
    penalty_terms,
    per_sample,
    report,
    score_derivatives,
    trainable,
)
from .penalties import CRITIC, GENERATOR, SCORES, SLOPES

Rule = Callable[..., Iterator[Turn]]


def alternating(
    game: Game,
    objective: Objective | Auxiliary,
    rounds: Rounds,
    strengths: Strengths = Strengths(),
    reuse_fakes: bool = False,
) -> Iterator[Turn]:
    """The classic: a critic step on detached fakes, then a generator step through a frozen critic.

    ``reuse_fakes`` gives the second of the two steps the fakes of the first instead of fresh ones. In a game that draws
    nothing afresh (``Game.redraws``) the generator steps first, before the critic has seen the batch; with reused fakes
    that is simultaneous play, at a higher price.
    """
    yield from critic_turns(game, objective, rounds[:-1], strengths)

    batch, draw = rounds[-1]
    if game.redraws:
        with torch.set_grad_enabled(reuse_fakes):  # only fakes that are reused need the generator's graph
            play = game.play(batch, draw)
        yield critic_turn(game, objective, play, draw, strengths)
        if reuse_fakes:
            for side in play.sides:
                side.cut = None  # this time the backward pass goes on into the generator
        else:
            play = game.play(batch, draw.fork("generator"))
        yield generator_turn(game, objective, play, draw, strengths)
    else:
        # Both turns look at the same samples. A critic that has just stepped on them knows them better than others, and
        # would mislead a generator that answered it on them.
        play = game.play(batch, draw)
        yield generator_turn(game, objective, play, draw, strengths)
        if not reuse_fakes:
            with torch.no_grad():
                play = game.play(batch, draw)
        yield critic_turn(game, objective, play, draw, strengths)


def simultaneous(
    game: Game, objective: Objective | Auxiliary, rounds: Rounds, strengths: Strengths = Strengths()
) -> Iterator[Turn]:
    """One shared forward, two backward passes through the critic: one for the samples, one for its parameters.

    Serves every critic, batch-coupled ones too. Both players move from the same point. In a zero-sum game one backward
    pass is enough.
    """
    yield from critic_turns(game, objective, rounds[:-1], strengths)

    batch, draw = rounds[-1]
    play = game.play(batch, draw)
    cut(play, draw, strengths.penalties, reached=play.made)
    judge(game, play)
    if is_zero_sum(objective, strengths):
        arrived = zero_sum_backward(objective, play, strengths)
    else:
        slope_terms = penalty_terms(play, strengths.penalties, SLOPES)
        judged = score_derivatives(objective, play, strengths)
        scores, g = [side.score for side in play.sides], [side.g for side in play.sides]
        arrived = torch.autograd.grad(scores, [side.cut for side in play.made], g, retain_graph=True)
        roots = [*(side.score for side in judged), *slope_terms]
        seeds = [*(side.c for side in judged), *(None for _ in slope_terms)]  # None: a scalar's 1
        torch.autograd.backward(roots, seeds, inputs=trainable(game.critic))

    generator_backward(game, play, draw, strengths, arrived)
    yield Turn((CRITIC, GENERATOR), report(objective, play))


def single_pass(
    game: Game, objective: Objective | Auxiliary, rounds: Rounds, strengths: Strengths = Strengths()
) -> Iterator[Turn]:
    """One shared forward and one backward for both players: gradient reversal with a ratio per sample.

    Where the critic judges each sample on its own, its backward carries c_i · ∂s_i/∂x_i to fake i (c_i = ∂L_D/∂s_i).
    Times g_i / c_i (g_i = ∂L_G/∂s_i) that is the gradient of the generator's own loss, whatever the loss: plain
    gradient reversal is the zero-sum case, g_i / c_i = -λ. Where a penalty has computed ∂s_i/∂x_i already, g_i times
    that is the generator's gradient, and no ratio is needed.

    The reversal is placed by cutting the graph at the samples: backward to the cut, multiply, continue into the
    generator. Wrong for a critic that couples samples: ``coupling.couples_samples`` finds one. Raises ValueError where
    a sample has several scores from one critic: their gradients cannot be told apart any more at the sample.
    """
    yield from critic_turns(game, objective, rounds[:-1], strengths)

    batch, draw = rounds[-1]
    play = game.play(batch, draw)  # the generator's forward
    cut(play, draw, strengths.penalties, reached=play.made)
    judge(game, play)  # the critic's forward
    if any(side.score.ndim > 1 for side in play.sides):
        raise ValueError("A single pass needs one score per sample; use the simultaneous or the alternating rule.")

    # The one backward pass through the critic: its own gradients, and at the cut what the generator's are made of.
    if is_zero_sum(objective, strengths):
        reversed_sides, arrived = [], zero_sum_backward(objective, play, strengths)
    else:
        reversed_sides, arrived = ratio_backward(game, objective, play, strengths)
    generator_backward(game, play, draw, strengths, arrived)  # on into the generator
    yield Turn((CRITIC, GENERATOR), report(objective, play), reversed_sides)


RULES: dict[str, Rule] = {
    "alternating": alternating,
    "simultaneous": simultaneous,
    "single_pass": single_pass,
}


# --- what the rules share --------------------------------------------------------------------------------------------


def critic_turns(game: Game, objective: Objective | Auxiliary, rounds: Rounds, strengths: Strengths) -> Iterator[Turn]:
    """A turn of the critic alone for each of the rounds."""
    for batch, draw in rounds:
        with torch.no_grad():
            play = game.play(batch, draw)
        yield critic_turn(game, objective, play, draw, strengths)


def critic_turn(game: Game, objective: Objective | Auxiliary, play: Play, draw: Draw, strengths: Strengths) -> Turn:
    """The critic's gradients for what was played."""
    cut(play, draw, strengths.penalties)
    judge(game, play)
    critic_losses = losses_of(objective.critic_loss, play.pairs)
    play.report["critic_loss"] = total(critic_losses)
    terms = penalty_terms(play, strengths.penalties, SLOPES, SCORES)
    # Into the weights alone: input gradients that nobody needs are not computed.
    total([mean(critic_losses), *terms]).backward(inputs=trainable(game.critic))
    return Turn((CRITIC,), report(objective, play))


def generator_turn(game: Game, objective: Objective | Auxiliary, play: Play, draw: Draw, strengths: Strengths) -> Turn:
    """The generator's gradients for what was played, through a frozen critic."""
    own_losses = generator_losses(game, play, draw, strengths.penalties)
    with frozen(game.critic):
        pairs = generator_pairs(objective, play.pairs)
        game.judge(pairs)
        unweighed = losses_of(objective.generator_loss, pairs)
        adversarial = [weighed(loss, strengths.coefficient) for loss in unweighed]
        total([mean(adversarial), *own_losses]).backward()
    lengths = {name: value for name, value in play.report.items() if name.startswith("path")}
    return Turn((GENERATOR,), {"generator_loss": total(adversarial).detach(), **lengths})


def ratio_backward(
    game: Game, objective: Objective | Auxiliary, play: Play, strengths: Strengths
) -> tuple[list[Side], list[Tensor]]:
    """The one backward pass of a single pass, up to the cut. It leaves the critic's gradients.

    Returns the sides whose gradient was multiplied by the ratio g_i / c_i; and the gradients of the generator's own
    loss, for each side that it made.
    """
    slope_terms = penalty_terms(play, strengths.penalties, SLOPES)
    judged = score_derivatives(objective, play, strengths)  # c_i and g_i
    reversed_sides = [side for side in play.made if side.slope is None]
    floor_c(judged, reversed_sides)  # so that g_i / c_i exists
    roots = [*(side.score for side in judged), *slope_terms]
    seeds = [*(side.c for side in judged), *(None for _ in slope_terms)]  # None: a scalar's 1
    # Sides whose slope was taken need nothing more at their cut.
    leaves = [*trainable(game.critic), *(side.cut for side in reversed_sides)] if slope_terms else None
    torch.autograd.backward(roots, seeds, inputs=leaves)

    arrived = []
    for side in play.made:
        if side.slope is None:
            side.ratio = side.g / side.c
            arrived.append(per_sample(side.ratio, side.cut) * side.cut.grad)
        else:
            arrived.append(per_sample(side.g, side.cut) * side.slope.detach())
    return reversed_sides, arrived


def is_zero_sum(objective: Objective | Auxiliary, strengths: Strengths) -> bool:
    """Whether the generator minimises -λ times all that the critic minimises, penalties included."""
    return objective.zero_sum and all(penalty.acts_on == GENERATOR for penalty in strengths.penalties)


def zero_sum_backward(objective: Objective | Auxiliary, play: Play, strengths: Strengths) -> list[Tensor]:
    """The one backward pass of a zero-sum game, up to the cut. It leaves the critic's gradients.

    Every ratio is -λ, so no c_i need be known: gradient reversal as it was invented (Ganin et al. 2016, eq. 9). A
    critic may couple samples, but must judge reals and fakes apart unless the generator side makes both. Returns the
    gradients of the generator's own loss, for each side that it made.
    """
    of_critic = losses_of(objective.critic_loss, play.pairs)
    torch.autograd.backward(of_critic, mean_seeds(of_critic))
    pairs = generator_pairs(objective, play.pairs)
    of_generator = of_critic if pairs is play.pairs else losses_of(objective.critic_loss, pairs)
    play.report["critic_loss"] = total(of_critic)
    play.report["generator_loss"] = -strengths.coefficient * total(of_generator)
    return [-strengths.coefficient * side.cut.grad for side in play.made]


def generator_backward(game: Game, play: Play, draw: Draw, strengths: Strengths, arrived: Sequence[Tensor]) -> None:
    """From the cut on into the generator side: the gradients that ``arrived`` at the samples it made, together with its
    own losses.
    """
    own_losses = generator_losses(game, play, draw, strengths.penalties)
    roots = [*(side.samples for side in play.made), *own_losses]
    torch.autograd.backward(roots, [*arrived, *(None for _ in own_losses)])
