"""The work of each rule: forward calls and FLOPs, counted, against the unit costs of ``adversarial.updates``."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from adversarial.games import Batch, GenerationGame
from adversarial.objectives import OBJECTIVES
from adversarial.penalties import Gamma
from adversarial.updates import Weights
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


def flops(plan: str, objective: str = "non_saturating", gamma: Gamma = Gamma()) -> int:
    game = dcgan_pair(together=plan != "simultaneous")  # as train.py plays it
    rounds = [(Batch(torch.randn(N, 3, 32, 32)), SeededDraw(N, dtype=torch.float32))]
    with Flops() as counter:
        play_turns(PLANS[plan](game, OBJECTIVES[objective], rounds, Weights(gamma)), game)
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


def test_a_pass_with_both_penalties_saves_a_quarter():
    cost = {plan: flops(plan, "relativistic", Gamma(1, 1)) for plan in PLANS}
    assert cost["single_pass"] / cost["alternating-fresh"] <= 0.77
