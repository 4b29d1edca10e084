"""The batches of every step: a function of (seed, step)."""

import math
import os
from collections.abc import Iterator
from itertools import count, islice, repeat

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from adversarial.draws import Draw
from adversarial.games import Batch
from utils.config.sections import Config
from utils.data.fitting import Images
from utils.data.order import indices_at
from utils.data.samples import Resident, Samples, Streamed, to_images
from utils.errors import UserError
from utils.training.processes import memory_format

Round = tuple[Batch, Draw]
Triple = tuple[Tensor, Tensor | None, Tensor | None]  # samples, labels, attributes
AT_ONCE = 2**20  # bytes: so much of a set in memory is looked up at once, for 32 rounds at most; small look-ups add up


def rounds(
    config: Config, samples: Samples, start: int, rows: slice, device: torch.device, target: Samples | None = None
) -> Iterator[list[Round]]:
    """Yield the ``update.critic_steps`` rounds of step ``start``, ``start + 1``, ... without end.

    ``rows`` are this process's rows of each global batch. Samples of a ``target`` domain are as many as of ``samples``,
    without labels, and shuffled independently. Raises UserError where a step's batches are larger than the memory.
    """
    _check_memory(config, samples, rows)
    critic_steps, layout = config.update.critic_steps, memory_format(config)
    mirror = isinstance(config.data, Images) and config.data.mirror  # points and vectors have no mirror image
    ours = _stream(config, samples, "order", start, rows, device)
    theirs = repeat((None, None, None)) if target is None else _stream(config, target, "target", start, rows, device)
    for step in count(start):
        drawn: list[Round] = []
        for i in range(critic_steps):
            draw = Draw((config.seed, step, i), config.train.batch_size, rows, device)
            (x, label, attribute), (other, _, _) = next(ours), next(theirs)
            x = _prepared(x, draw, "mirror", mirror, layout)
            if other is not None:
                other = _prepared(other, draw, "mirror target", mirror, layout)
            drawn.append((Batch(x, label, other, attribute), draw))
        yield drawn


def _check_memory(config: Config, samples: Samples, rows: slice) -> None:
    """Raise UserError if the machine cannot hold a step's batches: to try may take for ever."""
    size, steps = config.train.batch_size, config.update.critic_steps
    # Real samples, fakes and the gradient of these; and the order, of all processes, in parts and as a whole.
    held = 3 * len(range(size)[rows]) * math.prod(samples.shape) * torch.get_default_dtype().itemsize
    needed = steps * (held + 2 * size * torch.int64.itemsize)
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise UserError(
            f"The batches of a step need at least {needed / 2**30:.0f} GiB and this machine has {there / 2**30:.0f}: "
            f"lower train.batch_size={size} or update.critic_steps={steps}."
        )


def _stream(
    config: Config, samples: Samples, order: str, start: int, rows: slice, device: torch.device
) -> Iterator[Triple]:
    """This process's rows of every round's batch, from step ``start`` on."""
    first, size = start * config.update.critic_steps, config.train.batch_size
    if isinstance(samples, Resident):
        own = len(range(size)[rows]) * samples.x[0].nbytes
        together = max(1, min(AT_ONCE // own, 32))
        # Whole blocks from step 0 on: how a batch lies in memory, too, is a function of the step.
        skipped = first % together
        batches = _resident(samples, _orders(config, samples, order, first - skipped, together, rows), device)
        return islice(batches, skipped, None)
    indices = (block[0] for block in _orders(config, samples, order, first, 1, rows))
    return _streamed(samples, indices, device, config.data.workers)


def _orders(config: Config, samples: Samples, order: str, first: int, together: int, rows: slice) -> Iterator[Tensor]:
    """The indices ``[together, N]`` of this process's rows of so many rounds, from round ``first`` on without end."""
    size = config.train.batch_size
    for position in count(first * size, together * size):
        yield indices_at(config.seed, len(samples), position, together * size, order).view(together, size)[:, rows]


def _resident(samples: Resident, orders: Iterator[Tensor], device: torch.device) -> Iterator[Triple]:
    # The whole set is copied to the device once; afterwards only indices travel.
    known = [None if y is None else y.to(device) for y in (samples.x, samples.label, samples.attribute)]
    for order in orders:
        index = order.to(device, non_blocking=True).flatten()
        drawn = [repeat(None) if y is None else y.index_select(0, index).chunk(len(order)) for y in known]
        yield from zip(*drawn, strict=False)  # repeat has no end


def _streamed(samples: Streamed, indices: Iterator[Tensor], device: torch.device, workers: int) -> Iterator[Triple]:
    # The order is a function of the step, given to the loader from outside: workers only decode.
    loader = DataLoader(
        _WithIndex(samples),
        batch_sampler=(index.tolist() for index in indices),
        num_workers=workers,
        collate_fn=_stacked,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # otherwise the loader would draw a seed from PyTorch's global generator
    )
    for batch in loader:
        if isinstance(batch, UserError):
            raise batch
        x, index = batch
        known = (samples.label, samples.attribute)
        x = x.to(device, non_blocking=True)
        yield x, *(None if y is None else y[index].to(device, non_blocking=True) for y in known)


def _stacked(items: list[tuple[Tensor | UserError, int]]) -> tuple[Tensor, Tensor] | UserError:
    """Images ``[N, C, R, R]`` and their indices ``[N]``; or the first error, for the main process to raise.

    Runs in the worker: one tensor a batch passes between the processes.
    """
    errors = [x for x, _ in items if isinstance(x, UserError)]
    if errors:
        return errors[0]
    return torch.stack([x for x, _ in items]), torch.tensor([index for _, index in items])


class _WithIndex(torch.utils.data.Dataset):
    """Samples with their indices, by which the main process looks up the labels."""

    def __init__(self, samples: Streamed):
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int):
        return self.samples[index], index


def _prepared(x: Tensor, draw: Draw, stream: str, mirror: bool, memory_format: torch.memory_format) -> Tensor:
    """Return uint8 images in [-1, 1], each mirrored with probability 1/2 if ``mirror``; others in default precision."""
    if x.dtype != torch.uint8:
        return x.to(torch.get_default_dtype())
    x = to_images(x, x.device).contiguous(memory_format=memory_format)
    if mirror:
        x = torch.where(draw.uniform(stream, (1, 1, 1)) < 0.5, x.flip(3), x)
    return x
