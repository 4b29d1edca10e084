"""Statistics of the training steps, kept on the device and read at the log interval."""

import contextlib
import sys
import time
from collections import defaultdict
from collections.abc import Iterator

import torch
from torch import Tensor

from utils.run.stopwatch import DATA, NETWORKS, PAUSE, Stopwatch
from utils.training.processes import ProcessGroup

# What is read that differs from one machine to the next.
OF_MACHINE = (
    "images_per_second", "seconds", "cpu_seconds", "outside_networks", "waiting_for_data", "peak_memory_mib",
)  # fmt: skip
NEVER = 2**62  # stands for "at no step" in a tensor of steps


class Meter:
    """Keeps statistics on the device until they are read, which alone waits for it.

    ``seconds`` and ``cpu_seconds`` are what the training has taken so far, before this meter included.
    """

    def __init__(self, group: ProcessGroup, seconds: float = 0.0, cpu_seconds: float = 0.0) -> None:
        self.group, self.seconds, self.cpu_seconds = group, seconds, cpu_seconds
        # By the names that a turn reports: the step and the values of each turn. Sums, and the search for NaN, are left
        # to the reading: they would cost every step several operations.
        self.turns: dict[tuple[str, ...], list[tuple[int, Tensor]]] = defaultdict(list)
        self.scores: dict[str, Tensor] = {}  # the last scores [N] of each name
        self.stopwatch, self.cpu_since = Stopwatch(), time.process_time()

    def add(self, step: int, report: dict[str, Tensor]) -> None:
        """Take in what one turn of a step reports: scalars, and scores ``[N]``, which count with their mean."""
        self.scores |= {name: value for name, value in report.items() if value.ndim}
        means = []
        for value in report.values():
            value = value if value.dtype == torch.float64 else value.float()  # bfloat16 would round a mean too much
            means.append(value.mean() if value.ndim else value)
        self.turns[tuple(report)].append((step, torch.stack(means)))

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
        for kind, turns in self.turns.items():
            steps = torch.tensor([step for step, _ in turns])
            good = torch.stack([values for _, values in turns]).isfinite().cpu()
            names += kind
            firsts.append(torch.where(good, NEVER, steps[:, None]).amin(0))
        if not names:
            return {}
        steps = self.group.least(torch.cat(firsts).tolist())
        found: dict[str, int] = {}
        for name, step in zip(names, steps, strict=True):
            if step < found.get(name, NEVER):
                found[name] = step
        return found

    def read(self, images: int) -> dict[str, float]:
        """Means since the last reading, over all processes; images per second where ``images`` were seen since; and the
        seconds of the training so far, by the clock and of CPU time on all threads of this process; which share of the
        time since the last reading was spent outside the networks' passes, and which of it waiting for data; and the
        peak memory in MiB, of the process that has taken the most.
        """
        totals: dict[str, float] = defaultdict(float)
        counts: dict[str, int] = defaultdict(int)
        for names, turns in self.turns.items():
            sums = torch.stack([values for _, values in turns]).sum(0).tolist()
            for name, total in zip(names, sums, strict=True):
                totals[name] += total
                counts[name] += len(turns)
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
        self.turns.clear()
        self.cpu_since = cpu_now
        return values


def peak_memory() -> float:
    """The most memory, in MiB, that tensors of this process have taken on the GPU, or the whole process without one."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**20
    import resource  # here, for Windows has none

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def gradient_norm(optimizer: torch.optim.Optimizer) -> Tensor:
    """The norm of all gradients that an optimiser is about to use, a scalar; NaN or infinite if one of them is.

    Does not wait for the device.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
