"""The moving average against a plain loop, and what it must leave alone."""

import operator

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from models import FAMILIES, dcgan, resnet_gan
from utils.data.randomness import seeded
from utils.training.average import averaged, pairs, update
from utils.training.sync_batchnorm import synchronise

ROUND = torch.finfo(torch.float64).eps  # of a double


class Network(nn.Module):
    """Parameters, BatchNorm's running statistics, and buffers that are none, though one of them is called like one."""

    def __init__(self, seed: int):
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(4, 3, 2, 2, generator=draw, dtype=torch.float64))
        self.fixed = nn.Parameter(torch.randn(3, generator=draw, dtype=torch.float64), requires_grad=False)
        self.norm = nn.BatchNorm1d(5, affine=False, dtype=torch.float64)
        self.norm.running_mean.copy_(torch.randn(5, generator=draw, dtype=torch.float64))
        self.norm.running_var.copy_(torch.rand(5, generator=draw, dtype=torch.float64))
        self.norm.num_batches_tracked.fill_(seed)
        self.register_buffer("running_mean", torch.randn(5, generator=draw, dtype=torch.float64))
        self.register_buffer("hidden", torch.randn(2, generator=draw, dtype=torch.float64), persistent=False)
        self.register_buffer("count", torch.tensor(seed))
        self.register_buffer("mask", torch.tensor([True, seed % 2 == 0]))


AVERAGED = ["weight", "fixed", "norm.running_mean", "norm.running_var"]
COPIED = ["running_mean", "hidden", "count", "mask", "norm.num_batches_tracked"]


def tensors(network: nn.Module, names: list[str]) -> dict[str, Tensor]:
    return {name: operator.attrgetter(name)(network).detach().clone() for name in names}


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.5, 0.999, 1.0])
def test_against_a_plain_loop(decay):
    """Over 10 steps. Each step rounds 4 times, by at most half a rounding error of a number below 2 · 5 = 10."""
    average = averaged(Network(0))
    want = tensors(average, AVERAGED)
    for step in range(1, 11):
        network = Network(step)
        update(pairs(average, network), decay)
        want = {name: decay * want[name] + (1 - decay) * x for name, x in tensors(network, AVERAGED).items()}
    largest = max(float(value.abs().max()) for value in want.values())
    assert largest < 5
    for name, got in tensors(average, AVERAGED).items():
        error = (got - want[name]).abs().max()
        assert float(error) <= 10 * 2 * 4 * 10 * ROUND / 2  # twice: the loop rounds as well


@pytest.mark.parametrize("decay", [0.0, 0.999, 1.0])
@pytest.mark.parametrize("name", COPIED)
def test_what_is_no_statistic_is_copied(name, decay):
    average, network = averaged(Network(0)), Network(7)
    update(pairs(average, network), decay)
    assert torch.equal(tensors(average, [name])[name], tensors(network, [name])[name])


def test_a_decay_of_0_copies_bit_for_bit():
    average, network = averaged(Network(0)), Network(7)
    update(pairs(average, network), 0.0)
    for ours, theirs in zip(
        [*average.parameters(), *average.buffers()], [*network.parameters(), *network.buffers()], strict=True
    ):
        assert torch.equal(ours, theirs)


def test_a_decay_of_1_stays_bit_for_bit():
    average = averaged(Network(0))
    before = tensors(average, AVERAGED)
    update(pairs(average, Network(7)), 1.0)
    assert all(torch.equal(x, before[name]) for name, x in tensors(average, AVERAGED).items())


def test_the_network_is_left_alone():
    average, network = averaged(Network(0)), Network(7)
    before = tensors(network, AVERAGED + COPIED)
    update(pairs(average, network), 0.5)
    assert all(torch.equal(x, before[name]) for name, x in tensors(network, AVERAGED + COPIED).items())


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
    update(pairs(average, Network(1)), 0.5)
    assert all(p.grad_fn is None and not p.requires_grad for p in average.parameters())


@pytest.mark.parametrize("norm", ["batch", "group", "spectral"])
def test_a_real_generator_keeps_its_layout_and_its_running_statistics(norm):
    config = dcgan.Config(latent_dim=4, generator_width=4, generator_norm=norm)
    network = dcgan.Generator(config, (1, 8, 8), 0).to(memory_format=torch.channels_last)
    average = averaged(network)
    strides = {name: p.stride() for name, p in average.named_parameters()}
    network.train()(torch.randn(8, 4, generator=torch.Generator().manual_seed(0)))  # moves the running statistics
    update(pairs(average, network), 0.0)
    assert {name: p.stride() for name, p in average.named_parameters()} == strides
    assert all(
        torch.equal(a, b) for a, b in zip(average.state_dict().values(), network.state_dict().values(), strict=True)
    )


SPECTRAL = {
    "dcgan": dcgan.Config(latent_dim=4, generator_width=4, generator_norm="spectral"),
    "resnet_gan": resnet_gan.Config(latent_dim=4, generator_width=4, generator_spectral=True),
}


@pytest.mark.parametrize("family", SPECTRAL)
def test_an_average_with_spectral_norm_has_weights_of_norm_1(family):
    """Within 3 %: the vectors are those of the network's weights, which are near the average's."""
    with seeded(0, "test"):
        size = 8 if family == "dcgan" else 32
        network = FAMILIES[family].generator(SPECTRAL[family], (1, size, size), 0)
        average, optimizer = averaged(network), torch.optim.Adam(network.parameters(), lr=1e-2)
        for _ in range(50):
            network(torch.randn(8, 4)).diff(dim=0).square().mean().neg().backward()
            optimizer.step()
            optimizer.zero_grad()
            update(pairs(average, network), 0.9)
    layers = [module for module in average.modules() if is_parametrized(module, "weight")]
    assert len(layers) >= 3
    for layer in layers:
        matrix = layer.parametrizations.weight[0]._reshape_weight_to_matrix(layer.weight)
        assert float(torch.linalg.matrix_norm(matrix, 2)) == pytest.approx(1, abs=0.03)


def test_statistics_of_any_batch_norm_are_averaged():
    """A network synchronised over processes has another class of norm than its average."""
    average, network = (nn.Sequential(nn.BatchNorm2d(3)) for _ in range(2))
    nn.init.constant_(network[0].running_mean, 8.0)
    nn.init.constant_(network[0].running_var, 5.0)
    synchronise(network)
    update(pairs(average, network), 0.75)
    assert average[0].running_mean.tolist() == [2, 2, 2]
    assert average[0].running_var.tolist() == [2, 2, 2]


def test_another_architecture_is_an_error():
    with pytest.raises((ValueError, RuntimeError)):
        pairs(averaged(nn.Linear(2, 2)), nn.Linear(2, 2, bias=False))


def test_a_shared_average_is_what_its_network_is_and_costs_nothing():
    network = Network(0)
    average = averaged(network, shared=True)
    assert pairs(average, network) == ([], [])
    with torch.no_grad():
        for x in [*network.parameters(), *network.norm.buffers(), network.running_mean, network.count]:
            x.add_(1)
    update(pairs(average, network), 0.5)
    assert all(
        torch.equal(a, b) for a, b in zip(average.state_dict().values(), network.state_dict().values(), strict=True)
    )
    assert network.weight.requires_grad
    assert not any(p.requires_grad for p in average.parameters())
