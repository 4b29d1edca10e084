"""From a data set to the rounds of every step, as a function of (seed, step)."""

from collections.abc import Iterator
from functools import lru_cache
from itertools import count

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from adversarial.games import Batch
from utils.config import Config
from utils.datasets import Resident, Streamed, to_images
from utils.errors import UserError
from utils.processes import memory_format
from utils.randomness import Draw, generator

Round = tuple[Batch, Draw]


def rounds(
    config: Config, samples: Resident | Streamed, start: int, rows: slice, device: torch.device
) -> Iterator[list[Round]]:
    """Yield the ``update.critic_steps`` rounds of step ``start``, ``start + 1``, ... without end.

    ``rows`` are this process's rows of each global batch.
    """
    seed, size, critic_steps = config.seed, config.train.batch_size, config.update.critic_steps
    indices = (
        indices_at(seed, len(samples), (step * critic_steps + i) * size, size)[rows]
        for step in count(start)
        for i in range(critic_steps)
    )
    if isinstance(samples, Resident):
        source = _resident(samples, indices, device)
    else:
        source = _streamed(samples, indices, device, config.data.workers)
    layout = memory_format(config)
    for step in count(start):
        drawn: list[Round] = []
        for i in range(critic_steps):
            draw = Draw((seed, step, i), size, rows, device)
            x, label = next(source)
            drawn.append((Batch(_prepared(x, draw, config.data.mirror, layout), label), draw))
        yield drawn


def indices_at(seed: int, n: int, position: int, length: int) -> Tensor:
    """Sample indices at ``position``, ..., ``position + length - 1`` of an endless shuffled reading of ``n`` samples.

    Every epoch is a permutation of its own; a batch may straddle epochs, so no sample is ever dropped.
    """
    parts = []
    while length > 0:
        epoch, offset = divmod(position, n)
        part = permutation(seed, epoch, n)[offset : offset + length]
        parts.append(part)
        position, length = position + len(part), length - len(part)
    return torch.cat(parts)


@lru_cache(maxsize=2)
def permutation(seed: int, epoch: int, n: int) -> Tensor:
    """The order of ``n`` samples in an epoch."""
    return torch.randperm(n, generator=generator(seed, "order", epoch))


def _resident(samples: Resident, indices: Iterator[Tensor], device: torch.device) -> Iterator[tuple]:
    x = samples.x.to(device)
    label = None if samples.label is None else samples.label.to(device)
    for index in indices:
        index = index.to(device, non_blocking=True)
        yield x[index], None if label is None else label[index]


def _streamed(samples: Streamed, indices: Iterator[Tensor], device: torch.device, workers: int) -> Iterator[tuple]:
    # The order is a function of the step, given to the loader from outside: workers only decode.
    loader = DataLoader(
        _WithIndex(samples),
        batch_sampler=(index.tolist() for index in indices),
        num_workers=workers,
        collate_fn=_stacked,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # or the loader would draw from the global one
    )
    for batch in loader:
        if isinstance(batch, UserError):
            raise batch
        x, index = batch
        label = None if samples.label is None else samples.label[index].to(device, non_blocking=True)
        yield x.to(device, non_blocking=True), label


def _stacked(items: list[tuple[Tensor | UserError, int]]) -> tuple[Tensor, Tensor] | UserError:
    """One tensor a batch, made in the worker; or the first error, which is for the main process to raise."""
    errors = [x for x, _ in items if isinstance(x, UserError)]
    if errors:
        return errors[0]
    return torch.stack([x for x, _ in items]), torch.tensor([index for _, index in items])


class _WithIndex(torch.utils.data.Dataset):
    """A sample together with its index, by which the main process finds the label."""

    def __init__(self, samples: Streamed):
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int):
        return self.samples[index], index


def _prepared(x: Tensor, draw: Draw, mirror: bool, memory_format: torch.memory_format) -> Tensor:
    """Images from uint8 to [-1, 1], mirrored with probability 1/2 if asked for; points as they are."""
    if x.dtype != torch.uint8:
        return x
    x = to_images(x, x.device).contiguous(memory_format=memory_format)
    if mirror:
        x = torch.where(draw.uniform("mirror", (1, 1, 1)) < 0.5, x.flip(3), x)
    return x
