"""The players of a run: built as a function of the seed, and saved and restored whole."""

import itertools
from pathlib import Path

import pytest
import torch

from adversarial.passes import Turn
from models import dcgan, mlp
from utils.config.sections import Config
from utils.errors import UserError
from utils.tasks.generation import Generation
from utils.training import checkpoint
from utils.training.players import Players, first_not_finite
from utils.training.state import RunState, Sizes

CPU = torch.device("cpu")


@pytest.fixture
def config() -> Config:
    config = Config()
    config.model = dcgan.Config(latent_dim=4, generator_width=4, critic_width=4)
    config.run.device = "cpu"
    config.update.lookahead = config.update.generator_lookahead = 1.0
    return config


def built(config: Config, classes: int = 3, shape: tuple[int, ...] = (1, 8, 8)) -> Players:
    """Players of the generation game for data of these sizes."""
    return Players.build(config, *Generation().networks(config, Sizes(shape, classes)), CPU)


def train(players: Players, steps: range) -> Players:
    """Move both networks, and the average as the loop does."""
    for step in steps:
        z = torch.randn(5, 4, generator=torch.Generator().manual_seed(step))
        players.critic(players.generator(z)).sum().backward()
        list(players.lookahead.around(iter([Turn(("generator", "critic"), {})]), 0, {"generator": 1.0, "critic": 1.0}))
        for optimizer in players.optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        players.update_average(0.9)
    return players


def trained(config: Config, steps: int = 2) -> Players:
    return train(built(config), range(steps))


def flat(players: Players) -> dict[str, torch.Tensor]:
    return flatten(players.tensors())


def flatten(tensors: checkpoint.Tensors) -> dict[str, torch.Tensor]:
    return {f"{group}: {name}": x.clone() for group, named in tensors.items() for name, x in named.items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_networks_are_a_function_of_the_seed(config):
    torch.manual_seed(1)
    first = flat(built(config))
    torch.manual_seed(2)
    assert same(first, flat(built(config)))
    config.seed = 1
    assert not same(first, flat(built(config)))


def test_building_leaves_the_global_generator_alone(config):
    before = torch.random.get_rng_state()
    built(config)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_average_begins_as_the_generator(config):
    players = built(config)
    assert same(players.average.state_dict(), players.generator.state_dict())


def test_learning_rates_and_betas_are_those_of_the_config(config):
    config.optimizer.generator_lr, config.optimizer.critic_lr, config.optimizer.betas = 1e-3, 2e-3, [0.1, 0.9]
    players = built(config)
    groups = {name: optimizer.param_groups[0] for name, optimizer in players.optimizers.items()}
    assert {name: group["lr"] for name, group in groups.items()} == {"generator": 1e-3, "critic": 2e-3}
    assert all(tuple(group["betas"]) == (0.1, 0.9) for group in groups.values())
    players.adapt({"generator": 1e-3, "critic": 5e-4}, (0.1, 0.95))
    assert {name: group["lr"] for name, group in groups.items()} == {"generator": 1e-3, "critic": 5e-4}
    assert all(group["betas"] == (0.1, 0.95) for group in groups.values())


@pytest.mark.parametrize("channels_last", [True, False])
def test_the_layout_is_that_of_the_config(config, channels_last):
    config.train.channels_last = channels_last
    players = built(config)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    for network in (players.generator, players.critic, players.average):
        assert all(p.is_contiguous(memory_format=layout) for p in network.parameters() if p.ndim == 4)


def test_labels_that_are_not_there_are_a_sentence(config):
    config.game.conditional, config.data.name = True, "tiny"
    with pytest.raises(UserError, match=r"game\.conditional.*'tiny'"):
        built(config, classes=0)


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
        built(config, shape=shape)
    text = str(caught.value)
    assert "\n" not in text
    assert "model" in text
    assert word == "points" or word in text


def test_restored_players_are_the_saved_ones(config, tmp_path):
    players = trained(config)
    checkpoint.save(tmp_path, players.tensors(), RunState(2), keep=2)
    other = built(config)
    assert not same(flat(other), flat(players))
    other.restore(checkpoint.newest(tmp_path, print))
    assert same(flat(other), flat(players))


def assert_refused(config: Config, folder: Path, tensors: checkpoint.Tensors, pattern: str) -> None:
    """A checkpoint of these tensors is not restored, and nothing has changed by the attempt."""
    checkpoint.save(folder, tensors, RunState(2), keep=2)
    other = trained(config, steps=1)
    before = flat(other)
    with pytest.raises(UserError, match=pattern):
        other.restore(checkpoint.newest(folder, print))
    assert same(flat(other), before)


GROUPS = ["generator", "critic", "generator_ema", "generator_optimizer", "critic_optimizer", "critic_before"]


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("how", ["without-the-file", "without-a-tensor"])
def test_nothing_is_restored_unless_all_of_it_fits(config, tmp_path, group, how):
    players = trained(config)
    tensors = players.tensors()
    if how == "without-the-file":
        del tensors[group]
    else:
        tensors[group] = dict(itertools.islice(tensors[group].items(), 2))
    checkpoint.save(tmp_path, tensors, RunState(2), keep=2)
    other = trained(config, steps=1)
    before = flat(other)
    with pytest.raises(UserError) as caught:
        other.restore(checkpoint.newest(tmp_path, print))
    text = str(caught.value)
    assert f"{group}.safetensors" in text
    assert "\n" not in text
    assert same(flat(other), before)


def test_another_architecture_is_not_restored(config, tmp_path):
    checkpoint.save(tmp_path, trained(config).tensors(), RunState(2), keep=2)
    config.model.critic_width = 8
    other = built(config)
    before = flat(other)
    with pytest.raises(UserError, match=r"critic\.safetensors"):
        other.restore(checkpoint.newest(tmp_path, print))
    assert same(flat(other), before)


@pytest.mark.parametrize(
    ("half_life", "burn_in", "shared"), [(0, None, True), (0, 0.0, True), (0, 50.0, False), (9, None, False)]
)
def test_an_average_of_half_life_0_is_the_generator(config, tmp_path, half_life, burn_in, shared):
    """Before and after a checkpoint, with nothing to update; one that is of half-life 0 only at first is no such."""
    config.ema.half_life, config.burn_in.ema_half_life = half_life, burn_in
    players = trained(config)
    checkpoint.save(tmp_path, players.tensors(), RunState(2, sizes=Sizes((1, 8, 8), 3)), keep=2)
    other = built(config)
    other.restore(checkpoint.newest(tmp_path, print))
    assert same(other.average.state_dict(), players.average.state_dict())
    for one in (players, train(other, range(2, 4))):
        assert same(one.average.state_dict(), one.generator.state_dict()) == shared


@pytest.mark.parametrize("raw", [True, False])
def test_a_generator_comes_without_its_data(config, tmp_path, raw):
    players = trained(config)
    checkpoint.save(tmp_path, players.tensors(), RunState(2, sizes=Sizes((1, 8, 8), 3)), keep=2)
    loaded, state = Players.load(config, tmp_path, Generation().networks, print)
    network = (loaded.with_raw_weights() if raw else loaded).average
    want = players.generator if raw else players.average
    assert same(network.state_dict(), want.state_dict())
    assert not network.training
    assert state.step == 2
    assert same(loaded.critic.state_dict(), players.critic.state_dict())


@pytest.mark.parametrize("restore", [True, False])
def test_unit_vectors_that_an_earlier_version_averaged_are_mended(config, tmp_path, restore):
    """Too short by a third, as they were, they make the singular values of the weights in use too large."""
    config.model.generator_norm = "spectral"
    players = trained(config)
    tensors = players.tensors()
    for name, value in tensors["generator_ema"].items():
        if name.endswith(("._u", "._v")):
            tensors["generator_ema"][name] = value * 2 / 3
    checkpoint.save(tmp_path, tensors, RunState(2, sizes=Sizes((1, 8, 8), 3)), keep=2)
    if restore:
        other = built(config)
        other.restore(checkpoint.newest(tmp_path, print))
    else:
        other, _ = Players.load(config, tmp_path, Generation().networks, print)
    assert same(other.average.state_dict(), players.average.state_dict())


def test_a_run_without_checkpoints_has_no_players(config, tmp_path):
    with pytest.raises(UserError, match="no checkpoint yet"):
        Players.load(config, tmp_path, Generation().networks, print)


def test_networks_alone_need_no_optimizers(config, tmp_path):
    """Such is the checkpoint of the best model: it can be looked at, and not be trained on."""
    players = trained(config)
    checkpoint.save(tmp_path, players.networks(), RunState(2), keep=1)
    saved = checkpoint.newest(tmp_path, print)
    other = trained(config, steps=1)
    before = flat(other)
    with pytest.raises(UserError, match=r"optimizer\.safetensors"):
        other.restore(saved)
    assert same(flat(other), before)
    other.load_tensors(saved.tensors)
    after = flat(other)
    of_training = [name for name in after if "_optimizer" in name or "_before" in name]
    assert all(torch.equal(after[name], before[name]) for name in of_training)
    assert same({name: x for name, x in after.items() if name not in of_training}, flatten(players.networks()))


SGD = {"momentum": (0.9, {"momentum_buffer"}), "plain": (0.0, set())}


@pytest.mark.parametrize(("momentum", "kept"), SGD.values(), ids=SGD)
def test_sgd_goes_on_bit_for_bit(config, tmp_path, momentum, kept):
    config.optimizer.name, config.optimizer.momentum, config.optimizer.weight_decay = "sgd", momentum, 0.1
    players = trained(config)
    assert {key.split("/")[0] for key in players.tensors()["generator_optimizer"]} == kept
    checkpoint.save(tmp_path, players.tensors(), RunState(2), keep=2)
    other = trained(config, steps=1)
    other.restore(checkpoint.newest(tmp_path, print))
    assert same(flat(other), flat(players))
    assert same(flat(train(other, range(2, 4))), flat(train(players, range(2, 4))))


@pytest.mark.parametrize("player", ["generator", "critic"])
def test_sgd_with_momentum_is_not_restored_without_it(config, tmp_path, player):
    config.optimizer.name, config.optimizer.momentum = "sgd", 0.9
    tensors = trained(config).tensors()
    tensors[f"{player}_optimizer"].popitem()
    assert_refused(config, tmp_path, tensors, rf"{player}_optimizer\.safetensors")


@pytest.mark.parametrize(("name", "kind"), [("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)])
def test_the_optimizer_is_that_of_the_config(config, name, kind):
    config.optimizer.name, config.optimizer.momentum, config.optimizer.weight_decay = name, 0.5, 0.25
    for optimizer in built(config).optimizers.values():
        assert isinstance(optimizer, kind)
        assert optimizer.defaults["weight_decay"] == 0.25
        assert optimizer.defaults.get("momentum", 0.5) == 0.5


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("group", GROUPS)
def test_what_is_not_finite_is_named(config, group, value):
    players = trained(config)
    assert first_not_finite(players.tensors()) is None
    name, tensor = next((name, x) for name, x in players.tensors()[group].items() if x.is_floating_point() and x.ndim)
    with torch.no_grad():
        tensor[(-1,) * tensor.ndim] = value
    assert first_not_finite(players.tensors()) == f"{group}: {name}"


def test_points_have_players_too(config):
    config.model = mlp.Config(width=4)
    players = built(config, classes=8, shape=(2,))
    assert players.critic(players.generator(torch.zeros(3, 2))).shape == (3,)


def test_what_the_game_remembers_is_saved_and_restored_in_place(config, tmp_path):
    config.augment.name = "ada"
    players, other = trained(config), built(config)
    players.state["augment_p"].fill_(0.25)
    checkpoint.save(tmp_path, players.tensors(), RunState(1))
    kept = other.state["augment_p"]
    other.restore(checkpoint.newest(tmp_path, print))
    assert kept.item() == 0.25
    assert same(flat(players), flat(other))


def test_state_that_does_not_fit_is_refused(config, tmp_path):
    checkpoint.save(tmp_path, trained(config).tensors(), RunState(1))
    config.augment.name = "ada"
    with pytest.raises(UserError, match=r"scalars\.safetensors does not fit this run: augment_p is absent"):
        built(config).restore(checkpoint.newest(tmp_path, print))


def respelled(tensors: dict[str, torch.Tensor], name: str, change) -> None:
    """Change one tensor, or with None leave it out."""
    value = tensors.pop(name)
    if change is not None:
        tensors[name] = change(value)


WRONG = {
    "shape": lambda x: torch.zeros(*x.shape, 2, dtype=x.dtype),
    "one-number": lambda x: x.flatten()[:1].reshape(1, 1, 1, 1, 1),
    "flat": lambda x: x.flatten() if x.ndim > 1 else x.reshape(-1, 1, 1),
    "half": lambda x: x.half(),
    "integer": lambda x: x.int(),
    "absent": None,
}


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("group", [*GROUPS, "scalars"])
@pytest.mark.parametrize("wrong", WRONG)
def test_every_tensor_has_its_name_shape_and_type_or_nothing_is_restored(config, tmp_path, optimizer, group, wrong):
    """A fused step with a moment of another shape reads beyond its end."""
    config.optimizer.name, config.optimizer.momentum, config.augment.name = optimizer, 0.9, "ada"
    tensors = trained(config).tensors()
    other = trained(config, steps=1)
    before = flat(other)
    firsts = {name.partition("/")[0]: name for name in tensors[group]} if "optimizer" in group else tensors[group]
    for name in list(firsts.values()) if "optimizer" in group else list(firsts)[:3]:
        spoilt = {**tensors, group: dict(tensors[group])}
        respelled(spoilt[group], name, WRONG[wrong])
        checkpoint.save(tmp_path, spoilt, RunState(2), keep=2)
        with pytest.raises(UserError) as caught:
            other.restore(checkpoint.newest(tmp_path, print))
        assert f"{group}.safetensors does not fit this run: {name} is " in str(caught.value)
        assert "\n" not in str(caught.value)
        assert same(flat(other), before)


@pytest.mark.parametrize("name", ["exp_avg/nowhere", "colour/network.0.weight", "exp_avg", "", "/"])
@pytest.mark.parametrize("group", GROUPS[3:])
def test_a_moment_of_nothing_is_refused(config, tmp_path, group, name):
    tensors = trained(config).tensors()
    tensors[group][name] = torch.zeros(2)
    assert_refused(config, tmp_path, tensors, rf"{group}\.safetensors does not fit")


def test_moments_of_optimizers_that_stepped_before_a_step_that_is_left_out(config, tmp_path):
    """Step 8 is to be left out, and the run is at step 2 again."""
    players = trained(config)
    checkpoint.save(tmp_path, players.tensors(), RunState(2, skipped=(7, 8)), keep=2)
    other = built(config)
    other.restore(checkpoint.newest(tmp_path, print))
    assert same(flat(other), flat(players))


def test_a_run_in_float64_is_looked_at_in_float32(config, tmp_path):
    players = trained(config)
    wide = {name: {key: x.double() if x.is_floating_point() else x for key, x in group.items()}
            for name, group in players.networks().items()}  # fmt: skip
    checkpoint.save(tmp_path, wide, RunState(2, sizes=Sizes((1, 8, 8), 3)), keep=2)
    loaded, _ = Players.load(config, tmp_path, Generation().networks, print)
    assert same(loaded.average.state_dict(), players.average.state_dict())
