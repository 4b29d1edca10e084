"""The signs of a game in its log lines, and that steps between the lines do nothing for them."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils._python_dispatch import TorchDispatchMode

from adversarial.accumulation import accumulated
from adversarial.draws import Draw
from adversarial.games import Batch, GenerationGame
from adversarial.objectives import OBJECTIVES
from adversarial.passes import Turn
from adversarial.rules import single_pass
from tests.no_waiting import NoWaiting
from utils.run.recorder import Recorder
from utils.run.vital_signs import VitalSigns, cosine_to_past, singular_values


class Affine(nn.Linear):
    """A network as a game calls it."""

    def forward(self, x, label=None):
        return super().forward(x).squeeze(1)


def players(generator: nn.Module, critic: nn.Module) -> SimpleNamespace:
    both = {"generator": generator, "critic": critic}
    optimizers = {name: torch.optim.Adam(network.parameters(), 0.1) for name, network in both.items()}
    return SimpleNamespace(**both, optimizers=optimizers)


def turn_of(generator: nn.Module, critic: nn.Module, objective: str, parts: int = 1) -> Turn:
    game = GenerationGame(generator, critic, generator.in_features, conditional=False, together=True)
    draw = Draw((0, "test"), 16)
    rounds = [(Batch(draw.normal("x", (2,))), draw)]
    (turn,) = accumulated(single_pass, game, OBJECTIVES[objective], rounds, parts=parts)
    return turn


@pytest.mark.parametrize(("scale", "dtype"), [(1.0, torch.float32), (1000.0, torch.float32), (1.0, torch.float64)])
def test_the_ratios_of_a_single_pass(scale, dtype):
    """The non-saturating loss has g/c = -e^(-s), up to the floor of c: 2^-40 of the largest."""
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    generator, critic = Affine(3, 2), Affine(2, 1)
    with torch.no_grad():
        critic.weight.mul_(scale)
    turn = turn_of(generator, critic, "non_saturating")
    (fake,) = turn.reversed
    score, floored = turn.report["fake_score"].double(), fake.floored
    assert bool(floored.any()) == (scale > 1)
    ratio = fake.ratio.double()
    told = ~floored & (score < 80)  # above, g itself is too small for float32
    torch.testing.assert_close(ratio[told], -torch.exp(-score[told]), rtol=1e-5, atol=0)
    signs = VitalSigns(players(generator, critic))
    signs.see(turn)
    read = signs.read()
    assert read["floored"] == float(floored.double().mean())
    assert read["ratio_p50"] == pytest.approx(float(ratio.abs().quantile(0.5)), rel=1e-6)
    assert read["ratio_p10"] <= read["ratio_p50"] <= read["ratio_p90"]
    signs.see(Turn(("generator",), {}))
    assert "ratio_p50" not in signs.read()  # the last turn had none


def test_the_ratios_of_micro_batches_are_those_of_the_batch():
    """g and c are both twice as large where the mean is over half of the samples: exactly."""
    torch.manual_seed(0)
    generator, critic = Affine(3, 2), Affine(2, 1)
    whole, halves = (turn_of(generator, critic, "non_saturating", parts) for parts in (1, 2))
    assert len(halves.reversed) == 2
    for name in ("ratio", "floored"):
        (want,) = (getattr(side, name) for side in whole.reversed)
        assert torch.equal(torch.cat([getattr(side, name) for side in halves.reversed]), want)


def test_a_zero_sum_game_has_no_ratios():
    """All are -λ."""
    torch.manual_seed(0)
    generator, critic = Affine(3, 2), Affine(2, 1)
    turn = turn_of(generator, critic, "minimax")
    assert not turn.reversed
    signs = VitalSigns(players(generator, critic))
    signs.see(turn)
    assert "ratio_p50" not in signs.read()
    assert "floored" not in signs.read()


def test_the_cosine_is_to_the_mean_of_past_gradients():
    module = nn.ParameterDict({"a": nn.Parameter(torch.zeros(2)), "b": nn.Parameter(torch.zeros(1))})
    for optimizer in (torch.optim.Adam(module.values(), 0.1, (0.5, 0.9)), torch.optim.SGD(module.values(), 0.1, 0.5)):
        past = [torch.tensor([3.0, 0.0]), torch.tensor([4.0])]
        for parameter, gradient in zip(module.values(), past, strict=True):
            parameter.grad = gradient
        assert cosine_to_past(optimizer) is None
        optimizer.step()
        for now, want in (([6.0, 0.0, 8.0], 1.0), ([-3.0, 0.0, -4.0], -1.0), ([0.0, 1.0, 0.0], 0.0)):
            module["a"].grad, module["b"].grad = torch.tensor(now[:2]), torch.tensor(now[2:])
            assert float(cosine_to_past(optimizer)) == pytest.approx(want, abs=1e-6)
    assert cosine_to_past(torch.optim.SGD(module.values(), 0.1)) is None  # keeps no mean


def test_the_largest_singular_value_of_each_layer():
    """Of a diagonal weight it is the largest entry; 30 power iterations are off by (1/2)^60."""
    linear = nn.Linear(3, 3)
    with torch.no_grad():
        linear.weight.copy_(torch.diag(torch.tensor([4.0, 2.0, 1.0])))
    network = nn.Sequential(spectral_norm(linear, n_power_iterations=30), nn.Linear(3, 3))
    network(torch.zeros(1, 3))
    assert {name: float(value) for name, value in singular_values(network).items()} == {"0": pytest.approx(4.0)}


class Counted(TorchDispatchMode):
    """The number of operations inside."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += 1
        return function(*args, **(kwargs or {}))


def test_steps_between_lines_do_no_more_and_none_of_them_waits():
    """The game's own step keeps the ratios that it has used; a step that ends in a line adds the cosine."""
    generator, critic = Affine(3, 2), Affine(2, 1)
    turn = turn_of(generator, critic, "non_saturating")
    recorder = Recorder.__new__(Recorder)
    recorder.players, recorder.log = players(generator, critic), object()
    recorder.players.optimizers["generator"].step()
    recorder.config = SimpleNamespace(log=SimpleNamespace(every=10))
    recorder.meter, recorder.signs = SimpleNamespace(add=lambda *_: None), VitalSigns(recorder.players)
    norms = 2  # of two players: one operation for all tensors of each
    counts = []
    for step in (7, 9):
        with NoWaiting(), Counted() as counted:
            recorder.add(step, turn)
        counts.append(counted.count)
    assert counts[0] == norms
    assert recorder.signs.read().keys() == {
        "generator_gradient_cosine",
        "ratio_p10",
        "ratio_p50",
        "ratio_p90",
        "floored",
    }
