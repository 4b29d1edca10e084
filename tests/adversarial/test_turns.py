"""Turns: who plays when, and what exists while they do."""

import copy
from types import SimpleNamespace

import pytest
import torch

from adversarial.games import GenerationGame
from adversarial.objectives import OBJECTIVES
from adversarial.passes import Strengths
from adversarial.penalties import CRITIC, GENERATOR
from adversarial.rules import alternating, simultaneous, single_pass
from tests.adversarial.exactness import EXACT, PLAIN_AND_SLOPES, every_objective, every_plan, played
from tests.adversarial.textbook import separate_passes
from tests.adversarial.toy_games import (
    PLANS,
    SeededDraw,
    domain_game,
    gradients_of,
    image_batch,
    image_game,
    invariance_game,
    penalties,
    relative_error,
    vector_batch,
)

# --- turns: who plays when, and what exists while they do ----------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 4])
@every_plan
def test_turns(plan, k):
    """k rounds give k - 1 turns of the critic alone, then the generator's with one more of the critic's."""
    game = image_game()
    rounds = [(image_batch(path=f"data{i}"), SeededDraw(4, str(i))) for i in range(k)]
    players = [turn.players for turn in played(PLANS[plan], game, rounds)]
    last = [(CRITIC,), (GENERATOR,)] if plan.startswith("alternating") else [(CRITIC, GENERATOR)]
    assert players == [(CRITIC,)] * (k - 1) + last


@every_plan
def test_every_critic_update_has_its_own_round_and_the_last_serves_the_generator(plan):
    game = image_game()
    rounds = [(image_batch(path=f"data{i}"), SeededDraw(4, str(i))) for i in range(3)]
    objective = OBJECTIVES["non_saturating"]
    critic, generator = [], None
    for turn in PLANS[plan](game, objective, rounds):
        if CRITIC in turn.players:
            critic.append(gradients_of(game.critic))
        if GENERATOR in turn.players:
            generator = gradients_of(game.generator)
        game.critic.zero_grad()
        game.generator.zero_grad()
    want = [separate_passes(plan, game, objective, *round) for round in rounds]
    for got, reference in zip(critic, want, strict=True):
        assert relative_error(got, reference[CRITIC]) <= EXACT
    assert relative_error(generator, want[-1][GENERATOR]) <= EXACT


def spied(game: GenerationGame) -> SimpleNamespace:
    """Record, for every forward, whether gradients were enabled, and for the critic, whether its input had a graph."""
    seen = SimpleNamespace(generator=[], critic=[], frozen=[])
    game.generator.register_forward_hook(lambda *_: seen.generator.append(torch.is_grad_enabled()))

    def record(module, inputs, output):
        seen.critic.append(inputs[0].grad_fn is not None and output.requires_grad)
        seen.frozen.append(not any(p.requires_grad for p in module.parameters()))

    game.critic.register_forward_hook(record)
    return seen


@pytest.mark.parametrize("reuse", [False, True], ids=["fresh", "reused"])
def test_alternating_runs_the_generator_without_a_graph_for_the_critic(reuse):
    """Only the fakes that the generator's own turn needs are made with a graph: the last round's if they are reused."""
    game = image_game()
    seen = spied(game)
    rounds = [(image_batch(), SeededDraw(4, str(i))) for i in range(3)]
    played(alternating, game, rounds, reuse_fakes=reuse)
    assert seen.generator == ([False, False, True] if reuse else [False, False, False, True])
    assert [draw.forks for _, draw in rounds] == [[], [], [] if reuse else ["generator"]]
    # Judged together, real and fake are concatenated; no graph may hang on them until the generator's turn.
    assert seen.critic == [False, False, False, True]
    assert seen.frozen == [False, False, False, True]


@pytest.mark.parametrize("reuse", [False, True], ids=["fresh", "reused"])
def test_alternating_moves_one_player_at_a_time(reuse):
    game = image_game()
    turns = alternating(
        game, OBJECTIVES["hinge"], [(image_batch(), SeededDraw(4))], Strengths(penalties("r1", "r2")), reuse_fakes=reuse
    )
    assert next(turns).players == (CRITIC,)
    assert all(p.grad is None for p in game.generator.parameters())
    critic = gradients_of(game.critic)
    # Left in place on purpose: the generator's turn must add nothing to them.
    assert next(turns).players == (GENERATOR,)
    assert all(torch.equal(a, b) for a, b in zip(critic, gradients_of(game.critic), strict=True))
    assert all(p.grad is not None for p in game.generator.parameters())
    assert all(p.requires_grad for p in game.critic.parameters())
    assert list(turns) == []


@pytest.mark.parametrize("reuse", [False, True], ids=["fresh", "reused"])
@pytest.mark.parametrize("make", [domain_game, invariance_game])
def test_where_nothing_is_drawn_afresh_the_generator_steps_before_the_critic_has_seen_the_batch(make, reuse):
    """Its gradient is that of the critic as it was, and the critic then judges the generator as it is."""
    torch.manual_seed(0)
    game, objective = make(), OBJECTIVES["non_saturating"]
    rounds = [(vector_batch(4, 3, str(i)), SeededDraw(4, str(i))) for i in range(2)]
    plan = "simultaneous"  # of the reference: both passes at the same weights
    turns = alternating(game, objective, rounds, reuse_fakes=reuse)
    assert next(turns).players == (CRITIC,)  # of the first round
    move(game.critic)

    want = separate_passes(plan, game, objective, *rounds[1])
    before = copy.deepcopy(game)
    assert next(turns).players == (GENERATOR,)
    assert relative_error(gradients_of(game.generator), want[GENERATOR]) <= EXACT
    move(game.generator)

    want = separate_passes(plan, before if reuse else game, objective, *rounds[1])
    assert next(turns).players == (CRITIC,)
    assert relative_error(gradients_of(game.critic), want[CRITIC]) <= EXACT
    assert all(p.grad is None for p in game.generator.parameters())
    game.critic.zero_grad()
    assert list(turns) == []


def move(network: torch.nn.Module) -> None:
    """A step of plain gradient descent, long enough to change what the others see."""
    for parameter in network.parameters():
        parameter.data.sub_(0.5 * parameter.grad)
        parameter.grad = None


def test_alternating_leaves_a_cleared_critic_without_gradients():
    game = image_game()
    turns = alternating(game, OBJECTIVES["hinge"], [(image_batch(), SeededDraw(4))])
    next(turns)
    game.critic.zero_grad()
    next(turns)
    assert all(p.grad is None for p in game.critic.parameters())


def test_alternating_thaws_the_critic_after_an_exception():
    game = image_game()

    def fail(pairs):
        raise RuntimeError("out of memory")

    turns = alternating(game, OBJECTIVES["hinge"], [(image_batch(), SeededDraw(4))])
    next(turns)
    game.judge = fail
    with pytest.raises(RuntimeError, match="out of memory"):
        next(turns)
    assert all(p.requires_grad for p in game.critic.parameters())


@pytest.mark.parametrize("rule", [simultaneous, single_pass], ids=["simultaneous", "single_pass"])
def test_shared_forwards_make_a_graph_in_the_last_round_alone(rule):
    game = image_game()
    seen = spied(game)
    rounds = [(image_batch(), SeededDraw(4, str(i))) for i in range(3)]
    played(rule, game, rounds)
    assert seen.generator == [False, False, True]
    assert [draw.forks for _, draw in rounds] == [[], [], []]


@pytest.mark.parametrize("gamma", PLAIN_AND_SLOPES)
@every_plan
def test_reports_are_detached_and_complete(plan, gamma):
    """What is logged must not keep a graph alive; losses are the ones that were minimised."""
    torch.manual_seed(0)
    game, batch, draw = domain_game(), vector_batch(5, 3), SeededDraw(5)
    objective = OBJECTIVES["least_squares"]
    strengths = Strengths(penalties(*PLAIN_AND_SLOPES[gamma]), coefficient=0.5)
    report = {}
    for turn in PLANS[plan](game, objective, [(batch, draw)], strengths):
        report |= turn.report
    with torch.no_grad():
        play = game.play(batch, draw)
        mine = game.play(batch, draw.fork("generator") if plan == "alternating-fresh" else draw)
        for one in (play, mine):
            game.judge(one.pairs)
        real, fake = (side.score for side in play.pairs[0])
        generator_loss = 0.5 * objective.generator_loss(*(side.score for side in mine.pairs[0]))
    assert not any(value.requires_grad for value in report.values())
    assert torch.equal(report["real_score"], real)
    assert torch.equal(report["fake_score"], fake)
    torch.testing.assert_close(report["critic_loss"], objective.critic_loss(real, fake))
    torch.testing.assert_close(report["generator_loss"], generator_loss)
    assert ("penalty" in report) == (gamma != "none")
    assert report.keys() - {"penalty"} == {
        "critic_loss", "generator_loss", "task_loss", "real_score", "fake_score", "source_accuracy",
        "critic_accuracy_real", "critic_accuracy_fake",
    }  # fmt: skip
    assert torch.equal(report["critic_accuracy_real"], real > 0.5)  # labels are 1 and 0
    assert torch.equal(report["critic_accuracy_fake"], fake < 0.5)


@pytest.mark.parametrize("rule", [simultaneous, single_pass], ids=["simultaneous", "single_pass"])
@every_objective
def test_losses_are_reported_of_the_sides_that_a_player_sees(rule, objective):
    """A GAN's generator has no loss on data, but for objectives of pairs."""
    torch.manual_seed(0)
    game, batch, draw = image_game(), image_batch(), SeededDraw(4)
    (turn,) = rule(game, OBJECTIVES[objective], [(batch, draw)], Strengths(coefficient=0.5))
    with torch.no_grad():
        play = game.play(batch, draw)
        game.judge(play.pairs)
    (pair,) = play.pairs
    own = pair.real.score if OBJECTIVES[objective].pairs else None
    critic_loss = OBJECTIVES[objective].critic_loss(pair.real.score, pair.fake.score)
    torch.testing.assert_close(turn.report["critic_loss"], critic_loss)
    generator_loss = 0.5 * OBJECTIVES[objective].generator_loss(own, pair.fake.score)
    torch.testing.assert_close(turn.report["generator_loss"], generator_loss)
    assert not any(value.requires_grad for value in turn.report.values())
