"""Short runs for tests: tiny networks, few steps, everything in a temporary folder."""

import functools
import json
import os
import signal
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors.torch import load_file

import train
from utils.config import loading as config
from utils.config.sections import Config
from utils.run.signals import StopSignals
from utils.training.players import Players
from utils.training.processes import ProcessGroup

ROOT = Path(__file__).parent.parent
TINY = {
    "dcgan": ["sample.count=4", "model.generator_width=4", "model.critic_width=4"],
    "resnet_gan": ["sample.count=4", "model.generator_width=2", "model.critic_width=2"],
    "mlp": ["model.width=8"],
    "r3gan": ["sample.count=4", "model.widths=[8,8]", "model.group_width=4", "data.resolution=8"],
    "stylegan2": [
        "sample.count=4",
        "model.channel_max=4",
        "model.latent_dim=8",
        "model.mapping_layers=1",
        "data.resolution=8",
    ],
    "dense": ["model.width=8", "model.critic_width=8"],
    "lenet": ["model.channels=4", "model.width=16", "model.critic_width=8"],
    "resnet": [
        "model.network=resnet18",
        "model.weights=none",
        "model.width=8",
        "model.critic_width=8",
        "data.resolution=32",
    ],
}
SMALL = ["train.batch_size=8", "evaluate.samples=32"]
DEVICE = ["run.device=auto", "run.deterministic=true"] if torch.cuda.is_available() else ["run.device=cpu"]
QUICK = ["train.steps=12", "log.every=4", "sample.every=6", "checkpoint.every=5"]


def arguments(folder: Path, *overrides: str, recipe: str = "configs/digits.yaml") -> list[str]:
    """The command line of a tiny run of ``recipe`` in ``folder``."""
    tiny = TINY[loaded(ROOT / recipe).model.name]
    return [str(ROOT / recipe), *tiny, *SMALL, *QUICK, f"run.dir={folder}", *DEVICE, *overrides]


@functools.cache
def loaded(recipe: Path) -> Config:
    """The config of a recipe as it stands, read once: it is not to be changed."""
    return config.load(recipe, [])


def run(folder: Path, *overrides: str, recipe: str = "configs/digits.yaml") -> int:
    """Train in this process and return the exit code."""
    return train.main(arguments(folder, *overrides, recipe=recipe))


def stand_in(registry: dict, name: str, read: Callable) -> Callable:
    """A data set of noise by the ``name`` of one whose files tests do not have, with the same keys of data.*."""

    @functools.wraps(registry[name])
    def stand_in(config, seed):
        return read(config, seed)

    return stand_in


def alone() -> StopSignals:
    """The signals of a run of one process."""
    return StopSignals(ProcessGroup(SimpleNamespace(num_processes=1, process_index=0, device=torch.device("cpu"))))


def fingerprint(folder: Path, name: str = "digits", step: int | None = None) -> dict[str, str]:
    """The sha256 of every file of a run's newest checkpoint (or of ``step``'s)."""
    found = sorted((folder / name / "checkpoints").glob("step-*" if step is None else f"step-{step:08d}"))
    manifest = json.loads((found[-1] / "manifest.json").read_text())
    return {name: entry["sha256"] for name, entry in manifest.items()}


def networks(folder: Path, step: int, recipe: str = "digits") -> dict[str, torch.Tensor]:
    """All tensors of the networks of a checkpoint."""
    path = folder / recipe / f"checkpoints/step-{step:08d}"
    names = ("generator", "critic", "generator_ema")
    return {f"{name}/{key}": x for name in names for key, x in load_file(path / f"{name}.safetensors").items()}


def assert_close(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], bound: float) -> None:
    assert ours.keys() == theirs.keys()
    worst = max((float((ours[key] - theirs[key]).abs().max()), key) for key in ours)
    assert worst[0] <= bound, worst


def at_step(monkeypatch, step: int, what: Callable[[Players], None]) -> None:
    """Call ``what`` with the players when ``train.train_step`` has done step ``step`` (counted from 0 from now on)."""
    original, calls = train.train_step, count()

    def train_step(cfg, game, players, *more):
        original(cfg, game, players, *more)
        if next(calls) == step:
            what(players)

    monkeypatch.setattr(train, "train_step", train_step)


def signal_at(monkeypatch, step: int, number: int = signal.SIGTERM) -> None:
    """Send this process a signal in step ``step`` (counted from 0 from now on)."""
    at_step(monkeypatch, step, lambda players: os.kill(os.getpid(), number))
