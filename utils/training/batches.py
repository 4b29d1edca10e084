"""From a data set to the rounds of every step, as a function of (seed, step)."""

from collections.abc import Iterator
from functools import lru_cache
from itertools import count, repeat

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from adversarial.games import Batch
from utils.config.sections import Config
from utils.data.datasets import Resident, Samples, Streamed, to_images
from utils.data.randomness import Draw, rng
from utils.errors import UserError
from utils.training.processes import memory_format

Round = tuple[Batch, Draw]
Triple = tuple[Tensor, Tensor | None, Tensor | None]  # samples, labels, attributes


def rounds(
    config: Config, samples: Samples, start: int, rows: slice, device: torch.device, target: Samples | None = None
) -> Iterator[list[Round]]:
    """Yield the ``update.critic_steps`` rounds of step ``start``, ``start + 1``, ... without end.

    ``rows`` are this process's rows of each global batch. Unlabelled samples of a ``target`` domain come in an order of
    their own, as many as of the first.
    """
    critic_steps, layout = config.update.critic_steps, memory_format(config)
    ours = _stream(config, samples, "order", start, rows, device)
    theirs = repeat((None, None, None)) if target is None else _stream(config, target, "target", start, rows, device)
    for step in count(start):
        drawn: list[Round] = []
        for i in range(critic_steps):
            draw = Draw((config.seed, step, i), config.train.batch_size, rows, device)
            (x, label, attribute), (other, _, _) = next(ours), next(theirs)
            x = _prepared(x, draw, "mirror", config.data.mirror, layout)
            if other is not None:
                other = _prepared(other, draw, "mirror target", config.data.mirror, layout)
            drawn.append((Batch(x, label, other, attribute), draw))
        yield drawn


def _stream(
    config: Config, samples: Samples, order: str, start: int, rows: slice, device: torch.device
) -> Iterator[Triple]:
    size, critic_steps = config.train.batch_size, config.update.critic_steps
    indices = (
        indices_at(config.seed, len(samples), (step * critic_steps + i) * size, size, order)[rows]
        for step in count(start)
        for i in range(critic_steps)
    )
    if isinstance(samples, Resident):
        return _resident(samples, indices, device)
    return _streamed(samples, indices, device, config.data.workers)


def indices_at(seed: int, n: int, position: int, length: int, order: str = "order") -> Tensor:
    """Sample indices at ``position``, ..., ``position + length - 1`` of an endless shuffled reading of ``n`` samples.

    Every epoch is a permutation of its own; a batch may straddle epochs, so no sample is ever dropped.
    """
    parts = []
    while length > 0:
        epoch, offset = divmod(position, n)
        part = permutation(seed, epoch, n, order)[offset : offset + length]
        parts.append(part)
        position, length = position + len(part), length - len(part)
    return torch.cat(parts)


@lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, n: int, order: str = "order") -> Tensor:
    """The order of ``n`` samples in an epoch."""
    return torch.randperm(n, generator=rng(seed, order, epoch))


def _resident(samples: Resident, indices: Iterator[Tensor], device: torch.device) -> Iterator[Triple]:
    x = samples.x.to(device)
    known = [None if y is None else y.to(device) for y in (samples.label, samples.attribute)]
    for index in indices:
        index = index.to(device, non_blocking=True)
        yield x[index], *(None if y is None else y[index] for y in known)


def _streamed(samples: Streamed, indices: Iterator[Tensor], device: torch.device, workers: int) -> Iterator[Triple]:
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
        known = (samples.label, samples.attribute)
        x = x.to(device, non_blocking=True)
        yield x, *(None if y is None else y[index].to(device, non_blocking=True) for y in known)


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


def _prepared(x: Tensor, draw: Draw, stream: str, mirror: bool, memory_format: torch.memory_format) -> Tensor:
    """Images from uint8 to [-1, 1], mirrored with probability 1/2 if asked for; points in the default precision."""
    if x.dtype != torch.uint8:
        return x.to(torch.get_default_dtype())
    x = to_images(x, x.device).contiguous(memory_format=memory_format)
    if mirror:
        x = torch.where(draw.uniform(stream, (1, 1, 1)) < 0.5, x.flip(3), x)
    return x
