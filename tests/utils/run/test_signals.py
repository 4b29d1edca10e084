"""Signals set a flag; a second Ctrl-C does not wait."""

import os
import signal
from types import SimpleNamespace

import pytest

from utils.run.signals import STOPPED, Interrupted, StopSignals
from utils.training.processes import ProcessGroup

NUMBERS = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP]
every_signal = pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number.name)


class Others(ProcessGroup):
    """Several processes of which ``elsewhere`` others have had a signal: what this one would hear from them."""

    def __init__(self, processes: int, elsewhere: int):
        self.size, self.elsewhere, self.before, self.asked = processes, elsewhere, False, 0

    def any(self, mine: bool) -> bool:
        self.asked += 1
        return mine or self.elsewhere > 0

    def any_before(self, mine: bool) -> bool:
        before, self.before = self.before, self.any(mine)
        return before


def stop_signals(processes: int = 1, elsewhere: int = 0) -> StopSignals:
    """Of one process, or of one among several."""
    if processes == 1:
        return StopSignals(ProcessGroup(SimpleNamespace(num_processes=1, process_index=0, device="cpu")))
    return StopSignals(Others(processes, elsewhere))


@pytest.fixture
def former():
    """Handlers of the test's own, so that a signal that is not caught fails the test and not the process."""
    seen = []

    def note(number, frame):
        seen.append(number)

    before = {number: signal.signal(number, note) for number in NUMBERS}
    yield note, seen
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def test_nothing_has_happened_at_first(former):
    with stop_signals() as stop:
        assert stop.name is None


@every_signal
def test_a_signal_only_sets_the_name(former, number):
    with stop_signals() as stop:
        send(number)
        assert stop.name == number.name
    assert former[1] == []
    assert stop.name == number.name


@every_signal
def test_former_handlers_are_back(former, number):
    note, seen = former
    with stop_signals():
        assert signal.getsignal(number) is not note
    assert signal.getsignal(number) is note
    send(number)
    assert seen == [number]


@every_signal
def test_former_handlers_are_back_after_an_error(former, number):
    with pytest.raises(RuntimeError), stop_signals():
        raise RuntimeError
    assert signal.getsignal(number) is former[0]


def test_a_second_interrupt_is_at_once_and_the_former_handlers_are_back(former):
    with pytest.raises(KeyboardInterrupt), stop_signals() as stop:
        send(signal.SIGINT)
        assert stop.name == "SIGINT"
        send(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is former[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1], ids=lambda number: number.name)
def test_a_scheduler_may_repeat_itself(former, number):
    """Slurm sends SIGTERM to every process of a job step, and a launcher passes it on once more."""
    with stop_signals() as stop:
        for _ in range(3):
            send(number)
        assert stop.name == number.name


def test_the_default_handlers_come_back_as_well():
    before = {number: signal.getsignal(number) for number in NUMBERS}
    with stop_signals():
        pass
    assert {number: signal.getsignal(number) for number in NUMBERS} == before


def test_a_terminal_that_is_closed_stops_nothing_that_was_started_with_nohup(former):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stop_signals() as stop:
        send(signal.SIGHUP)
        assert stop.name is None
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_the_block_can_be_entered_again(former):
    for _ in range(2):
        with stop_signals() as stop:
            assert stop.name is None
            send(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is former[0]


def test_one_process_knows_at_once(former):
    with stop_signals() as stop:
        assert not stop.received()
        send(signal.SIGTERM)
        assert stop.received()
        assert stop.received_by_now()


@pytest.mark.parametrize("here", [False, True])
@pytest.mark.parametrize("elsewhere", [0, 1, 3])
def test_several_processes_stop_together(former, here, elsewhere):
    """A step after they have asked each other, so that nobody waits; at once where everybody waits anyway."""
    with stop_signals(processes=4, elsewhere=elsewhere) as stop:
        if here:
            send(signal.SIGTERM)
        assert not stop.received()
        assert stop.received() is (here or elsewhere > 0)
        assert stop.received_by_now() is (here or elsewhere > 0)
        assert stop.group.asked == 3


@every_signal
def test_long_work_is_cut_off(former, number):
    """In the midst of it, and again where the signal came before; the flag stays for the loop."""
    with stop_signals() as stop:
        with stop.interruptible():
            pass
        with pytest.raises(Interrupted), stop.interruptible():
            send(number)
            raise AssertionError("it went on")
        assert stop.name == number.name
        with pytest.raises(Interrupted), stop.interruptible():
            raise AssertionError("it began")


def test_a_second_signal_does_not_cut_off_the_tidying_up(former):
    tidied = []
    with stop_signals() as stop, pytest.raises(Interrupted), stop.interruptible():
        try:
            send(signal.SIGTERM)
        finally:
            send(signal.SIGTERM)
            tidied.append(True)
    assert tidied


def test_the_exit_code_is_neither_success_nor_a_mistake():
    assert STOPPED == 75  # EX_TEMPFAIL of sysexits.h: batch systems are told to start the job again
