"""Signals set a flag; the loop acts on it between two steps, in all processes at the same one."""

import signal
from types import FrameType

import torch
from accelerate import Accelerator

STOPPED = 75  # exit code of a run that a signal stopped after saving (EX_TEMPFAIL: "try again")


class StopSignals:
    """Inside the ``with`` block SIGTERM, SIGINT and SIGUSR1 only set ``name``; a second SIGINT interrupts at once."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.name: str | None = None

    def received(self, step: int) -> bool:
        """Whether any process has had a signal; the same answer in all of them.

        Several processes ask each other at every tenth step only: the answer waits for the device.
        """
        if self.accelerator.num_processes == 1:
            return self.name is not None
        if step % 10:
            return False
        flag = torch.tensor(int(self.name is not None), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, reduction="sum"))

    def __enter__(self) -> "StopSignals":
        self.former = {number: signal.signal(number, self._note) for number in self._numbers}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self.former.items():
            signal.signal(number, handler)

    _numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.name == "SIGINT":
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name
