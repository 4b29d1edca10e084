"""Statistics of the training steps, kept on the device and read at the log interval."""

import contextlib
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from utils.run.stopwatch import DATA, NETWORKS, PAUSE, Stopwatch
from utils.training.processes import ProcessGroup

# What is read that differs from one machine to the next.
OF_MACHINE = (
    "images_per_second", "seconds", "cpu_seconds", "outside_networks", "waiting_for_data", "peak_memory_mib",
)  # fmt: skip
NEVER = 2**62  # stands for "at no step" in a tensor of steps
TOGETHER = 32  # turns whose values are averaged at once


class Meter:
    """Keeps statistics on the device until they are read, which alone waits for it.

    ``seconds`` and ``cpu_seconds`` are what the training has taken so far, before this meter included.
    """

    def __init__(self, group: ProcessGroup, seconds: float = 0.0, cpu_seconds: float = 0.0) -> None:
        self.group, self.seconds, self.cpu_seconds = group, seconds, cpu_seconds
        # Turns as they came in, by what they report, until TOGETHER of them are averaged at once: means and norms of
        # each turn by itself would take a small network as long as a layer.
        self.waiting: dict[tuple, list[tuple[int, list]]] = defaultdict(list)
        self.means: dict[tuple[str, ...], list[tuple[list[int], Tensor]]] = defaultdict(list)  # steps, [T, names]
        self.scores: dict[str, Tensor] = {}  # the last scores [N] of each name
        self.stopwatch, self.cpu_since = Stopwatch(), time.process_time()

    def add(self, step: int, report: dict[str, Tensor], norms: dict[str, list[Tensor]] = MappingProxyType({})) -> None:
        """Take in what one turn of a step reports: scalars; values per sample ``[N]``, which count with their mean; and
        ``norms`` of several tensors, which count with the norm of all.

        They are kept for a while: nobody may change them afterwards.
        """
        self.scores |= {name: value for name, value in report.items() if name.endswith("_score")}
        alike = (*report, *norms), tuple(map(len, norms.values()))
        turns = self.waiting[alike]
        turns.append((step, [*report.values(), *norms.values()]))
        if len(turns) == TOGETHER:
            self._average(alike)

    def _average(self, alike: tuple) -> None:
        names, _ = alike
        steps, values = zip(*self.waiting.pop(alike), strict=True)
        columns = [_column(column) for column in zip(*values, strict=True)]
        self.means[names].append((list(steps), torch.stack(columns, 1)))

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """The clocks stand still inside."""
        begin = time.process_time()
        with self.stopwatch.during(PAUSE):
            yield
        self.cpu_since += time.process_time() - begin

    def first_not_finite(self) -> dict[str, int]:
        """Statistics that have been NaN or infinite in any process since the last reading, each with the first step."""
        names, firsts = [], []
        for kind, steps, means in self._turns():
            names += kind
            firsts.append(torch.where(means.isfinite().cpu(), NEVER, torch.tensor(steps)[:, None]).amin(0))
        if not names:
            return {}
        steps = self.group.least(torch.cat(firsts).tolist())
        found: dict[str, int] = {}
        for name, step in zip(names, steps, strict=True):
            if step < found.get(name, NEVER):
                found[name] = step
        return found

    def _turns(self) -> Iterator[tuple[tuple[str, ...], list[int], Tensor]]:
        """By what turns report: the names, the step of each turn ``[T]``, and its values ``[T, names]``."""
        for alike in list(self.waiting):
            self._average(alike)
        for names, parts in self.means.items():
            yield names, [step for steps, _ in parts for step in steps], torch.cat([means for _, means in parts])

    def read(self, images: int) -> dict[str, float]:
        """Means since the last reading, over all processes; images per second where ``images`` were seen since; and the
        seconds of the training so far, by the clock and of CPU time on all threads of this process; which share of the
        time since the last reading was spent outside the networks' passes, and which of it waiting for data; and the
        peak memory in MiB, of the process that has taken the most.
        """
        totals: dict[str, float] = defaultdict(float)
        counts: dict[str, int] = defaultdict(int)
        for names, steps, turns in self._turns():
            for name, total in zip(names, turns.sum(0).tolist(), strict=True):
                totals[name] += total
                counts[name] += len(steps)
        means = self.group.means([total / counts[name] for name, total in totals.items()])
        values = dict(zip(totals, means, strict=True))
        spent, cpu_now = self.stopwatch.read(), time.process_time()
        seconds = sum(spent.values()) - spent[PAUSE]
        if seconds > 0:  # clocks of some machines stand still
            values["outside_networks"] = 1 - spent[NETWORKS] / seconds
            values["waiting_for_data"] = spent[DATA] / seconds
        values["images_per_second"] = images / seconds if seconds > 0 else 0.0
        self.seconds, self.cpu_seconds = self.seconds + seconds, self.cpu_seconds + cpu_now - self.cpu_since
        most = -self.group.least([-round(peak_memory())])[0]
        values |= {"seconds": self.seconds, "cpu_seconds": self.cpu_seconds, "peak_memory_mib": most}
        self.means.clear()
        self.cpu_since = cpu_now
        return values


def peak_memory() -> float:
    """The most memory, in MiB, that tensors of this process have taken on the GPU, or the whole process without one."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**20
    import resource  # here, for Windows has none

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def gradient_norms(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """The norm of each gradient that an optimiser is about to use, a scalar; NaN or infinite if an element of it is.

    Does not wait for the device.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return list(torch._foreach_norm([parameter.grad for parameter in parameters if parameter.grad is not None]))


def _column(values: Sequence[Tensor] | Sequence[list[Tensor]]) -> Tensor:
    """A number for each turn ``[T]``: a scalar itself, the mean of values ``[N]``, the norm of a list of norms."""
    if isinstance(values[0], list):
        norms = torch.stack([norm for turn in values for norm in turn])
        return torch.linalg.vector_norm(norms.reshape(len(values), -1), dim=1)
    column = torch.stack(values)
    if column.dtype != torch.float64:
        column = column.float()  # bfloat16 would round a mean too much, and bool has none
    return column.mean(1) if column.ndim > 1 else column
