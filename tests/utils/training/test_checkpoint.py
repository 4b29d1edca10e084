"""A checkpoint is committed or it is not there; what is read is what was written; nothing is ever unpickled."""

import ast
import copy
import errno
import hashlib
import json
import os
import pickle
import resource
import shutil
import signal
import stat
import threading
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from utils.errors import UserError
from utils.training import checkpoint, optimizers
from utils.training.checkpoint import Checkpoint, Writer, newest, save, snapshot
from utils.training.state import BestRecord, RunState, Sizes

ROOT = Path(__file__).parents[3]
KEEP = 2


def tensors_of(step: int) -> dict[str, dict[str, torch.Tensor]]:
    """Two small groups that tell their step."""
    return {
        "generator": {"layers.0.weight": torch.full((2, 3), float(step)), "layers.0.bias": torch.arange(2.0)},
        "critic_optimizer": {"exp_avg/layers.0.weight": torch.full((2,), -float(step))},
    }


def state_of(step: int) -> RunState:
    return RunState(step, {"data.name": "digits"}, best=BestRecord("Fréchet distance", step / 3, step, False))


def write(folder: Path, *steps: int, keep: int = KEEP) -> Path:
    """Commit the steps one after the other and give the last one's path."""
    for step in steps:
        path = save(folder, tensors_of(step), state_of(step), keep)
    return path


class Warnings(list):
    """What was said to ``warn``."""

    __call__ = list.append


def assert_reads(folder: Path, step: int, passed_over: list[Path] = ()) -> Checkpoint:
    """The newest good checkpoint is that of ``step``, whole; warnings name the bad ones, the newest first."""
    said = Warnings()
    found = newest(folder, said)
    assert found is not None
    assert found.path == folder / f"step-{step:08d}"
    assert found.state == state_of(step)
    want = tensors_of(step)
    assert found.tensors.keys() == want.keys()
    for name, group in want.items():
        assert found.tensors[name].keys() == group.keys()
        assert all(torch.equal(found.tensors[name][key], value) for key, value in group.items())
    assert len(said) == len(passed_over)
    for text, path in zip(said, passed_over, strict=True):
        assert str(path) in text
    return found


def steps_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- Round trips

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
        12, {"a.b": None, "a.c": [0.1, 2], "a.d": float("inf")}, (3, 4), Sizes((3, 8, 8), 10), 7, 5, "5f", best
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


# --- Networks and optimisers


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


# --- Damage

FILES = ["generator.safetensors", "critic_optimizer.safetensors", "state.json", "manifest.json"]


def flip(path: Path, position: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(data)


DAMAGE = {
    "truncated-to-nothing": lambda path: path.write_bytes(b""),
    "truncated-by-half": lambda path: os.truncate(path, path.stat().st_size // 2),
    "truncated-by-a-byte": lambda path: os.truncate(path, path.stat().st_size - 1),
    "longer-by-a-byte": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "first-bit-flipped": lambda path: flip(path, 0),
    "middle-bit-flipped": lambda path: flip(path, path.stat().st_size // 2, 3),
    "last-bit-flipped": lambda path: flip(path, -1),
    "removed": lambda path: path.unlink(),
    "turned-into-a-folder": lambda path: (path.unlink(), path.mkdir()),
    "dangling-link": lambda path: (path.unlink(), path.symlink_to("nowhere")),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file_is_passed_over_with_a_warning(tmp_path, file, damage):
    bad = write(tmp_path, 1, 2)
    damage(bad / file)
    assert_reads(tmp_path, 1, passed_over=[bad])


@pytest.mark.parametrize("file", FILES)
def test_a_warning_is_one_line(tmp_path, file):
    bad = write(tmp_path, 1, 2)
    (bad / file).write_bytes(b"\xff\n\xfe")
    said = Warnings()
    newest(tmp_path, said)
    assert len(said) == 1
    assert "\n" not in said[0]


@pytest.mark.parametrize("file", FILES)
def test_a_flipped_bit_in_any_byte_is_found(tmp_path, file):
    bad = write(tmp_path, 1, 2)
    data = (bad / file).read_bytes()
    for position in range(len(data)):
        flip(bad / file, position, position % 8)
        assert newest(tmp_path, Warnings()).state.step == 1, f"bit {position % 8} of byte {position}"
        (bad / file).write_bytes(data)
    assert_reads(tmp_path, 2)


@pytest.mark.parametrize("file", FILES)
def test_a_file_cut_anywhere_is_found(tmp_path, file):
    bad = write(tmp_path, 1, 2)
    data = (bad / file).read_bytes()
    for length in range(0, len(data), 3):
        (bad / file).write_bytes(data[:length])
        assert newest(tmp_path, Warnings()).state.step == 1, f"cut to {length} bytes"


@pytest.mark.parametrize(
    "manifest",
    [
        "", "{", "{}", "[]", "null", "5", '"text"', '["state.json"]', '{"state.json": null}', '{"state.json": {}}',
        '{"state.json": {"size": 1}}', '{"": {"size": 0, "sha256": ""}}', '{"absent": {"size": 0, "sha256": ""}}',
        '{"a\\u0000b": {"size": 0, "sha256": ""}}', "\x00\x00",
    ],
)  # fmt: skip
def test_a_manifest_of_garbage(tmp_path, manifest):
    bad = write(tmp_path, 1, 2)
    (bad / "manifest.json").write_text(manifest)
    assert_reads(tmp_path, 1, passed_over=[bad])


def write_state(path: Path, text: bytes) -> None:
    """Put another state into a checkpoint, and into its manifest."""
    (path / "state.json").write_bytes(text)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["state.json"] = {"size": len(text), "sha256": hashlib.sha256(text).hexdigest()}
    (path / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("text", [b"{}", b"[]", b'{"step": "2"}', b'{"step": 2, "sizes": 1}', b'{"step": 3}'])
def test_a_state_of_wrong_names_or_types_is_passed_over(tmp_path, text):
    """Whole by its sum, and not what such a folder holds: written by something else."""
    bad = write(tmp_path, 1, 2)
    write_state(bad, text)
    assert_reads(tmp_path, 1, passed_over=[bad])


OUTSIDE = ["/etc/hostname", "../secret.safetensors", "sub/a.safetensors", "..", ".", "state.json/", "state.json\n"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_manifest_names_no_file_outside_of_its_folder(tmp_path, monkeypatch, name):
    bad = write(tmp_path, 1, 2)
    data = b"secret"
    (tmp_path / "secret.safetensors").write_bytes(data)
    (bad / "sub").mkdir()
    (bad / "sub/a.safetensors").write_bytes(data)
    manifest = json.loads((bad / "manifest.json").read_text())
    manifest[name] = {"size": 6, "sha256": hashlib.sha256(data).hexdigest()}
    (bad / "manifest.json").write_text(json.dumps(manifest))
    original, read = checkpoint._content, []
    monkeypatch.setattr(checkpoint, "_content", lambda path, *size: read.append(path.name) or original(path, *size))
    assert_reads(tmp_path, 1, passed_over=[bad])
    assert set(read) == set(FILES)


HOSTILE = {
    "a-pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "a-link-to-a-pipe": lambda path: (path.unlink(), os.mkfifo(path.parent / "pipe"), path.symlink_to("pipe")),
    "a-device": lambda path: (path.unlink(), path.symlink_to("/dev/zero")),
    "a-link-to-itself": lambda path: (path.unlink(), path.symlink_to(path.name)),
    "a-file-without-end": lambda path: os.truncate(path, 2**40),
    "nested-lists": lambda path: path.write_bytes(b"[" * 10**5),
    "nested-sections": lambda path: path.write_bytes(b'{"a":' * 10**5),
    "a-number-of-many-digits": lambda path: path.write_bytes(b'{"step": ' + b"9" * 10**4 + b"}"),
}


@pytest.mark.parametrize("spoil", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("file", FILES)
def test_what_is_no_regular_file_of_its_size_is_not_read(tmp_path, file, spoil):
    """Neither to wait for a pipe nor to read a device, and no endless file into memory."""
    bad = write(tmp_path, 1, 2)
    spoil(bad / file)
    if (bad / file).is_file() and file == "state.json" and (bad / file).stat().st_size < 2**20:
        write_state(bad, (bad / file).read_bytes())  # whole by its sum
    assert_reads(tmp_path, 1, passed_over=[bad])


@pytest.mark.parametrize("size", [None, "6", True, 6.0, -1, [6]])
@pytest.mark.parametrize("digest", [None, 7, []])
def test_a_manifest_of_wrong_types(tmp_path, size, digest):
    bad = write(tmp_path, 1, 2)
    (bad / "manifest.json").write_text(json.dumps({"state.json": {"size": size, "sha256": digest}}))
    assert_reads(tmp_path, 1, passed_over=[bad])


def test_a_state_of_a_later_format_stops_the_run(tmp_path):
    """Going on from an older checkpoint would set the newer ones aside."""
    later = write(tmp_path, 1, 2)
    write_state(later, b'{"step": 2, "format": 99}')
    with pytest.raises(UserError, match="format 99"):
        newest(tmp_path, Warnings())


PASSING = [errno.EIO, errno.EACCES, errno.ESTALE, errno.EPERM, errno.EINTR, errno.ENFILE, errno.ETIMEDOUT]


@pytest.mark.parametrize("code", PASSING, ids=errno.errorcode.get)
@pytest.mark.parametrize("what", [*FILES, "the-folder", "the-folder-of-all"])
def test_what_cannot_be_read_at_present_is_no_damage(tmp_path, monkeypatch, code, what):
    """A disk, or rights, may come back: neither is an older checkpoint used nor is anyone told to remove one."""
    folder = tmp_path / "checkpoints"
    path = write(folder, 1, 2)

    def failing(original):
        def call(where, *arguments, **options):
            if Path(where) == {"the-folder": path, "the-folder-of-all": folder}.get(what, path / what):
                raise OSError(code, os.strerror(code), str(where))
            if what == "the-folder" and Path(where).parent == path:
                raise OSError(code, os.strerror(code), str(where))
            return original(where, *arguments, **options)

        return call

    with monkeypatch.context() as patch:
        for name in ("open", "scandir", "stat"):
            patch.setattr(os, name, failing(getattr(os, name)))
        said = Warnings()
        with pytest.raises(UserError, match=r"cannot be read at present .* give the same command again") as caught:
            newest(folder, said)
        assert said == []
        assert str(path if what in FILES else folder) in str(caught.value)
        assert "remove" not in str(caught.value)
        assert "\n" not in str(caught.value)
    assert_reads(folder, 2)


def test_an_empty_folder_of_a_step_is_passed_over(tmp_path):
    write(tmp_path, 1)
    bad = tmp_path / "step-00000002"
    bad.mkdir()
    assert_reads(tmp_path, 1, passed_over=[bad])


def test_several_bad_ones_are_all_named_the_newest_first(tmp_path):
    write(tmp_path, 1, 2, 3, keep=3)
    bad = [tmp_path / f"step-0000000{step}" for step in (3, 2)]
    for path in bad:
        (path / "state.json").unlink()
    assert_reads(tmp_path, 1, passed_over=bad)


def test_no_good_one_is_an_error_and_not_a_new_start(tmp_path):
    write(tmp_path, 1, 2)
    for path in tmp_path.iterdir():
        flip(path / "generator.safetensors", -1)
    said = Warnings()
    with pytest.raises(UserError) as caught:
        newest(tmp_path, said)
    text = str(caught.value)
    assert len(said) == 2
    assert "2 checkpoints" in text
    assert str(tmp_path) in text
    assert "\n" not in text


# --- What is kept


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


# --- Interrupted writing

LEFTOVERS = {
    "empty": lambda path: path.mkdir(),
    "half-written": lambda path: (path.mkdir(), (path / "generator.safetensors").write_bytes(b"half")),
    "complete": lambda path: shutil.copytree(path.parent / "step-00000001", path),
    "a-file": lambda path: path.write_text("x"),
    "a-link": lambda path: path.symlink_to("step-00000001"),
    "a-dangling-link": lambda path: path.symlink_to("nowhere"),
    "with-folders-in-it": lambda path: (path / "a" / "b").mkdir(parents=True),
}


@pytest.mark.parametrize("leave", LEFTOVERS.values(), ids=LEFTOVERS)
def test_a_leftover_is_harmless_and_replaced(tmp_path, leave):
    write(tmp_path, 1)
    leave(tmp_path / ".step-00000002.partial")
    assert_reads(tmp_path, 1)
    write(tmp_path, 2)
    assert_reads(tmp_path, 2)
    assert steps_in(tmp_path) == ["step-00000001", "step-00000002"]


def test_only_a_leftover_is_no_checkpoint(tmp_path):
    (tmp_path / ".step-00000002.partial").mkdir()
    assert newest(tmp_path, Warnings()) is None


def half_of_a_file(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data[: len(data) // 2])


def half_of_a_folder(path: Path, **options) -> None:
    first = next(Path(path).iterdir(), None)
    if first is not None:
        first.unlink()


# Everything that a save does to the disk, and what half of it looks like where it can be cut in two.
VISIBLE = {
    "mkdir": (Path, None),
    "write_bytes": (Path, half_of_a_file),
    "fsync": (os, None),
    "rename": (Path, None),
    "rmtree": (shutil, half_of_a_folder),
}


def kill_at(name: str, call: int, when: str) -> None:
    """SIGKILL this process before, halfway through, or after the ``call``-th call of a function."""
    where, half = VISIBLE[name]
    original, calls = getattr(where, name), iter(range(1, 10**6))

    def stand_in(*arguments, **options):
        if next(calls) != call:
            return original(*arguments, **options)
        if when == "after":
            original(*arguments, **options)
        elif when == "halfway":
            half(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")

    setattr(where, name, stand_in)


def killed(folder: Path, step: int, name: str, call: int, when: str) -> bool:
    """Save in a process that is killed at that moment; False if that moment was never reached."""
    child = os.fork()
    if child == 0:
        kill_at(name, call, when)
        write(folder, step)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL)
    return status == signal.SIGKILL


MOMENTS = [(name, when) for when in ("before", "halfway", "after") for name in VISIBLE]


@pytest.mark.parametrize(("name", "when"), [m for m in MOMENTS if m[1] != "halfway" or VISIBLE[m[0]][1]])
def test_a_save_that_is_killed_is_committed_or_not_there(tmp_path, name, when):
    """At every call of everything that touches the disk: files, manifest, rename, pruning. The folder has a leftover
    of another kill to remove, and a checkpoint to prune.
    """
    for call in range(1, 100):
        folder = tmp_path / str(call)
        write(folder, 1, 2)
        (folder / ".step-00000003.partial").mkdir()
        (folder / ".step-00000003.partial" / "x").touch()
        if not killed(folder, 3, name, call, when):
            break  # every such call has been tried
        assert_reads(folder, 3 if (folder / "step-00000003").is_dir() else 2)  # without a warning
        write(folder, 3)
        assert_reads(folder, 3)
        write(folder, 4)
        assert steps_in(folder) == ["step-00000003", "step-00000004"]
    assert call > 1


def test_the_first_save_that_is_killed_leaves_an_empty_folder(tmp_path):
    assert killed(tmp_path, 1, "rename", 1, "before")
    assert newest(tmp_path, Warnings()) is None
    write(tmp_path, 1)
    assert_reads(tmp_path, 1)


def test_everything_is_on_the_disk_before_the_rename_and_the_rename_before_the_pruning(tmp_path, monkeypatch):
    """A power cut keeps no order among writes but that of fsync."""
    folder, events = tmp_path / "checkpoints", []
    write(folder, 1, 2)
    sync, rename, rmtree = os.fsync, Path.rename, shutil.rmtree

    def noted_sync(handle):
        events.append(("sync", os.fstat(handle).st_ino))
        sync(handle)

    def noted_rename(path, target):
        inside = {file.name: file.stat().st_ino for file in path.iterdir()}
        events.append(("rename", inside, path.stat().st_ino))
        return rename(path, target)

    def noted_rmtree(path, **options):
        events.append(("remove", Path(path).name))
        rmtree(path, **options)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(Path, "rename", noted_rename)
    monkeypatch.setattr(shutil, "rmtree", noted_rmtree)
    write(folder, 3)

    kinds = [event[0] for event in events]
    at = kinds.index("rename")
    _, inside, partial = events[at]
    assert kinds.count("rename") == 1
    assert inside.keys() == set(FILES)
    before = [event[1] for event in events[:at]]
    assert all(number in before for number in inside.values())
    assert partial in before
    data = [before.index(number) for name, number in inside.items() if name != "manifest.json"]
    assert before.index(inside["manifest.json"]) > max(data)
    assert events[at + 1 :] == [("sync", folder.stat().st_ino), ("remove", "step-00000001")]


# --- Writing that fails


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT], ids=errno.errorcode.get)
@pytest.mark.parametrize("name", ["mkdir", "write_bytes", "fsync", "rename"])
def test_a_failure_to_write_is_a_sentence_and_keeps_the_previous_one(tmp_path, monkeypatch, name, code):
    write(tmp_path, 1, 2)

    def fail(*arguments, **options):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(VISIBLE[name][0], name, fail)
    with pytest.raises(UserError) as caught:
        write(tmp_path, 3)
    text = str(caught.value)
    assert "step-00000003" in text
    assert os.strerror(code) in text
    assert "\n" not in text
    monkeypatch.undo()
    assert_reads(tmp_path, 2)
    write(tmp_path, 3)
    assert_reads(tmp_path, 3)


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP], ids=errno.errorcode.get)
@pytest.mark.parametrize("kind", ["folders", "files"])
def test_a_file_system_that_cannot_flush_folders_takes_checkpoints(tmp_path, monkeypatch, code, kind):
    """CIFS; but files must be flushed."""
    sync = os.fsync

    def fail(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode) == (kind == "folders"):
            raise OSError(code, os.strerror(code))
        sync(handle)

    monkeypatch.setattr(os, "fsync", fail)
    if kind == "folders":
        write(tmp_path / "new", 1, 2, 3)
        assert_reads(tmp_path / "new", 3)
    else:
        with pytest.raises(UserError, match=os.strerror(code)):
            write(tmp_path / "new", 1)


def test_a_disk_that_is_really_full(tmp_path):
    """A limit on file sizes stands for it."""
    write(tmp_path, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**14, hard))
    try:
        with pytest.raises(UserError) as caught:
            save(tmp_path, {"generator": {"x": torch.zeros(2**16)}}, RunState(2), KEEP)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert_reads(tmp_path, 1)


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(UserError, match="checkpoints"):
        write(tmp_path / "checkpoints", 1)


def test_a_pruning_that_fails_is_no_failure(tmp_path, monkeypatch):
    """The checkpoint is committed by then."""
    write(tmp_path, 1, 2)
    rmdir = os.rmdir

    def fail(path, *arguments, **options):
        if "step-00000001" in str(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        rmdir(path, *arguments, **options)

    monkeypatch.setattr(os, "rmdir", fail)
    write(tmp_path, 3)
    assert_reads(tmp_path, 3)


# --- Behind the training


def test_a_snapshot_does_not_follow_the_training():
    x = torch.arange(24.0).reshape(1, 2, 3, 4).contiguous(memory_format=torch.channels_last)
    copies = snapshot({"a": {"x": x}, "b": {}})
    x.zero_()
    assert torch.equal(copies["a"]["x"], torch.arange(24.0).reshape(1, 2, 3, 4))
    assert copies["b"] == {}


def test_jobs_are_done_one_after_the_other_and_nobody_waits_for_the_first():
    writer, done, gate = Writer(), [], threading.Event()

    def first():
        gate.wait(60)
        done.append(1)

    writer.submit(first)
    writer.check()
    assert done == []
    gate.set()
    writer.submit(lambda: done.append(2))  # at most one is in flight
    assert done[0] == 1
    writer.wait()
    assert done == [1, 2]


@pytest.mark.parametrize("method", ["check", "wait", "submit"])
def test_an_error_of_a_job_is_raised_in_the_loop_once(method):
    writer = Writer()

    def fail():
        raise UserError("the disk is full")

    writer.submit(fail)
    while not writer._job.done():
        time.sleep(0.001)
    with pytest.raises(UserError, match="the disk is full"):
        getattr(writer, method)(*[lambda: None] * (method == "submit"))
    writer.check()
    writer.wait()


# --- Nothing is unpickled


class Malicious:
    """Unpickling it makes a file."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


def plant(folder: Path, name: str, data: bytes, listed: bool) -> None:
    (folder / name).write_bytes(data)
    if listed:
        path = folder / "manifest.json"
        manifest = json.loads(path.read_text())
        manifest[name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        path.write_text(json.dumps(manifest))


@pytest.mark.parametrize("listed", [True, False], ids=["in-the-manifest", "beside-it"])
@pytest.mark.parametrize(
    "name",
    ["evil.pkl", "evil.pt", "data.safetensors", "generator.safetensors", "generator.pt", "state.json", "manifest.json"],
)
@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_a_pickle_is_never_opened(tmp_path, form, name, listed):
    target = tmp_path / "executed"
    if form == "pickle":
        data = pickle.dumps(Malicious(target))
    else:
        torch.save(Malicious(target), tmp_path / "made.pt")
        data = (tmp_path / "made.pt").read_bytes()
    folder = tmp_path / "checkpoints"
    bad = write(folder, 1, 2)
    plant(bad, name, data, listed and name != "manifest.json")
    said = Warnings()
    found = newest(folder, said)
    assert not target.exists()
    if name in FILES or listed:
        assert found.state.step == 1
        assert len(said) == 1
    else:
        assert_reads(folder, 2)


def test_the_malicious_pickle_would_have_worked(tmp_path):
    pickle.loads(pickle.dumps(Malicious(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()


SOURCES = sorted(
    path for pattern in ("*.py", "utils/**/*.py", "models/*.py", "adversarial/*.py") for path in ROOT.glob(pattern)
)
UNPICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def unpickling(source: str) -> list[str]:
    """What in a Python source imports an unpickler or may unpickle through torch or numpy."""
    tree = ast.parse(source)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    safe = {call.func for call in calls if any(_forbids_pickle(keyword) for keyword in call.keywords)}
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                bad = bool(UNPICKLERS & {alias.name.split(".")[0] for alias in names})
            case ast.ImportFrom(module="torch" | "numpy", names=names):
                bad = "load" in {alias.name for alias in names}
            case ast.ImportFrom(module=module):
                bad = (module or "").split(".")[0] in UNPICKLERS
            case ast.Attribute(value=ast.Name(id="torch"), attr="load"):
                bad = True
            case ast.Attribute(value=ast.Name(id="numpy" | "np"), attr="load"):
                bad = node not in safe
            case ast.keyword(arg="allow_pickle"):
                bad = not _forbids_pickle(node)
            case _:
                bad = False
        if bad:
            found.append(ast.unparse(node))
    return found


def _forbids_pickle(keyword: ast.keyword) -> bool:
    return ast.unparse(keyword) == "allow_pickle=False"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_unpickles(path):
    assert ROOT / "utils" / "training" / "checkpoint.py" in SOURCES
    assert unpickling(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "import joblib.memory as m", "from pickle import loads", "from joblib.memory import Memory",
        "from torch import load", "from numpy import load", "torch.load(p)", "torch.load(p, weights_only=True)",
        "read = torch.load", "numpy.load(p)", "np.load(p, None)", "numpy.load(p, allow_pickle=True)",
        "numpy.load(p, allow_pickle=flag)", "numpy.load(p, **{'allow_pickle': False})", "read = numpy.load",
        "read(p, allow_pickle=True)", "numpy.load(q) + f(allow_pickle=False)",
    ],
)  # fmt: skip
def test_unpickling_would_be_found(source):
    assert unpickling(source) != []


def test_numpy_may_load_where_it_is_told_not_to_unpickle():
    assert unpickling("with numpy.load(p, allow_pickle=False) as content: pass") == []
