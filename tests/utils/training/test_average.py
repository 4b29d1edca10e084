"""The moving average against a plain loop, and what it must leave alone."""

import copy

import pytest
import torch
from torch import nn

from models import dcgan
from utils.training.average import averaged, update

ROUND = torch.finfo(torch.float64).eps  # of a double


class Network(nn.Module):
    """Parameters, float buffers, an integer buffer, and one that is not saved."""

    def __init__(self, seed: int):
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(4, 3, 2, 2, generator=draw, dtype=torch.float64))
        self.fixed = nn.Parameter(torch.randn(3, generator=draw, dtype=torch.float64), requires_grad=False)
        self.register_buffer("mean", torch.randn(5, generator=draw, dtype=torch.float64))
        self.register_buffer("hidden", torch.randn(2, generator=draw, dtype=torch.float64), persistent=False)
        self.register_buffer("count", torch.tensor(seed))
        self.register_buffer("mask", torch.tensor([True, seed % 2 == 0]))


FLOATS = ["weight", "fixed", "mean", "hidden"]


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.5, 0.999, 1.0])
def test_against_a_plain_loop(decay):
    """Over 10 steps. Each step rounds 4 times, by at most half a rounding error of a number below 2 · 5 = 10."""
    average = averaged(Network(0))
    want = {name: getattr(average, name).clone() for name in FLOATS}
    for step in range(1, 11):
        network = Network(step)
        update(average, network, decay)
        want = {name: decay * want[name] + (1 - decay) * getattr(network, name).detach() for name in FLOATS}
    largest = max(float(value.abs().max()) for value in want.values())
    assert largest < 5
    for name in FLOATS:
        error = (getattr(average, name) - want[name]).abs().max()
        assert float(error) <= 10 * 2 * 4 * 10 * ROUND / 2  # twice: the loop rounds as well


def test_integers_and_masks_are_copied():
    average, network = averaged(Network(0)), Network(7)
    update(average, network, 0.999)
    assert average.count.item() == 7
    assert torch.equal(average.mask, network.mask)


def test_a_decay_of_0_copies_bit_for_bit():
    average, network = averaged(Network(0)), Network(7)
    update(average, network, 0.0)
    for ours, theirs in zip(
        [*average.parameters(), *average.buffers()], [*network.parameters(), *network.buffers()], strict=True
    ):
        assert torch.equal(ours, theirs)


def test_a_decay_of_1_stays_bit_for_bit():
    average = averaged(Network(0))
    before = copy.deepcopy(average)
    update(average, Network(7), 1.0)
    assert all(torch.equal(getattr(average, name), getattr(before, name)) for name in FLOATS)


def test_the_network_is_left_alone():
    average, network = averaged(Network(0)), Network(7)
    before = copy.deepcopy(network)
    update(average, network, 0.5)
    assert all(torch.equal(getattr(network, name), getattr(before, name)) for name in [*FLOATS, "count", "mask"])


def test_an_average_is_a_frozen_copy_in_evaluation_mode():
    network = Network(0).train()
    average = averaged(network)
    assert network.training
    assert network.weight.requires_grad
    assert not average.training
    assert not any(p.requires_grad for p in average.parameters())
    average.weight.add_(1)
    assert not torch.equal(average.weight, network.weight)


def test_an_average_of_a_network_that_requires_gradients_keeps_no_graph():
    average = averaged(Network(0))
    update(average, Network(1), 0.5)
    assert all(p.grad_fn is None and not p.requires_grad for p in average.parameters())


@pytest.mark.parametrize("norm", ["batch", "group", "spectral"])
def test_a_real_generator_keeps_its_layout_and_its_running_statistics(norm):
    config = dcgan.Config(latent_dim=4, generator_width=4, generator_norm=norm)
    network = dcgan.Generator(config, (1, 8, 8), 0).to(memory_format=torch.channels_last)
    average = averaged(network)
    strides = {name: p.stride() for name, p in average.named_parameters()}
    network.train()(torch.randn(8, 4, generator=torch.Generator().manual_seed(0)))  # moves the running statistics
    update(average, network, 0.0)
    assert {name: p.stride() for name, p in average.named_parameters()} == strides
    assert all(
        torch.equal(a, b) for a, b in zip(average.state_dict().values(), network.state_dict().values(), strict=True)
    )


def test_another_architecture_is_an_error():
    with pytest.raises((ValueError, RuntimeError)):
        update(averaged(nn.Linear(2, 2)), nn.Linear(2, 2, bias=False), 0.5)
