"""What is read is what was written; of the checkpoints the newest are kept."""

import copy
import hashlib
import json
import shutil

import pytest
import torch
from torch import nn

from tests.utils.training.checkpoints import KEEP, Warnings, assert_reads, flip, steps_in, write
from utils.errors import UserError
from utils.training import checkpoint, optimizers
from utils.training.checkpoint import newest, save
from utils.training.state import BestRecord, RunState, Sizes

TENSORS = {
    "float32": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)),
    "float64": torch.tensor([1 / 3], dtype=torch.float64),
    "bfloat16": torch.tensor([1 / 3]).bfloat16(),
    "float16": torch.tensor([1 / 3]).half(),
    "int64": torch.tensor([-(2**62), 2**62]),
    "uint8": torch.arange(256, dtype=torch.uint8),
    "bool": torch.tensor([True, False]),
    "scalar": torch.tensor(7.0),
    "empty": torch.empty(0, 3),
    "special": torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0, 1e-45]),
    "channels-last": torch.arange(2.0 * 3 * 4 * 5).view(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
    "transposed": torch.arange(6.0).view(2, 3).T,
    "every-second": torch.arange(6.0)[::2],
    "expanded": torch.tensor([1.0]).expand(4),
    "parameter": nn.Parameter(torch.ones(2)),
}


def bits(x: torch.Tensor) -> bytes:
    return x.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if x.numel() else b""


@pytest.mark.parametrize("tensor", TENSORS.values(), ids=TENSORS)
def test_a_tensor_comes_back_bit_for_bit(tmp_path, tensor):
    save(tmp_path, {"group": {"x": tensor}}, RunState(1), KEEP)
    found = newest(tmp_path, Warnings()).tensors["group"]["x"]
    assert found.dtype == tensor.dtype
    assert found.shape == tensor.shape
    assert bits(found) == bits(tensor)


def test_an_empty_group_comes_back(tmp_path):
    """As an optimiser has before its first step."""
    save(tmp_path, {"adam": {}}, RunState(1), KEEP)
    assert newest(tmp_path, Warnings()).tensors == {"adam": {}}


def test_state_comes_back(tmp_path):
    best = BestRecord("é", 1 / 3, 12, True)
    state = RunState(
        12, {"a.b": None, "a.c": [0.1, 2], "a.d": float("inf")}, (3, 4), Sizes((3, 8, 8), 10), 7, 5, best, data="5f"
    )
    save(tmp_path, {}, state, KEEP)
    assert newest(tmp_path, Warnings()).state == state


def test_what_is_saved_is_not_changed(tmp_path):
    x = TENSORS["channels-last"].clone()
    before, strides = x.clone(), x.stride()
    save(tmp_path, {"group": {"x": x}}, RunState(1), KEEP)
    assert torch.equal(x, before)
    assert x.stride() == strides


def test_what_was_read_is_independent_of_the_file(tmp_path):
    path = write(tmp_path, 1)
    found = newest(tmp_path, Warnings())
    shutil.rmtree(path)
    found.tensors["generator"]["layers.0.weight"].add_(1)
    assert found.tensors["generator"]["layers.0.weight"].tolist() == [[2.0] * 3] * 2


def test_the_folder_says_its_step_and_the_manifest_lists_every_other_file(tmp_path):
    path = write(tmp_path / "new" / "folder", 1000)
    assert path == tmp_path / "new" / "folder" / "step-00001000"
    manifest = json.loads((path / "manifest.json").read_text())
    files = [file for file in path.iterdir() if file.name != "manifest.json"]
    assert {file.name for file in files} == manifest.keys()
    assert manifest.keys() == {"generator.safetensors", "critic_optimizer.safetensors", "state.json"}
    for file in files:
        data = file.read_bytes()
        assert manifest[file.name] == {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def test_no_folder_and_an_empty_folder_hold_nothing(tmp_path):
    assert newest(tmp_path / "absent", Warnings()) is None
    assert newest(tmp_path, Warnings()) is None


def test_files_beside_the_checkpoints_are_no_checkpoints(tmp_path):
    write(tmp_path, 1)
    (tmp_path / "step-00000009").write_text("a file")
    (tmp_path / "notes.txt").write_text("mine")
    assert_reads(tmp_path, 1)


class Small(nn.Module):
    """Every kind of layer that the networks here have, with channels enough for channels_last to matter."""

    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.up = nn.ConvTranspose2d(4, 5, 2, stride=2)
        self.score = nn.Linear(5, 1)

    def forward(self, x):
        return self.score(self.up(self.norm(self.down(x)).relu()).mean((2, 3)))


def player(layout: torch.memory_format = torch.channels_last, seed: int = 0) -> tuple[nn.Module, torch.optim.Adam]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Small().to(memory_format=layout)
    return network, torch.optim.Adam(network.parameters(), 1e-2, (0.5, 0.999), fused=True)


def train(network: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    x = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(step))
    network(x.contiguous(memory_format=torch.channels_last)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def assert_same_bits(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if bits(ours[name]) != bits(theirs[name])] == []


layouts = pytest.mark.parametrize(
    "layout", [torch.channels_last, torch.contiguous_format], ids=["channels-last", "channels-first"]
)


@layouts
@pytest.mark.parametrize("steps", [1, 3])
def test_training_goes_on_bit_for_bit(tmp_path, layout, steps):
    """A fused step walks memory: moments in another layout than their parameter would give other numbers."""
    network, optimizer = player(layout)
    for step in range(steps):
        train(network, optimizer, step)
    tensors = {
        "network": dict(network.state_dict()),
        "adam": optimizers.tensors_of(optimizer, network),
    }
    save(tmp_path, tensors, RunState(steps), KEEP)
    found = newest(tmp_path, Warnings())

    again, again_optimizer = player(layout, seed=1)
    checkpoint.check_fit(again.state_dict(), found.tensors["network"], "file")
    again.load_state_dict(found.tensors["network"])
    optimizers.restore(again_optimizer, again, found.tensors["adam"])
    assert_same_bits(again.state_dict(), network.state_dict())
    assert_same_bits(optimizers.tensors_of(again_optimizer, again), tensors["adam"])

    for step in range(steps, steps + 3):
        train(network, optimizer, step)
        train(again, again_optimizer, step)
        assert_same_bits(again.state_dict(), network.state_dict())
    assert_same_bits(optimizers.tensors_of(again_optimizer, again), optimizers.tensors_of(optimizer, network))


@layouts
def test_moments_have_the_layout_of_their_parameter(tmp_path, layout):
    network, optimizer = player(layout)
    train(network, optimizer, 0)
    save(tmp_path, {"adam": optimizers.tensors_of(optimizer, network)}, RunState(1), KEEP)
    again, again_optimizer = player(layout)
    optimizers.restore(again_optimizer, again, newest(tmp_path, Warnings()).tensors["adam"])
    for name, parameter in again.named_parameters():
        state = again_optimizer.state[parameter]
        assert state.keys() == {"step", "exp_avg", "exp_avg_sq"}
        for moment in (state["exp_avg"], state["exp_avg_sq"]):
            assert moment.stride() == parameter.stride(), name
            assert not moment.requires_grad
        assert state["step"].shape == ()
    assert again.down.weight.is_contiguous(memory_format=layout)


def test_a_network_may_move_to_another_layout(tmp_path):
    """train.channels_last is a runtime key."""
    network, optimizer = player(torch.channels_last)
    train(network, optimizer, 0)
    save(tmp_path, {"network": network.state_dict()}, RunState(1), KEEP)
    other, _ = player(torch.contiguous_format, seed=1)
    tensors = newest(tmp_path, Warnings()).tensors["network"]
    checkpoint.check_fit(other.state_dict(), tensors, "file")
    other.load_state_dict(tensors)
    assert_same_bits(other.state_dict(), network.state_dict())
    assert other.down.weight.is_contiguous()


def test_an_optimizer_that_has_not_stepped(tmp_path):
    network, optimizer = player()
    train(network, optimizer, 0)
    optimizers.restore(optimizer, network, {})
    assert optimizers.tensors_of(optimizer, network) == {}
    fresh, fresh_optimizer = copy.deepcopy(network), None
    fresh_optimizer = torch.optim.Adam(fresh.parameters(), 1e-2, (0.5, 0.999), fused=True)
    train(network, optimizer, 1)
    train(fresh, fresh_optimizer, 1)
    assert_same_bits(network.state_dict(), fresh.state_dict())


def test_optimizer_tensors_are_named_by_parameter():
    network, optimizer = player()
    train(network, optimizer, 0)
    want = {f"{key}/{name}" for name, _ in network.named_parameters() for key in ("step", "exp_avg", "exp_avg_sq")}
    assert optimizers.tensors_of(optimizer, network).keys() == want


MISFITS = {
    "missing": (lambda tensors: tensors.pop("up.weight"), "up.weight"),
    "surplus": (lambda tensors: tensors.update(extra=torch.ones(2)), "extra"),
    "other-shape": (lambda tensors: tensors.update({"score.weight": torch.ones(1, 6)}), "score.weight"),
    "other-type": (lambda tensors: tensors.update({"score.weight": torch.ones(1, 5).double()}), "score.weight"),
    "other-rank": (lambda tensors: tensors.update({"score.weight": torch.ones(5)}), "score.weight"),
    "nothing-at-all": (lambda tensors: tensors.clear(), "down.bias"),
}


@pytest.mark.parametrize(("spoil", "name"), MISFITS.values(), ids=MISFITS)
def test_tensors_of_another_network_are_refused_in_a_sentence(spoil, name):
    network, _ = player()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    tensors = {key: value + 1 for key, value in before.items()}
    spoil(tensors)
    with pytest.raises(UserError) as caught:
        checkpoint.check_fit(network.state_dict(), tensors, "runs/a/generator.safetensors")
    text = str(caught.value)
    assert text.startswith("runs/a/generator.safetensors does not fit")
    assert name in text
    assert "\n" not in text
    assert text.endswith(".")
    assert_same_bits(network.state_dict(), before)


@pytest.mark.parametrize("keep", [2, 3])
def test_the_newest_are_kept(tmp_path, keep):
    write(tmp_path, 1, 2, 3, 10, 20, keep=keep)
    assert steps_in(tmp_path) == [f"step-{step:08d}" for step in (1, 2, 3, 10, 20)[-keep:]]


def test_nothing_else_is_pruned(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "step.txt").write_text("mine")
    write(tmp_path, 1, 2, 3)
    assert steps_in(tmp_path) == ["notes", "step-00000002", "step-00000003", "step.txt"]


def test_a_damaged_later_one_does_not_count_among_those_that_are_kept(tmp_path):
    """Step 4 is damaged, the run resumes from step 2 and a signal saves step 3: two good ones must be there."""
    bad = write(tmp_path, 2, 4)
    (bad / "state.json").unlink()
    assert_reads(tmp_path, 2, passed_over=[bad])
    write(tmp_path, 3)
    flip(tmp_path / "step-00000003" / "generator.safetensors", -1)
    found = newest(tmp_path, Warnings())
    assert found.state.step == 2


def test_what_was_just_saved_is_never_pruned(tmp_path):
    """Two damaged later ones, as with a checkpoint.keep that was 3 before."""
    for path in (write(tmp_path, 1, 8, 9, keep=3), tmp_path / "step-00000008"):
        (path / "state.json").unlink()
    assert newest(tmp_path, Warnings()).state.step == 1
    path = write(tmp_path, 2, keep=2)
    assert path.is_dir()
    assert newest(tmp_path, Warnings()).state.step == 2


def test_damaged_later_ones_are_put_aside_and_not_deleted(tmp_path):
    """A disk that could not be read for a moment has damaged nothing."""
    write(tmp_path, 1, 2, 3, keep=3)
    for step in (2, 3):
        (tmp_path / f"step-0000000{step}" / "manifest.json").write_text("{")
    bad = tmp_path / "step-00000004"
    bad.mkdir()
    path = write(tmp_path, 2, keep=3)
    assert_reads(tmp_path, 2)
    assert path.name in steps_in(tmp_path)
    aside = [name for name in steps_in(tmp_path) if "step-00000003" in name or "step-00000004" in name]
    assert len(aside) == 2
    write(tmp_path, 3, 4, keep=3)
    assert_reads(tmp_path, 4)


def test_steps_are_numbers_and_not_words(tmp_path):
    write(tmp_path, 99_999_999, 100_000_000)
    assert_reads(tmp_path, 100_000_000)
    write(tmp_path, 100_000_001)
    assert_reads(tmp_path, 100_000_001)
    assert steps_in(tmp_path) == ["step-100000000", "step-100000001"]


@pytest.mark.parametrize("name", ["step-00000009-mine", "step-00000009.bak", "step-best", "my-step-00000009", "step-9"])
def test_copies_under_other_names_are_let_alone(tmp_path, name):
    shutil.copytree(write(tmp_path, 1), tmp_path / name)
    write(tmp_path, 2, 3, 4)
    assert_reads(tmp_path, 4)
    assert steps_in(tmp_path) == sorted([name, "step-00000003", "step-00000004"])


def test_a_damaged_one_is_replaced_when_its_step_comes_again(tmp_path):
    bad = write(tmp_path, 1, 2)
    (bad / "state.json").unlink()
    write(tmp_path, 2)
    assert_reads(tmp_path, 2)


def test_two_damaged_ones_are_kept(tmp_path):
    write(tmp_path, 1)
    for step in (9, 10, 99_999_999, 100_000_000):
        (tmp_path / f"step-{step:08d}").mkdir()
    (tmp_path / "damaged-notes").mkdir()
    write(tmp_path, 2)
    names = ["damaged-notes", "damaged-step-100000000", "damaged-step-99999999", "step-00000001", "step-00000002"]
    assert steps_in(tmp_path) == names
    assert_reads(tmp_path, 2)


def test_a_file_by_the_name_of_a_checkpoint_is_put_aside(tmp_path):
    write(tmp_path, 1)
    (tmp_path / "step-00000002").write_text("mine")
    write(tmp_path, 2)
    assert_reads(tmp_path, 2)
    assert (tmp_path / "damaged-step-00000002").read_text() == "mine"
