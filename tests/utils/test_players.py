"""The players of a run: built as a function of the seed, and saved and restored whole."""

import itertools

import pytest
import torch

from models import dcgan, mlp
from utils import checkpoint, players
from utils.config import Config
from utils.datasets import DataSet, Resident
from utils.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture
def config() -> Config:
    config = Config()
    config.model = dcgan.Config(latent_dim=4, generator_width=4, critic_width=4)
    config.run.device = "cpu"
    return config


def data_of(classes: int = 3, shape: tuple[int, ...] = (1, 8, 8)) -> DataSet:
    x = torch.zeros(6, *shape, dtype=torch.uint8)
    return DataSet("tiny", shape, classes, Resident(x, torch.arange(6) % classes if classes else None), None)


def trained(config: Config, steps: int = 2) -> players.Players:
    """Players that have moved, the average by another way than its network."""
    team = players.build(config, data_of(), CPU)
    for step in range(steps):
        z = torch.randn(5, 4, generator=torch.Generator().manual_seed(step))
        team.critic(team.generator(z)).sum().backward()
        for optimizer in team.optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
    return team


def flat(team: players.Players) -> dict[str, torch.Tensor]:
    return {f"{group}: {name}": x.clone() for group, named in team.tensors().items() for name, x in named.items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_networks_are_a_function_of_the_seed(config):
    torch.manual_seed(1)
    first = flat(players.build(config, data_of(), CPU))
    torch.manual_seed(2)
    assert same(first, flat(players.build(config, data_of(), CPU)))
    config.seed = 1
    assert not same(first, flat(players.build(config, data_of(), CPU)))


def test_building_leaves_the_global_generator_alone(config):
    before = torch.random.get_rng_state()
    players.build(config, data_of(), CPU)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_average_begins_as_the_generator(config):
    team = players.build(config, data_of(), CPU)
    assert same(team.average.state_dict(), team.generator.state_dict())


def test_learning_rates_and_betas_are_those_of_the_config(config):
    config.optimizer.generator_lr, config.optimizer.critic_lr, config.optimizer.betas = 1e-3, 2e-3, [0.1, 0.9]
    team = players.build(config, data_of(), CPU)
    groups = {name: optimizer.param_groups[0] for name, optimizer in team.optimizers.items()}
    assert {name: group["lr"] for name, group in groups.items()} == {"generator": 1e-3, "critic": 2e-3}
    assert all(tuple(group["betas"]) == (0.1, 0.9) for group in groups.values())
    players.set_learning_rate(team.optimizers["critic"], 5e-4)
    assert groups["critic"]["lr"] == 5e-4


@pytest.mark.parametrize("channels_last", [True, False])
def test_the_layout_is_that_of_the_config(config, channels_last):
    config.train.channels_last = channels_last
    team = players.build(config, data_of(), CPU)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    for network in (team.generator, team.critic, team.average):
        assert all(p.is_contiguous(memory_format=layout) for p in network.parameters() if p.ndim == 4)


def test_labels_that_are_not_there_are_a_sentence(config):
    config.game.conditional = True
    with pytest.raises(UserError, match=r"game\.conditional.*'tiny'"):
        players.build(config, data_of(classes=0), CPU)


@pytest.mark.parametrize(
    ("family", "shape", "word"),
    [
        (dcgan.Config(), (2,), "points"),
        (dcgan.Config(), (3, 24, 24), "24"),
        (dcgan.Config(critic_norm="x"), (1, 8, 8), "'x'"),
    ],
    ids=["points", "resolution", "norm"],
)
def test_networks_that_do_not_fit_the_data_are_a_sentence(config, family, shape, word):
    config.model = family
    with pytest.raises(UserError) as caught:
        players.build(config, data_of(shape=shape), CPU)
    text = str(caught.value)
    assert "\n" not in text
    assert "model" in text
    assert word == "points" or word in text


def test_restored_players_are_the_saved_ones(config, tmp_path):
    team = trained(config)
    checkpoint.save(tmp_path, 2, team.tensors(), {}, keep=2)
    other = players.build(config, data_of(), CPU)
    assert not same(flat(other), flat(team))
    other.restore(checkpoint.newest(tmp_path, print))
    assert same(flat(other), flat(team))


GROUPS = ["generator", "critic", "generator_ema", "generator_adam", "critic_adam"]


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("how", ["without-the-file", "without-a-tensor"])
def test_nothing_is_restored_unless_all_of_it_fits(config, tmp_path, group, how):
    team = trained(config)
    tensors = team.tensors()
    if how == "without-the-file":
        del tensors[group]
    else:
        tensors[group] = dict(itertools.islice(tensors[group].items(), 2))
    checkpoint.save(tmp_path, 2, tensors, {}, keep=2)
    other = trained(config, steps=1)
    before = flat(other)
    with pytest.raises(UserError) as caught:
        other.restore(checkpoint.newest(tmp_path, print))
    text = str(caught.value)
    assert f"{group}.safetensors" in text
    assert "\n" not in text
    assert same(flat(other), before)


def test_another_architecture_is_not_restored(config, tmp_path):
    checkpoint.save(tmp_path, 2, trained(config).tensors(), {}, keep=2)
    config.model.critic_width = 8
    other = players.build(config, data_of(), CPU)
    before = flat(other)
    with pytest.raises(UserError, match=r"critic\.safetensors"):
        other.restore(checkpoint.newest(tmp_path, print))
    assert same(flat(other), before)


@pytest.mark.parametrize("raw", [True, False])
def test_a_generator_comes_without_its_data(config, tmp_path, raw):
    team = trained(config)
    checkpoint.save(tmp_path, 2, team.tensors(), {"shape": (1, 8, 8), "classes": 3}, keep=2)
    network, state = players.load_generator(config, tmp_path, raw, print)
    want = team.generator if raw else team.average
    assert same(network.state_dict(), want.state_dict())
    assert not network.training
    assert state["step"] == 2


def test_a_run_without_checkpoints_has_no_generator(config, tmp_path):
    with pytest.raises(UserError, match="no checkpoint yet"):
        players.load_generator(config, tmp_path, False, print)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("group", GROUPS)
def test_what_is_not_finite_is_named(config, group, value):
    team = trained(config)
    assert players.first_not_finite(team.tensors()) is None
    name, tensor = next((name, x) for name, x in team.tensors()[group].items() if x.is_floating_point() and x.ndim)
    with torch.no_grad():
        tensor[(-1,) * tensor.ndim] = value
    assert players.first_not_finite(team.tensors()) == f"{group}: {name}"


def test_points_have_players_too(config):
    config.model = mlp.Config(width=4)
    data = DataSet("ring", (2,), 8, Resident(torch.zeros(4, 2), torch.arange(4)), None)
    team = players.build(config, data, CPU)
    assert team.critic(team.generator(torch.zeros(3, 2))).shape == (3,)
