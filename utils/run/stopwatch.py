"""What the time between two log lines goes into, taken without waiting for the device."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import TypeVar

import torch

NETWORKS, DATA, PAUSE, REST = "networks", "data", "pause", "rest"
Moment = float | torch.cuda.Event
Item = TypeVar("Item")


class Stopwatch:
    """Adds up seconds by what they go into; what nobody names is the rest.

    With a GPU, they are seconds of its stream: a host that runs ahead takes none of them, one that it waits for does.
    """

    def __init__(self) -> None:
        self.gpu = torch.cuda.is_initialized()  # asked once: a run on the CPU may look at a GPU later
        self.laps: list[tuple[str, Moment]] = [(REST, self._now())]  # what begins, and when

    @contextlib.contextmanager
    def during(self, what: str) -> Iterator[None]:
        """The time inside goes into ``what``."""
        around = self.laps[-1][0]
        self.laps.append((what, self._now()))
        yield
        self.laps.append((around, self._now()))

    def timed(self, items: Iterator[Item], what: str) -> Iterator[Item]:
        """The same items; the time that each of them takes to be made goes into ``what``."""
        while True:
            around = self.laps[-1][0]  # not by ``during``: a step of tiny networks would notice
            self.laps.append((what, self._now()))
            item = next(items, None)
            self.laps.append((around, self._now()))
            if item is None:
                return
            yield item

    def read(self) -> dict[str, float]:
        """Seconds since the last reading, or the beginning. Waits for the device."""
        now = (self.laps[-1][0], self._now())
        if self.gpu:
            now[1].synchronize()
        seconds: dict[str, float] = defaultdict(float)
        for (what, begin), (_, end) in pairwise([*self.laps, now]):
            seconds[what] += _between(begin, end)
        self.laps = [now]
        return seconds

    def _now(self) -> Moment:
        if not self.gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def _between(begin: Moment, end: Moment) -> float:
    """Seconds."""
    return end - begin if isinstance(begin, float) else begin.elapsed_time(end) / 1000
