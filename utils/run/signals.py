"""Signals set a flag; the loop acts on it between two steps, at the same step in all processes."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from utils.training.processes import ProcessGroup

STOPPED = 75  # exit code of a run that a signal stopped after saving (EX_TEMPFAIL: "try again")


class Interrupted(Exception):  # noqa: N818  (no error: somebody wants the run to end)
    """A signal came during work that may be abandoned."""


class StopSignals:
    """Inside the ``with`` block SIGTERM, SIGINT, SIGUSR1 and SIGHUP only set ``name``.

    A second SIGINT interrupts at once. A SIGHUP that is ignored, as under ``nohup``, stays so. Where ``group`` is None
    no other process is asked, and ``name`` is all that there is to read.
    """

    def __init__(self, group: ProcessGroup | None) -> None:
        self.group = group
        self.name: str | None = None
        self._interruptible = False

    def received(self) -> bool:
        """Whether any process has received a signal; the same answer in all of them. Call it once a step.

        With several processes the answer is a step old, so that no process waits for another.
        """
        return self.group.any_before(self.name is not None)

    def received_by_now(self) -> bool:
        """The same as of now: every process waits for the slowest."""
        return self.group.any(self.name is not None)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Inside, a signal raises ``Interrupted`` at once, as does one that came before.

        For long work that leaves nothing behind when it is interrupted, such as evaluations: a scheduler kills soon
        after it has warned.
        """
        self._interruptible = True
        try:
            if self.name is not None:
                raise Interrupted
            yield
        finally:
            self._interruptible = False

    def __enter__(self) -> "StopSignals":
        numbers = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        self.former = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self.former.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.name == "SIGINT":
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name
        if self._interruptible:
            self._interruptible = False  # a second signal must not interrupt the cleanup after the first
            raise Interrupted
