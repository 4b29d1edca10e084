"""Looking ahead: where the shared step is played, what its gradients are, and what is left as it was."""

import copy

import pytest
import torch

from adversarial.accumulation import accumulated
from adversarial.lookahead import Lookahead
from adversarial.objectives import OBJECTIVES
from adversarial.passes import Strengths
from adversarial.penalties import CRITIC, GENERATOR, clip_weights
from adversarial.rules import RULES
from docs import dirac
from tests.adversarial.exactness import EXACT
from tests.adversarial.textbook import separate_passes
from tests.adversarial.toy_games import (
    SeededDraw,
    assert_same,
    domain_game,
    gradients_of,
    image_batch,
    image_game,
    penalties,
    relative_error,
    vector_batch,
)

SHARED = ["simultaneous", "single_pass"]
AHEAD = {"critic": {CRITIC: 1.0}, "further": {CRITIC: 2.5}, "both": {CRITIC: 1.0, GENERATOR: 0.5}}
LR = 0.05


def networks_of(game) -> dict[str, torch.nn.Module]:
    return {GENERATOR: game.generator, CRITIC: game.critic}


def weights_of(game) -> dict[str, list[torch.Tensor]]:
    return {name: [p.detach().clone() for p in network.parameters()] for name, network in networks_of(game).items()}


def stand(game, weights) -> None:
    for name, network in networks_of(game).items():
        for parameter, weight in zip(network.parameters(), weights[name], strict=True):
            parameter.data.copy_(weight)


def step(game, players) -> None:
    for name in players:
        for parameter in networks_of(game)[name].parameters():
            parameter.data.sub_(LR * parameter.grad)
            parameter.grad = None


def extrapolated(now, before, alphas, limit):
    """w + α (w - w_before) by another formula than the library's interpolation, player by player; the critic's within
    its limit.
    """
    found = {}
    for name in now:
        alpha, bound = alphas.get(name, 0), limit if name == CRITIC and limit else torch.inf
        pairs = zip(now[name], before[name], strict=True)
        found[name] = [((1 + alpha) * w - alpha * b).clamp(-bound, bound) for w, b in pairs]
    return found


GAMES = {
    "r1 and r2": (lambda: image_game(), image_batch, ["r1", "r2"], "relativistic"),
    "spectral norm, packs": (lambda: image_game("spectral", pack=2), image_batch, [], "hinge"),
    "domains": (domain_game, lambda path: vector_batch(4, 3, path), ["r1"], "non_saturating"),
}
LIMITS = {"r1 and r2": 0.2}  # of the critic's weights


# Micro-batches: where no network has statistics over the batch.
SCENES = [(scene, 1) for scene in GAMES] + [("domains", 2)]


@pytest.mark.parametrize("looking", AHEAD)
@pytest.mark.parametrize(("scene", "parts"), SCENES)
@pytest.mark.parametrize("rule", SHARED)
def test_gradients_are_those_of_two_backward_passes_where_the_players_look(rule, scene, looking, parts):
    """Three steps of two critic updates each: the shared turn's gradients are those at w̄, and the step is from w.

    Penalties are lazy, and not due in the second.
    """
    make, batch_of, names, objective = GAMES[scene]
    torch.manual_seed(1)
    game, due = make(), penalties(*names)
    ahead, loss, limit = AHEAD[looking], OBJECTIVES[objective], LIMITS.get(scene, 0)
    clip_weights(game.critic, limit)
    looking_ahead = {name: network for name, network in networks_of(game).items() if name in ahead}
    lookahead = Lookahead(looking_ahead, {CRITIC: limit})
    before = weights_of(game)
    for number in range(3):
        rounds = [(batch_of(path=f"{number}/{i}"), Draw4(f"{number}/{i}")) for i in range(2)]
        strengths = Strengths(due if number % 2 == 0 else {}, coefficient=0.5)
        turns = (
            RULES[rule](game, loss, rounds, strengths)
            if parts == 1
            else accumulated(RULES[rule], game, loss, rounds, strengths, parts)
        )
        alphas = {player: alpha / (1 + number) for player, alpha in ahead.items()}  # another one in every step
        turns = lookahead.around(turns, shared=1, alphas=alphas)

        turn, now = next(turns), weights_of(game)
        assert turn.players == (CRITIC,)
        critic_before, before[CRITIC] = before[CRITIC], now[CRITIC]  # the last critic step is the one that comes now
        step(game, turn.players)
        clip_weights(game.critic, limit)
        now = weights_of(game)
        reference = copy.deepcopy(game)
        stand(reference, extrapolated(now, before, alphas, limit))
        want = separate_passes(rule, reference, loss, *rounds[1], strengths)

        turn = next(turns)
        assert turn.players == (CRITIC, GENERATOR)
        assert_same({name: gradients_of(network) for name, network in networks_of(game).items()}, want, EXACT)
        for name in now:
            assert all(map(torch.equal, weights_of(game)[name], now[name])), f"{name} is not where it was"
        assert number == 0 or relative_error(critic_before, now[CRITIC]) > 1e-4  # it has moved, so it looks elsewhere
        before = now
        step(game, turn.players)
        clip_weights(game.critic, limit)
        assert list(turns) == []


class Draw4(SeededDraw):
    """Draws of four samples that can be cut into micro-batches."""

    def __init__(self, path: str, rows: slice = slice(None)):
        super().__init__(4, path)
        self.rows = rows

    def normal(self, stream, shape):
        return super().normal(stream, shape)[self.rows]

    def part(self, rows: slice) -> "Draw4":
        return Draw4(self.path, rows)


def test_nobody_looks_ahead_without_being_told_to():
    game = image_game()
    lookahead = Lookahead({})
    assert lookahead.before == {}
    rounds = [(image_batch(), SeededDraw(4))]
    turns = lookahead.around(RULES["single_pass"](game, OBJECTIVES["hinge"], rounds), 0, {CRITIC: 0.0, GENERATOR: 0.0})
    want = separate_passes("single_pass", copy.deepcopy(game), OBJECTIVES["hinge"], *rounds[0])
    next(turns)
    assert_same({name: gradients_of(network) for name, network in networks_of(game).items()}, want, EXACT)


def test_a_turn_that_fails_leaves_the_players_where_they_were():
    game = image_game()
    lookahead = Lookahead({CRITIC: game.critic})
    for parameter in game.critic.parameters():
        parameter.data.add_(0.1)  # a step
    now = weights_of(game)
    turns = lookahead.around(RULES["single_pass"](game, None, [(image_batch(), SeededDraw(4))]), 0, {CRITIC: 1.0})
    with pytest.raises(AttributeError):  # there is no objective
        next(turns)
    assert all(map(torch.equal, weights_of(game)[CRITIC], now[CRITIC]))


def test_looking_ahead_keeps_one_copy_of_the_weights():
    """Whatever is done, the same two sets of storages hold w and w_before: nothing is allocated in a step."""
    game = image_game()
    lookahead = Lookahead({CRITIC: game.critic})

    def storages():
        tensors = [*game.critic.parameters(), *lookahead.before[CRITIC]]
        return {tensor.untyped_storage().data_ptr() for tensor in tensors}

    known = storages()
    assert len(known) == 2 * len(list(game.critic.parameters()))
    for number in range(2):
        rounds = [(image_batch(path=str(number)), SeededDraw(4, str(number)))]
        for turn in lookahead.around(RULES["single_pass"](game, OBJECTIVES["hinge"], rounds), 0, {CRITIC: 1.0}):
            assert storages() == known
            step(game, turn.players)
    assert storages() == known


# Non-saturating and Wasserstein, without a penalty. Figures of a float32 run of 500 steps, printed to four digits.
DIRAC = {
    ("alternating", 0, 0): (0.2835, 1.35),
    ("single_pass", 0, 0): (0.6343, 16498),
    ("simultaneous", 1, 0): (0.2839, 2.07),
    ("single_pass", 1, 0): (0.2839, 2.07),
    ("single_pass", 2, 0): (0.0524, 0.0001),
    ("single_pass", 1, 1): (0.0522, 0.0001),
}


@pytest.mark.parametrize("played", DIRAC)
def test_the_dirac_gan_tells_where_looking_ahead_leads(played):
    rule, *ahead = played
    torch.set_default_dtype(torch.float32)
    for objective, want in zip(("non_saturating", "wasserstein"), DIRAC[played], strict=True):
        found = dirac.distance(dirac.course(rule, ahead=tuple(ahead), objective=objective))
        assert found == pytest.approx(want, rel=5e-3, abs=5e-5)
