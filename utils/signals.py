"""Signals set a flag; the loop acts on it between two steps."""

import signal
from types import FrameType

STOPPED = 75  # exit code of a run that a signal stopped after saving (EX_TEMPFAIL: "try again")


class StopSignals:
    """Inside the ``with`` block SIGTERM, SIGINT and SIGUSR1 only set ``name``; a second SIGINT interrupts at once."""

    def __init__(self) -> None:
        self.name: str | None = None

    def __enter__(self) -> "StopSignals":
        self.former = {number: signal.signal(number, self._note) for number in self._numbers}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self.former.items():
            signal.signal(number, handler)

    _numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.name is not None:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name
