"""The same gradients in float32, at extreme scores too, and over sizes."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from adversarial.games import GenerationGame, Pair, Side
from adversarial.objectives import OBJECTIVES
from adversarial.passes import Strengths
from adversarial.penalties import CRITIC, GENERATOR
from adversarial.rules import single_pass
from models import mlp
from tests.adversarial.exactness import EXACT, SINGLE, SLOPES, check, every_objective, every_plan
from tests.adversarial.textbook import separate_passes
from tests.adversarial.toy_games import (
    LATENT,
    PLANS,
    SeededDraw,
    flat,
    image_batch,
    image_game,
    penalties,
    play_turns,
    relative_error,
    spread,
    vector_batch,
)

# --- float32 -----------------------------------------------------------------------------------------------------


@every_plan
@every_objective
def test_same_gradients_in_float32(objective, plan):
    """1e-5: rounding 2^-24 in each of a few hundred terms, that partly cancel; measured: 4e-7 at most."""
    game = image_game("group", dtype=torch.float32)
    check(plan, game, objective, image_batch(dtype=torch.float32), SeededDraw(4, dtype=torch.float32), tolerance=SINGLE)


class MarkedPoints(nn.Module):
    """A generator whose points carry their score's offset as last coordinate."""

    def __init__(self, offset: Tensor):
        super().__init__()
        self.points = nn.Sequential(nn.Linear(LATENT, 6), nn.Tanh(), nn.Linear(6, 3))
        self.register_buffer("offset", offset)

    def forward(self, latent: Tensor, label: None = None) -> Tensor:
        return torch.cat([self.points(latent), self.offset[:, None]], dim=1)


class MarkedCritic(nn.Module):
    """Adds a point's last coordinate to its score: real and fake scores go wherever a test wants them."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 1), nn.Flatten(0))

    def forward(self, x: Tensor, label: None = None) -> Tensor:
        return self.layers(x[:, :-1]) + x[:, -1]


def marked_game(real: float | Tensor, fake: float | Tensor, n: int = 4):
    """A float32 game whose scores lie within about 1 of ``real`` and ``fake``; with its batch and draw."""
    torch.manual_seed(1)
    offset = torch.as_tensor(fake).expand(n).clone()
    game = GenerationGame(MarkedPoints(offset), MarkedCritic(), LATENT, conditional=False, together=True)
    spread(game.critic)
    batch = vector_batch(n, 4, dtype=torch.float32)
    batch.x[:, -1] = torch.as_tensor(real)
    return game, batch, SeededDraw(n, dtype=torch.float32)


def in_float64(game: GenerationGame, batch):
    twin = copy.deepcopy(game)
    twin.generator.double(), twin.critic.double()
    return twin, batch._replace(x=batch.x.double())


class Rounded(SeededDraw):
    """The numbers that a float32 draw gives, in float64."""

    def normal(self, stream: str, shape: tuple[int, ...]) -> Tensor:
        return super().normal(stream, shape).float().double()

    def fork(self, name: str) -> "Rounded":
        return Rounded(self.n, f"{self.path}/{name}")


def floor_allowance(game, objective, batch, draw, bits: int) -> float:
    """How far the floor documented in ``passes.floor_c`` may move the critic's gradient, by its norm.

    Every fake whose |c_i| lies below the floor enters with the floor in its place, which moves the gradient by at
    most floor · |∂s_i/∂θ|. The floor is at most 2^-bits (40 in float32, 69 in float64) times the batch's largest |c|,
    where that is taken as 2^-bits if it is smaller. ``game`` and its companions are in float64.
    """
    play = game.play(batch, draw)
    game.judge(play.pairs)
    (pair,) = play.pairs
    scores = [side.score.detach().requires_grad_() for side in pair]
    c = torch.autograd.grad(objective.critic_loss(*scores).mean(), scores, materialize_grads=True)
    largest = max(x.abs().max().item() for x in c)
    floor = 2.0**-bits * max(largest, 2.0**-bits)
    allowance = 0.0
    for i, c_i in enumerate(c[1]):
        if c_i.abs() < floor:
            condition = None if pair.fake.condition is None else pair.fake.condition[i : i + 1]
            alone = Side(pair.fake.samples[i : i + 1].detach(), condition)
            game.judge([Pair(None, alone)])
            slopes = torch.autograd.grad(alone.score, list(game.critic.parameters()), materialize_grads=True)
            allowance += floor * flat(slopes).norm().item()
    return allowance


# What the critic has settled: (real, fake) scores of ±80 in all four combinations, of both kinds in one batch, and the
# hinge's inactive cases.
MIXED = torch.tensor([-160.0, -80.0, 0.0, 160.0])
EXTREMES = (
    {
        f"{name}-real{real:+.0f}-fake{fake:+.0f}": (name, real, fake)
        for name in OBJECTIVES
        for real in (80.0, -80.0)
        for fake in (80.0, -80.0)
    }
    | {f"{name}-mixed": (name, MIXED.flip(0), MIXED) for name in OBJECTIVES}
    | {
        "hinge-inactive-fakes": ("hinge", 0.0, -3.0),
        "hinge-inactive-reals": ("hinge", 3.0, 0.0),
        "hinge-all-inactive": ("hinge", 3.0, -3.0),
    }
)


@pytest.mark.parametrize("case", EXTREMES)
@every_plan
def test_same_gradients_in_float32_at_extreme_scores(plan, case):
    """Held to a float64 reference of the same numbers.

    The scores themselves are rounded: by 2^-18 (half a unit in the last place at 80), and c and g, that may be
    e^-score, by that much relatively: 3.8e-6 < 1e-5. The relativistic loss sees the difference of two: up to 7.6e-6.
    (Scores of ±160 are rounded by 2^-17, but e^-160 is no float32, and they stand beside scores of 0.)
    Beyond 1e-5, an error is allowed only where float32 has no numbers: 2^-149 per term of a sum, its smallest number,
    to which products are rounded (the relativistic e^-160 is 0); and for the critic in a single pass, the documented
    floor under c_i (see ``floor_allowance``).
    """
    name, real, fake = EXTREMES[case]
    objective = OBJECTIVES[name]
    game, batch, draw = marked_game(real, fake)
    exact_game, exact_batch = in_float64(game, batch)
    want = separate_passes(plan, exact_game, objective, exact_batch, Rounded(4))
    got = play_turns(PLANS[plan](game, objective, [(batch, draw)]), game)

    # A parameter's gradient is a sum over 8 samples (and each term one over at most 6 units).
    absolute = {player: 8 * 6 * 2.0**-149 * len(flat(want[player])) ** 0.5 for player in want}
    if plan == "single_pass":
        absolute[CRITIC] += floor_allowance(exact_game, objective, exact_batch, Rounded(4), bits=40)
    for player in (CRITIC, GENERATOR):
        error = (flat(got[player]) - flat(want[player])).norm().item()
        allowed = SINGLE * flat(want[player]).norm().item() + absolute[player]
        assert error <= allowed, f"{player}: error {error:.2e}, allowed {allowed:.2e}"


@pytest.mark.parametrize("name", OBJECTIVES)
def test_generator_learns_from_fakes_that_the_critic_has_settled(name):
    """The floor must not be paid by the generator: beside fakes at -80 its gradient is exact, not merely small."""
    game, batch, draw = marked_game(80.0, -80.0)
    want = separate_passes("single_pass", game, OBJECTIVES[name], batch, draw)[GENERATOR]
    got = play_turns(single_pass(game, OBJECTIVES[name], [(batch, draw)]), game)[GENERATOR]
    if name == "minimax":
        # Its generator does saturate: g = e^-80 (Goodfellow et al. 2014, section 3), though not to zero.
        assert 0 < flat(want).norm() < 1e-30
    else:
        assert flat(want).norm() > 1e-2
    assert relative_error(got, want) <= SINGLE


@pytest.mark.parametrize("gamma", SLOPES)
def test_same_gradients_beside_penalties_where_the_critic_has_settled(gamma):
    """The critic's own loss has no gradient here, c = 0: the penalties give it one, and the generator's g is -1."""
    game, batch, draw = marked_game(80.0, -80.0)
    check("single_pass", game, "relativistic", batch, draw, Strengths(penalties(*SLOPES[gamma])), tolerance=SINGLE)


# --- the property, over sizes ------------------------------------------------------------------------------------


@settings(derandomize=True, deadline=None, max_examples=25)
@given(
    objective=st.sampled_from(sorted(OBJECTIVES)),
    n=st.integers(1, 6),
    latent=st.integers(1, 4),
    shape=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    classes=st.integers(0, 3),
    coefficient=st.floats(0.01, 10),
    scale=st.floats(0.01, 100),
    together=st.booleans(),
)
def test_one_forward_equals_two(objective, n, latent, shape, classes, coefficient, scale, together):
    """One shared forward gives the gradients of two separate passes at any size and any scale of the scores."""
    torch.manual_seed(n + 10 * latent)
    config = mlp.Config(latent_dim=latent, width=5, depth=1)
    game = GenerationGame(
        mlp.Generator(config, tuple(shape), classes).double(),
        mlp.Critic(config, tuple(shape), classes).double(),
        latent,
        classes > 0,
        together,
    )
    with torch.no_grad():
        game.critic.layers[-1].weight *= scale
    batch = vector_batch(n, 1)
    batch = batch._replace(
        x=SeededDraw(n, "data").normal("x", tuple(shape)), label=torch.arange(n) % classes if classes else None
    )
    draw, strengths = SeededDraw(n), Strengths(coefficient=coefficient)

    rule = OBJECTIVES[objective]
    want = separate_passes("simultaneous", game, rule, batch, draw, strengths)
    for plan in ("simultaneous", "single_pass"):
        got = play_turns(PLANS[plan](game, rule, [(batch, draw)], strengths), game)
        absolute = {CRITIC: 0.0, GENERATOR: 0.0}
        if plan == "single_pass":
            absolute[CRITIC] = floor_allowance(game, rule, batch, draw, bits=69)
        for player in want:
            error = (flat(got[player]) - flat(want[player])).norm().item()
            assert error <= EXACT * flat(want[player]).norm().item() + absolute[player], (plan, player)
