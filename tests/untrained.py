"""Runs that have not begun to train, in memory: a small network of every family; and networks that have sizes alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import torch
from torch.nn.utils.parametrizations import _SpectralNorm

from tests.models.image_pairs import away_from_zero
from tests.runs import ROOT, SMALL, TINY
from utils.config import loading as config
from utils.config.identity import identity
from utils.run.folder import RunFolder
from utils.run.opening import OpenRun
from utils.tasks.registry import task_of
from utils.training import checkpoint
from utils.training.players import Players
from utils.training.state import RunState, Sizes

POINTS, VECTORS, GRAY, COLOURS = Sizes((2,), 8), Sizes((2,), 2), Sizes((1, 8, 8), 10), Sizes((3, 32, 32), 31)
RECIPES = {
    "mlp": ("ring", POINTS, []),
    "dcgan": ("digits", GRAY, []),
    "resnet_gan": ("cifar10_sngan", Sizes((3, 32, 32), 10), []),
    "r3gan": ("digits", GRAY, ["model.name=r3gan", "game.conditional=true"]),
    "stylegan2": ("digits", GRAY, ["model.name=stylegan2", "game.conditional=true"]),
    "dense": ("moons", VECTORS, []),
    "lenet": ("mnist_usps_adda", Sizes((1, 28, 28), 10), ["game.pretrained=nowhere"]),
    "resnet": ("office", COLOURS, []),
}


def untrained(folder: Path, family: str) -> OpenRun:
    """A run of a family that has not begun to train; its average differs from its generator."""
    recipe, sizes, keys = RECIPES[family]
    where = [f"run.dir={folder}", f"run.name={family}", "run.device=cpu"]
    cfg = config.load(ROOT / f"configs/{recipe}.yaml", [*keys, *TINY[family], *SMALL, *where])
    task = task_of(cfg)
    players = Players.build(cfg, *task.networks(cfg, sizes), torch.device("cpu"))
    away_from_zero(players.average)
    return OpenRun(RunFolder.of(cfg), cfg, task, players, RunState(5, identity(cfg), sizes=sizes))


def saved(run: OpenRun) -> Path:
    """The same run in its folder, as a checkpoint."""
    run.folder.path.mkdir(parents=True)
    run.folder.record(run.config)
    checkpoint.save(run.folder.checkpoints, run.players.tensors(), run.state)
    return run.folder.path


@contextmanager
def sizes_alone() -> Iterator[None]:
    """A block in which networks are built on a device without memory, and so without spectral norm's first iterations,
    which would take longer there than all else.
    """
    with torch.device("meta"), patch.object(_SpectralNorm, "_power_method"):
        yield
