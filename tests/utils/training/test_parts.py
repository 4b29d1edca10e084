"""Parts of networks by name: what is frozen, and learning rates layer by layer."""

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from adversarial.penalties import clip_weights
from utils.config.sections import OptimizerConfig
from utils.errors import UserError
from utils.evaluation.sampling import evaluating
from utils.training import optimizers
from utils.training.parts import covering, freeze, groups


def networks() -> dict[str, nn.Module]:
    critic = nn.Sequential(spectral_norm(nn.Linear(3, 4)), nn.BatchNorm1d(4), *[nn.Linear(4, 4) for _ in range(10)])
    return {"generator": nn.Sequential(nn.Linear(2, 3)), "critic": critic}


def learning(network: nn.Module) -> set[str]:
    return {name for name, parameter in network.named_parameters() if parameter.requires_grad}


def test_a_name_means_all_that_is_in_it_and_nothing_that_begins_alike():
    pair = networks()
    everything = learning(pair["critic"])
    freeze(pair, ["critic.0", "critic.1"])
    frozen = {name for name in everything if name.startswith(("0.", "1."))}
    assert frozen == {"0.bias", "0.parametrizations.weight.original", "1.weight", "1.bias"}
    assert learning(pair["critic"]) == everything - frozen, "layers 10 and 11 learn"
    assert learning(pair["generator"]) == {"0.weight", "0.bias"}


def test_buffers_of_frozen_layers_keep_still_and_the_other_layers_train():
    pair = networks()
    freeze(pair, ["critic.0", "critic.1"])
    critic = pair["critic"]
    before = {name: value.clone() for name, value in critic.named_buffers()}
    critic(torch.randn(8, 3))
    with evaluating(critic):
        assert not any(part.training for part in critic.modules())
    critic(torch.randn(8, 3))
    assert all(torch.equal(value, before[name]) for name, value in critic.named_buffers())
    assert critic[2].training


def test_clipping_leaves_frozen_weights_alone():
    pair = networks()
    freeze(pair, ["critic.2"])
    for parameter in pair["critic"].parameters():
        nn.init.constant_(parameter, 3.0)
    clip_weights(pair["critic"], 0.5)
    found = {name: float(x.detach().max()) for name, x in pair["critic"].named_parameters()}
    assert found == {name: 3.0 if name.startswith("2.") else 0.5 for name in found}


def test_learning_rates_by_layer_scale_the_steps_of_a_player():
    """Of several names the longest counts. SGD's step from a gradient of 1 is the learning rate."""
    critic = networks()["critic"]
    freeze({"critic": critic}, ["critic.0"])
    scale = {"critic": 0.5, "critic.2": 10.0, "critic.2.bias": 2.0, "generator.0": 3.0}
    found = {
        name: group["scale"]
        for group in groups("critic", critic, scale)
        for name, parameter in critic.named_parameters()
        if any(parameter is x for x in group["params"])
    }
    assert found == {name: {"2.weight": 10.0, "2.bias": 2.0}.get(name, 0.5) for name in learning(critic)}

    optimizer = optimizers.build(OptimizerConfig(name="sgd", scale=scale), "critic", critic, 1.0)
    before = {name: value.detach().clone() for name, value in critic.named_parameters()}
    for group in optimizer.param_groups:  # as Players.adapt does
        group["lr"] = 0.125 * group["scale"]
    for parameter in critic.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for name, value in critic.named_parameters():
        want = before[name] - 0.125 * found.get(name, 0.0)
        assert torch.allclose(value, want, atol=2**-22), name  # one rounding in float32 of weights below 4


def test_one_group_where_nothing_is_scaled():
    network = networks()["critic"]
    (group,) = groups("critic", network, {"generator": 3.0})
    assert group["scale"] == 1.0
    assert [id(x) for x in group["params"]] == [id(x) for x in network.parameters()]


@pytest.mark.parametrize(
    ("name", "names", "want"),
    [("critic.10.weight", ["critic.1"], ""), ("critic.1.weight", ["critic", "critic.1"], "critic.1"), ("a", [], "")],
)
def test_the_longest_name_around_a_part(name, names, want):
    assert covering(name, names) == want


@pytest.mark.parametrize("name", ["critic.20", "critics.0", "discriminator", "critic.", "critic.0.weigh", ""])
def test_an_unknown_name_gets_the_nearest_ones(name):
    with pytest.raises(UserError, match=f"init.freeze names '{name}', which no part.* near it are (generator|critic)"):
        freeze(networks(), [name])


@pytest.mark.parametrize(
    "names", [["generator"], ["generator.0"], ["critic", "generator.0.weight", "generator.0.bias"]]
)
def test_all_of_a_player_cannot_be_frozen(names):
    with pytest.raises(UserError, match=r"nothing of the (generator|critic) to learn.*such as (generator|critic)\.0\."):
        freeze(networks(), names)
