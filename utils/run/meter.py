"""Statistics of the training steps, summed on the device and read at the log interval."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from utils.training.processes import ProcessGroup

NEVER = 2**62  # stands for "at no step" in a tensor of steps


class _Sums:
    """Sums over turns that report the same Q statistics, on the device: ``total [Q]``, the number of turns, and the
    first step at which each statistic was not finite ``[Q]``.
    """

    def __init__(self, values: Tensor):
        self.total, self.count = torch.zeros_like(values), 0
        self.first_bad = torch.full_like(values, NEVER, dtype=torch.int64)

    def add(self, step: int, values: Tensor) -> None:
        self.total += values
        self.count += 1
        self.first_bad.masked_fill_(~values.isfinite() & (self.first_bad == NEVER), step)


class Meter:
    """Sums statistics on the device, and remembers when one was not finite. Only reading waits for the device."""

    def __init__(self, group: ProcessGroup) -> None:
        self.group = group
        self.sums: dict[tuple[str, ...], _Sums] = {}  # by the names that a turn reports
        self.scores: dict[str, Tensor] = {}  # the last scores [N] of each name
        self.since = time.perf_counter()

    def add(self, step: int, report: dict[str, Tensor]) -> None:
        """Take in what one turn of a step reports: scalars, and scores ``[N]``, which count with their mean."""
        self.scores |= {name: value for name, value in report.items() if value.ndim}
        means = []
        for value in report.values():
            value = value if value.dtype == torch.float64 else value.float()  # bfloat16 would round a mean too much
            means.append(value.mean() if value.ndim else value)
        values = torch.stack(means)
        names = tuple(report)
        if names not in self.sums:
            self.sums[names] = _Sums(values)
        self.sums[names].add(step, values)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """The clock stands still inside."""
        begin = time.perf_counter()
        yield
        self.since += time.perf_counter() - begin

    def first_not_finite(self) -> dict[str, int]:
        """Statistics that have been NaN or infinite in any process since the last reading, each with the first step."""
        names = [name for names in self.sums for name in names]
        if not names:
            return {}
        steps = self.group.least(torch.cat([sums.first_bad for sums in self.sums.values()]).tolist())
        found: dict[str, int] = {}
        for name, step in zip(names, steps, strict=True):
            if step < found.get(name, NEVER):
                found[name] = step
        return found

    def read(self, images: int) -> dict[str, float]:
        """Means since the last reading, over all processes, and images per second where ``images`` were seen since."""
        totals: dict[str, float] = defaultdict(float)
        counts: dict[str, int] = defaultdict(int)
        if self.sums:
            sums = torch.cat([kind.total for kind in self.sums.values()]).tolist()  # one wait for all of them
            of_names = [(name, kind.count) for names, kind in self.sums.items() for name in names]
            for (name, count), total in zip(of_names, sums, strict=True):
                totals[name] += total
                counts[name] += count
        means = self.group.means([total / counts[name] for name, total in totals.items()])
        values = dict(zip(totals, means, strict=True))
        seconds = time.perf_counter() - self.since
        values["images_per_second"] = images / seconds if seconds > 0 else 0.0  # clocks of some machines stand still
        self.sums, self.since = {}, time.perf_counter()
        return values


def gradient_norm(module: nn.Module) -> Tensor:
    """The norm of a network's gradients, a scalar; NaN or infinite if one of them is. Does not wait for the device."""
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    return nn.utils.get_total_norm(gradients)
