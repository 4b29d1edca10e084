"""Small checkpoints for tests, and what reading one of them must give."""

from pathlib import Path

import torch

from utils.training.checkpoint import Checkpoint, newest, save
from utils.training.state import BestRecord, RunState

ROOT = Path(__file__).parents[3]
KEEP = 2
FILES = ["generator.safetensors", "critic_optimizer.safetensors", "state.json", "manifest.json"]


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


def flip(path: Path, position: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(data)
