"""What is known of a run before it is started: how its images look, and what it will take, from a few steps."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from utils import pictures
from utils.config.sections import Config
from utils.data.samples import Resident, Samples, to_images
from utils.errors import UserError

SHOWN, COLUMNS = 64, 8  # images of a contact sheet
STEPS, PATIENCE = 5, 30.0  # steps that are timed, at least; seconds after which no further one begins


def contact_sheet(data: Any) -> Tensor | None:
    """Training images, and those of a target domain below, spread evenly over each set: uint8 ``[3, H, W]``.

    None for points and vectors. Raises UserError for an image that cannot be used.
    """
    if len(data.shape) != 3:
        return None
    parts = [samples for samples in (data.train, data.target) if samples is not None]
    images = torch.cat([_spread(samples, SHOWN // len(parts)) for samples in parts])
    return pictures.picture(to_images(images, torch.device("cpu")), COLUMNS, aspect=getattr(data, "aspect", None))


def _spread(samples: Samples, count: int) -> Tensor:
    index = torch.arange(count) * len(samples) // count
    chosen = samples.part(index.unique())
    if isinstance(chosen, Resident):
        return chosen.x
    images = [chosen[i] for i in range(len(chosen))]
    for image in images:
        if isinstance(image, UserError):
            raise image
    return torch.stack(images)


def seconds_a_step(config: Config, step: Callable[[int], None], device: torch.device) -> float:
    """The mean time of ``step(index)`` from its second call on, over the cycle of all lazy penalties if that is short.

    The first call, which allocates memory and compiles, is not counted.
    """
    count = max(STEPS, *config.penalty.every.values()) if config.penalty.every else STEPS
    step(0)
    _wait(device)
    begin = time.perf_counter()
    for done in range(1, count + 1):
        step(done)
        _wait(device)
        if time.perf_counter() - begin > PATIENCE:
            break
    return (time.perf_counter() - begin) / done


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def estimate(config: Config, seconds: float, mib: float, device: torch.device) -> str:
    """A sentence on what the whole run will take at so many seconds a step."""
    size = config.train.batch_size
    speed = f"{seconds:.3g} s a step of {size} samples, {size / seconds:.1f} samples/s, {mib:.0f} MiB on {device.type}"
    if config.train.steps is None:
        return f"{speed}; train.steps=null has no end."
    return (
        f"{speed}: about {_duration(seconds * config.train.steps)} for train.steps={config.train.steps}, evaluations "
        "and pictures not counted."
    )


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"
