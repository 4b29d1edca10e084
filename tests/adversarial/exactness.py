"""What the tests of exact gradients share: tolerances, the combinations they run over, and the comparison."""

import pytest

from adversarial.objectives import OBJECTIVES, Auxiliary
from adversarial.passes import Strengths
from adversarial.penalties import GENERATOR, PENALTIES
from tests.adversarial.textbook import separate_passes
from tests.adversarial.toy_games import PLANS, SeededDraw, assert_same, play_turns

EXACT = 1e-12  # relative, float64
SINGLE = 1e-5  # relative, float32

# (norm, whether real and fake are judged in one call of the critic). Judged apart, a spectral norm moves in between.
CRITICS = {
    "plain": ("none", True),
    "plain-apart": ("none", False),
    "group": ("group", True),
    "spectral": ("spectral", True),
    "spectral-apart": ("spectral", False),
    "batch": ("batch", False),
}

# Penalties by name, several at once. EVERY_PENALTY has each of the registry that acts on the critic.
SLOPES = {"r1": ["r1"], "r2": ["r2"], "r1+r2": ["r1", "r2"], "gp": ["gp"]}
PLAIN_AND_SLOPES = {"none": [], **SLOPES}
ON_CRITIC = [name for name, penalty in PENALTIES.items() if penalty.acts_on != GENERATOR]
EVERY_PENALTY = {**PLAIN_AND_SLOPES, **{name: [name] for name in ON_CRITIC}, "all": ON_CRITIC}

every_plan = pytest.mark.parametrize("plan", PLANS)
every_objective = pytest.mark.parametrize("objective", OBJECTIVES)


def check(
    plan: str, game, name: str, batch, draw: SeededDraw, strengths: Strengths = Strengths(), tolerance=EXACT, class_=0
):
    objective = Auxiliary(OBJECTIVES[name], class_) if class_ else OBJECTIVES[name]
    want = separate_passes(plan, game, objective, batch, draw, strengths)
    got = play_turns(PLANS[plan](game, objective, [(batch, draw)], strengths), game)
    assert_same(got, want, tolerance)


def played(rule, game, rounds, objective=OBJECTIVES["non_saturating"], **options):
    """Run a rule, clear the gradients after each turn as a training loop does, and list the turns."""
    turns = []
    for turn in rule(game, objective, rounds, **options):
        turns.append(turn)
        game.critic.zero_grad()
        game.generator.zero_grad()
    return turns
