"""The processes of a run watch each other, so that one that dies or hangs is named and ends all of them.

Every two seconds a thread of each process rewrites a file in the run's folder, its sign of life. The first process
reads those of all others, and the others read the first one's. A process that ends with an error leaves it in its file.

Files need nothing that dies with a process or a connection, and a process that works alone for hours, as in a download
or an evaluation, goes on giving signs. Looks are counted instead of seconds, so that a pause of all processes together,
as when a machine sleeps, loses nobody.
"""

import contextlib
import os
import platform
import re
import shutil
import threading
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import NamedTuple

from torch import distributed

from utils.errors import LostProcessError, UserError, end, sentence
from utils.run.folder import RunFolder
from utils.run.log import say
from utils.training.processes import AGAIN, ProcessGroup, lost_somewhere

BEAT = 2.0  # seconds between two signs of life, and between two looks for those of others
GONE = 4  # looks without a sign after which a process whose connection has broken is taken for dead


class Lost(NamedTuple):
    """A process that is lost, whether it left a last word, and the sentence for people."""

    rank: int
    spoke: bool
    sentence: str


@contextlib.contextmanager
def watched(folder: RunFolder, group: ProcessGroup, timeout: float) -> Iterator[None]:
    """A block in which the processes of ``group`` watch each other. All of them enter it.

    Raises LostProcessError in place of an error of the connection to another process. Where this process waits for
    another one, in a call that nothing interrupts, and that one has given no sign for half of ``timeout`` seconds, this
    process ends at once. (After all of ``timeout`` PyTorch would end it, with a trace.)
    """
    if group.size == 1:
        yield
        return
    watch = Watch(folder, group, timeout)
    watch.start()
    try:
        yield
        watch.stop()
    except BaseException as error:
        watch.stop()
        lost = watch.cause(error) if _is_of_a_connection(error) else None
        watch.sign(lost.sentence if lost else f"{watch.name} has ended with an error: {_words(error)}")
        if lost is None:
            raise
        if group.rank == 1 and lost.rank == 0 and not lost.spoke:
            say(folder, f"Stopped: {lost.sentence}", quiet=True)  # the first, which keeps the log, is lost
        raise LostProcessError(lost.sentence) from error


class Watch:
    """The signs of life of this process and of those that it looks at."""

    def __init__(self, folder: RunFolder, group: ProcessGroup, timeout: float) -> None:
        self.folder, self.group, self.timeout = folder, group, timeout
        self.name = f"Process {group.rank} ({os.getpid()} on {platform.node()})"
        self.patience = max(GONE, round(timeout / 2 / BEAT))  # looks
        others = range(1, group.size) if group.rank == 0 else [0]
        self.seen = dict.fromkeys(others, "")
        self.silent = dict.fromkeys(others, 0)  # looks in a row that found nothing new
        self._beats = count()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Give the first sign and begin to watch, once all processes are here."""
        if self.group.rank == 0:
            shutil.rmtree(self.folder.signs, ignore_errors=True)  # of the last start
        try:
            self.group.any(False)  # before it, the folder may be another run's
        except RuntimeError as error:
            raise LostProcessError(lost_somewhere(error)) from error
        self.sign()
        self._thread.start()

    def stop(self) -> None:
        """Watch no longer."""
        self._stopped.set()
        self._thread.join()

    def sign(self, last_word: str = "") -> None:
        """Rewrite this process's file: a number that grows, its name, and what it says at its end."""
        with contextlib.suppress(OSError):  # the others notice
            self.folder.signs.mkdir(exist_ok=True)
            text = f"{next(self._beats)}\n{self.name}\n{last_word}"
            self._file(self.group.rank).write_text(text, encoding="utf-8")

    def look(self) -> None:
        """Count for each process watched how often in a row its file was found unchanged."""
        for rank, before in self.seen.items():
            now = before
            with contextlib.suppress(OSError):
                now = self._file(rank).read_text(encoding="utf-8", errors="replace")
            self.silent[rank] = 0 if now != before else self.silent[rank] + 1
            self.seen[rank] = now

    def lost(self, patience: int) -> Lost | None:
        """A process that has left a last word, or else one that has given no sign in ``patience`` looks."""
        for rank, looks in self.silent.items():
            last_word = "".join(self.seen[rank].split("\n", 2)[2:])
            # At once it is no news: what ended that process may be about to end this one, too, in its own words.
            if last_word and looks >= 2:
                return Lost(rank, True, last_word)
        rank = max(self.silent, key=self.silent.get)
        return Lost(rank, False, self._obituary(rank)) if self.silent[rank] >= patience else None

    def cause(self, error: BaseException) -> Lost:
        """Which process is behind an error of a connection. Looks for it for a while."""
        for _ in range(2 * GONE):
            time.sleep(BEAT)
            self.sign()
            self.look()
            if found := self.lost(GONE):
                return found
        return Lost(-1, False, lost_somewhere(error))

    def _run(self) -> None:
        while not self._stopped.wait(BEAT):
            self.sign()
            self.look()
            lost = self.lost(self.patience)
            if lost and not self._stopped.is_set():
                self._end(lost)

    def _end(self, lost: Lost) -> None:
        """End this process at once, after a sentence in the terminal and in the log."""
        self.sign(lost.sentence)
        if self.group.rank == (1 if lost.rank == 0 else 0):
            with contextlib.suppress(UserError):
                say(self.folder, f"Stopped: {lost.sentence}", quiet=True)
        end(lost.sentence)

    def _obituary(self, rank: int) -> str:
        seconds = f"{self.silent[rank] * BEAT:.3g}"
        if not self.seen[rank]:
            return (
                f"Process {rank} has left no sign of life in {self.folder.signs} for {seconds} seconds: put run.dir on "
                f"a file system that all nodes share, or end what is left of that process, {AGAIN}"
            )
        name = self.seen[rank].split("\n")[1]
        return (
            f"{name} has given no sign of life for {seconds} seconds: it was killed, it hangs, or its node is lost; "
            f"end what is left of it, {AGAIN}"
        )

    def _file(self, rank: int) -> Path:
        return self.folder.signs / str(rank)


def _is_of_a_connection(error: BaseException) -> bool:
    """Whether PyTorch raised it because another process did not answer, or no longer."""
    return isinstance(error, distributed.DistError) or (
        isinstance(error, RuntimeError) and re.search("gloo|nccl", str(error), re.IGNORECASE) is not None
    )


def _words(error: BaseException) -> str:
    return sentence(error) if isinstance(error, Exception) else type(error).__name__
