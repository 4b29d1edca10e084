"""Randomness as a function: every number is determined by (seed, step, ..., stream, index of the sample in the batch).

No random state is kept between two steps, so none has to be saved. A batch does not depend on the number of processes
or micro-batches: each draws the numbers of the whole batch and keeps its own rows. That is fastest where they are few,
such as latents; noise as large as images is drawn for the own rows alone, in blocks with a seed each.
"""

import hashlib
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


def seed_of(*names: int | str) -> int:
    """A 63-bit seed from the names of a draw: seed, step, stream, ..."""
    digest = hashlib.blake2b("/".join(map(str, names)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def rng(*names: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh random number generator whose numbers are a function of the names."""
    return torch.Generator(device).manual_seed(seed_of(*names))


# Rows of a batch that share a seed in ``Draw.noise``. Seeds of single rows take up to half as long again as one draw of
# images of 32 pixels, blocks of 16 rows a twentieth, and two processes need half of that each.
BLOCK = 16


@dataclass(frozen=True)
class Draw:
    """The random numbers of one play: the same call returns the same numbers.

    ``names`` are what they are a function of, such as (seed, step); ``batch_size`` is the number of samples N of the
    whole batch, of which ``rows`` belong to this process.
    """

    names: tuple[int | str, ...]
    batch_size: int
    rows: slice = field(default_factory=lambda: slice(None))
    device: torch.device | str = "cpu"

    def normal(self, stream: str, shape: tuple[int, ...] = ()) -> Tensor:
        """Standard normal numbers ``[N, *shape]``, one row a sample."""
        generator = torch.Generator(self.device).manual_seed(seed_of(*self.names, stream))
        return torch.randn(self.batch_size, *shape, generator=generator, device=self.device)[self.rows]

    def noise(self, stream: str, shape: tuple[int, ...]) -> Tensor:
        """Standard normal numbers ``[N, *shape]``, other ones than ``normal`` gives; for shapes as large as images."""
        own = range(self.batch_size)[self.rows]
        starts = range(own.start // BLOCK * BLOCK, own.stop, BLOCK)
        numbers = torch.empty(len(starts) * BLOCK, *shape, device=self.device)
        generator = torch.Generator(self.device)
        for start, block in zip(starts, numbers.split(BLOCK), strict=True):
            generator.manual_seed(seed_of(*self.names, stream, start))
            block.normal_(generator=generator)
        return numbers[own.start - starts.start :][: len(own)]

    def uniform(self, stream: str, shape: tuple[int, ...] = ()) -> Tensor:
        """Uniform numbers in [0, 1), ``[N, *shape]``."""
        generator = torch.Generator(self.device).manual_seed(seed_of(*self.names, stream))
        return torch.rand(self.batch_size, *shape, generator=generator, device=self.device)[self.rows]

    def fork(self, name: str) -> "Draw":
        """Independent draws for another play of the same batch."""
        return replace(self, names=(*self.names, name))

    def part(self, rows: slice) -> "Draw":
        """The draws of these rows of the batch: the same numbers as in the whole batch."""
        own = range(self.batch_size)[self.rows][rows]
        return replace(self, rows=slice(own.start, own.stop))
