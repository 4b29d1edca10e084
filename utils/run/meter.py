"""Statistics of the training steps, summed on the device and read at the log interval."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from utils.training.processes import ProcessGroup

TIMES = ("images_per_second", "seconds", "cpu_seconds")  # what is read that differs from one machine to the next
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
    """Sums statistics on the device, and remembers when one was not finite. Only reading waits for the device.

    ``seconds`` and ``cpu_seconds`` are what the training has taken so far, before this meter included.
    """

    def __init__(self, group: ProcessGroup, seconds: float = 0.0, cpu_seconds: float = 0.0) -> None:
        self.group, self.seconds, self.cpu_seconds = group, seconds, cpu_seconds
        self.sums: dict[tuple[str, ...], _Sums] = {}  # by the names that a turn reports
        self.scores: dict[str, Tensor] = {}  # the last scores [N] of each name
        self.since, self.cpu_since = time.perf_counter(), time.process_time()

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
        """The clocks stand still inside."""
        begin, cpu_begin = time.perf_counter(), time.process_time()
        yield
        self.since += time.perf_counter() - begin
        self.cpu_since += time.process_time() - cpu_begin

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
        """Means since the last reading, over all processes; images per second where ``images`` were seen since; and the
        seconds of the training so far, by the clock and of CPU time on all threads of this process.
        """
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
        now, cpu_now = time.perf_counter(), time.process_time()
        seconds = now - self.since
        values["images_per_second"] = images / seconds if seconds > 0 else 0.0  # clocks of some machines stand still
        self.seconds, self.cpu_seconds = self.seconds + seconds, self.cpu_seconds + cpu_now - self.cpu_since
        values |= {"seconds": self.seconds, "cpu_seconds": self.cpu_seconds}
        self.sums, self.since, self.cpu_since = {}, now, cpu_now
        return values


def gradient_norm(module: nn.Module) -> Tensor:
    """The norm of a network's gradients, a scalar; NaN or infinite if one of them is. Does not wait for the device."""
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    return nn.utils.get_total_norm(gradients)
