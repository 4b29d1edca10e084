"""Randomness as a function: every draw is determined by (seed, stream, step, index of the sample in the global batch).

No random state lives between two steps, so nothing about it needs saving, and a batch does not depend on the number
of processes: each draws the global batch's numbers and keeps its own rows.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor


def seed_of(*names: int | str) -> int:
    """A 63-bit seed, in [0, 2^63), from the names of a draw: seed, stream, step, ..."""
    digest = hashlib.blake2b("/".join(map(str, names)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def rng(*names: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh random number generator, whose state is a function of the names."""
    return torch.Generator(device).manual_seed(seed_of(*names))


@contextmanager
def seeded(*names: int | str) -> Iterator[None]:
    """Inside, PyTorch's global generators are a function of the names; afterwards the CPU's is as before.

    Those of GPUs are not restored, which would start a context on each of them: every step seeds its own.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(*names))
        yield


@dataclass(frozen=True)
class Draw:
    """The random numbers of one play (``adversarial.games.Draw``) for the samples of this process.

    ``rows`` are this process's rows of a global batch of ``batch_size`` samples. Every process draws the numbers of the
    whole batch and keeps its own rows, so they do not depend on the number of processes.
    """

    names: tuple[int | str, ...]
    batch_size: int
    rows: slice
    device: torch.device

    def normal(self, stream: str, shape: tuple[int, ...] = ()) -> Tensor:
        """Standard normal ``[N, *shape]``."""
        return torch.randn(self.batch_size, *shape, generator=self._generator(stream), device=self.device)[self.rows]

    def uniform(self, stream: str, shape: tuple[int, ...] = ()) -> Tensor:
        """Uniform in [0, 1), ``[N, *shape]``."""
        return torch.rand(self.batch_size, *shape, generator=self._generator(stream), device=self.device)[self.rows]

    def fork(self, name: str) -> "Draw":
        """Independent draws for another play of the same batch."""
        return replace(self, names=(*self.names, name))

    def part(self, rows: slice) -> "Draw":
        """The draws for some of this process's rows: the numbers that ``self`` would give them."""
        own = range(self.batch_size)[self.rows][rows]
        return replace(self, rows=slice(own.start, own.stop))

    def _generator(self, stream: str) -> torch.Generator:
        return rng(*self.names, stream, device=self.device)
