"""The work of each rule: forward calls and FLOPs, counted, against the unit costs of ``adversarial.rules``."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from adversarial.games import Batch, GenerationGame
from adversarial.objectives import OBJECTIVES
from adversarial.passes import Strengths
from adversarial.penalties import PENALTIES
from models import dcgan
from tests.adversarial.toy_games import PLANS, SeededDraw, image_batch, image_game, play_turns

LATENT, N = 100, 4
UNITS = {"alternating-fresh": 12, "alternating-reused": 11, "simultaneous": 10, "single_pass": 9}
CALLS = {"alternating-fresh": (2, 2), "alternating-reused": (1, 2), "simultaneous": (1, 1), "single_pass": (1, 1)}


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("together", [True, False], ids=["together", "apart"])
def test_forward_calls(plan, together):
    """A critic that is given real and fake apart is called once more wherever it judges both."""
    game, calls = image_game(together=together), {"generator": 0, "critic": 0}
    for name in calls:
        getattr(game, name).register_forward_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))
    play_turns(PLANS[plan](game, OBJECTIVES["hinge"], [(image_batch(), SeededDraw(4))]), game)
    generator, critic = CALLS[plan]
    assert calls == {"generator": generator, "critic": critic + (not together)}


def dcgan_pair(together: bool = True) -> GenerationGame:
    """A DCGAN pair of 32 pixels with |G| ≈ |D|, without any norm."""
    config = dcgan.Config(latent_dim=LATENT, generator_width=16, critic_width=16, generator_norm="none")
    shape = (3, 32, 32)
    generator, critic = dcgan.Generator(config, shape, 0), dcgan.Critic(config, shape, 0)
    return GenerationGame(generator, critic, LATENT, conditional=False, together=together)


class Flops(FlopCounterMode):
    """Counts without attributing to modules: the tracker cannot follow a gradient taken at a module's very input."""

    def __init__(self):
        super().__init__(display=False)
        self.mod_tracker.__enter__ = lambda: None
        self.mod_tracker.__exit__ = lambda *_: None


def flops(
    plan: str, objective: str = "non_saturating", names: tuple[str, ...] = (), together: bool | None = None
) -> int:
    game = dcgan_pair(plan != "simultaneous" if together is None else together)  # as train.py plays it
    rounds = [(Batch(torch.randn(N, 3, 32, 32)), SeededDraw(N, dtype=torch.float32))]
    with Flops() as counter:
        play_turns(
            PLANS[plan](game, OBJECTIVES[objective], rounds, Strengths({PENALTIES[name](): 1.0 for name in names})),
            game,
        )
    return counter.get_total_flops()


def forward_flops(network, *inputs) -> int:
    with Flops() as counter, torch.no_grad():
        network(*inputs)
    return counter.get_total_flops()


def test_pair_is_balanced():
    """The unit costs assume |G| = |D|; here they are equal within a tenth."""
    game = dcgan_pair()
    generator = forward_flops(game.generator, torch.randn(N, LATENT))
    critic = forward_flops(game.critic, torch.randn(N, 3, 32, 32))
    assert generator / critic == pytest.approx(1, abs=0.1)


def expected(plan: str, G: int, D: int, first_g: int, first_d: int) -> int:
    """Work of a step where a forward costs G or D, a layer's input and weight gradients as much each, and the first
    layers cost ``first_g`` and ``first_d``.

    The generator's first layer needs no gradient of its latents, the critic's none of its samples, except where the
    backward goes on into the generator. A single pass judges real and fake in one call, so there both halves of the
    batch have their input gradient taken; the simultaneous rule is given them apart and spares the real half's.
    """
    generator, critic, frozen = G + 2 * G - first_g, 2 * D + 4 * D - 2 * first_d, D + D
    return {
        "alternating-fresh": G + generator + critic + frozen,
        "alternating-reused": generator + critic + frozen,
        "simultaneous": generator + critic + D,
        "single_pass": generator + critic + 2 * first_d,
    }[plan]


@pytest.mark.parametrize("plan", PLANS)
def test_flops_are_the_unit_costs(plan):
    assert expected(plan, G=1, D=1, first_g=0, first_d=0) == UNITS[plan]
    game, z, x = dcgan_pair(), torch.randn(N, LATENT), torch.randn(N, 3, 32, 32)
    firsts = forward_flops(game.generator.layers[0], z), forward_flops(game.critic.features[0], x)
    assert flops(plan) == expected(plan, forward_flops(game.generator, z), forward_flops(game.critic, x), *firsts)


def test_single_pass_saves_a_quarter():
    assert flops("single_pass") / flops("alternating-fresh") <= 0.77


def test_shared_forward_without_coefficients_costs_a_sixth_less():
    """10 : 12 in round units, for critics that a single pass cannot serve."""
    assert flops("simultaneous") / flops("alternating-fresh") <= 10 / 12


def test_a_zero_sum_game_needs_no_second_pass_through_the_critic():
    """9 units under either rule; the first layer carries gradients on to the fakes, as in a single pass."""
    critic, x = dcgan_pair().critic, torch.randn(N, 3, 32, 32)
    saved = forward_flops(critic, x) - forward_flops(critic.features[0], x)
    for objective in (name for name, objective in OBJECTIVES.items() if objective.zero_sum):
        assert flops("simultaneous", objective) == flops("simultaneous") - saved
        assert flops("single_pass", objective) == flops("single_pass")


def test_a_pass_with_both_penalties_saves_a_quarter():
    cost = {plan: flops(plan, "relativistic", ("r1", "r2")) for plan in PLANS}
    assert cost["single_pass"] / cost["alternating-fresh"] <= 0.77


# What a penalty costs beside the plain step, in forwards of a batch, real and fake judged apart. The slope of one side
# costs 1, and a backward pass through it 2. Points of their own cost a forward and its backward of 2 on top, and the
# slope's backward goes once more through the forward. A relativistic generator's own turn judges the reals, too.
PENALISED = {
    # name: (objective, penalties, more by the penalty, more where the generator has a turn of its own)
    "r1": ("non_saturating", ("r1",), 3, 0),
    "r1+r2": ("relativistic", ("r1", "r2"), 6, 1),
    "gp": ("wasserstein", ("gp",), 6, 0),
    "dragan": ("non_saturating", ("dragan",), 6, 0),
    "consistency": ("hinge", ("consistency",), 6, 0),
}
# Single pass to alternating with (fresh, reused) fakes, as counted; the unit costs say 12/15, 15/19, 15/18 and so on.
RATIOS = {
    "r1": (0.80, 0.87),
    "r1+r2": (0.78, 0.83),
    "gp": (0.84, 0.89),
    "dragan": (0.84, 0.89),
    "consistency": (0.83, 0.89),
}


@pytest.mark.parametrize("penalty", PENALISED)
def test_what_penalties_cost(penalty):
    """Within 4 % of the unit costs: |G| is 8 % more than |D|, and first layers need no gradient of their inputs."""
    objective, names, more, own_turn = PENALISED[penalty]
    critic = forward_flops(dcgan_pair().critic, torch.randn(N, 3, 32, 32))
    cost = {plan: flops(plan, objective, names, together=False) / critic for plan in PLANS}
    for plan, measured in cost.items():
        units = UNITS[plan] + more + (own_turn if plan.startswith("alternating") else 0)
        assert measured == pytest.approx(units, rel=0.04), plan
    ratios = [cost["single_pass"] / cost[f"alternating-{fakes}"] for fakes in ("fresh", "reused")]
    assert ratios == pytest.approx(RATIOS[penalty], abs=0.005)
