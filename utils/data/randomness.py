"""PyTorch's global random state, set for a while to a function of names (``adversarial.draws`` has the rest)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from adversarial.draws import seed_of


@contextmanager
def seeded(*names: int | str) -> Iterator[None]:
    """Inside, PyTorch's global generators are a function of the names; afterwards the CPU's is as before.

    Those of GPUs are not restored, which would start a context on each of them: every step seeds its own.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(*names))
        yield
