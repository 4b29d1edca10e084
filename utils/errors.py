"""Mistakes that the user can correct: one sentence each, printed without a stack trace."""

import difflib
import errno
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from typing import NoReturn


class UserError(Exception):
    """One sentence: what is wrong, where, and what to do."""


class LostProcessError(UserError):
    """Another process of the run has died or hangs."""


class NotFiniteError(UserError):
    """Training became NaN or infinite, first in step index ``step`` (None: not known where it is raised)."""

    def __init__(self, text: str, step: int | None = None):
        super().__init__(text)
        self.step = step


def check_name(what: str, name: str, valid: Iterable[str]) -> None:
    """Raise UserError, with the nearest valid names first, unless ``name`` is among ``valid``."""
    names = sorted(valid)
    if name not in names:
        raise UserError(f"{what} {name!r} is unknown; {nearest(name, names)}.")


def nearest(name: str, names: list[str]) -> str:
    """Return a hint such as: did you mean 'b'? Valid are: b, a, c (the closest name first, where one is close)."""
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}Valid are: {', '.join(close + [n for n in names if n not in close])}"


def warn(sentence: str) -> None:
    """Print a warning to stderr, which keeps stdout for the script's result."""
    print(f"warning: {sentence}", file=sys.stderr)


def room(error: OSError) -> str:
    """What to do where a file could not be written."""
    return _ROOM.get(error.errno, "make room")


_ROOM = {
    errno.EACCES: "allow writing there",
    errno.EDQUOT: "make room or raise the quota",
    errno.EMFILE: "allow the process more open files (ulimit -n)",
    errno.ENFILE: "allow the machine more open files",
    errno.ENOENT: "leave the folder in its place while the run writes there",
    errno.EPERM: "allow writing there",
    errno.EROFS: "allow writing there",
}
_NO_HANDLES = {
    os.strerror(errno.ENFILE): errno.ENFILE,  # holds the words of the next one
    os.strerror(errno.EMFILE): errno.EMFILE,
    "items of ancdata": errno.EMFILE,  # a loader's process could not hand over a tensor
}


def sentence(error: BaseException) -> str:
    """What is wrong, where known, and what to do, in one line."""
    said = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    if isinstance(error, UserError):
        return str(error)
    if lacks_memory(error):
        asked = re.search(r"tried to allocate [\d.]+ \w+", said, re.IGNORECASE)
        return (
            f"Not enough memory ({asked[0] if asked else said}): lower train.batch_size, raise train.accumulate, make "
            f"the model narrower (model.*) or ask for fewer samples at once. {TRACE}=1 before the command shows where."
        )
    for words, code in _NO_HANDLES.items():  # libraries that open files themselves say so in errors of their own
        if words in str(error):
            line = next(line.strip() for line in str(error).splitlines() if words in line).rstrip(".")
            return f"No more files can be opened ({line}): {_ROOM[code]}, then run the same command again."
    if isinstance(error, ConnectionError | EOFError) or "DataLoader worker" in str(error):
        return (
            f"A process that loads data, or a connection, has ended ({said}), most often for want of memory: lower "
            f"data.workers, then run the same command again. {TRACE}=1 before the command shows where."
        )
    if isinstance(error, OSError):
        return f"{error.filename or 'A file'} cannot be used: {error.strerror or error}."
    return f"{type(error).__name__}: {said}. {TRACE}=1 before the command shows where."


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that something is too large for the memory, or for the 64 bits of a size."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in _NO_MEMORY)


TRACE = "FLIPSIDE_TRACE"  # environment variable: every error shows its stack trace
_NO_MEMORY = (
    "out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory",
    "storage size calculation overflowed", "overflow when unpacking", "too large to convert", "cannot fit",
)  # fmt: skip


def run(main: Callable[[list[str]], int]) -> None:
    """Call a script's ``main`` and exit with its code.

    A UserError, a file that cannot be read or written, want of memory and an error inside PyTorch become a sentence on
    stderr and code 2; with FLIPSIDE_TRACE=1 in the environment they show a stack trace. Ctrl-C before
    training gives 130. What the terminal's encoding does not have is shown as "?".
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    threading.excepthook = _of_a_thread
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:  # as scripts set it while they import
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains once more at its exit
        sys.exit(1)
    except Exception as error:
        expected = isinstance(error, UserError | OSError | EOFError | RuntimeError) or lacks_memory(error)
        if not expected or os.environ.get(TRACE) == "1":
            raise
        if isinstance(error, LostProcessError):
            end(sentence(error))  # NCCL's clean-up may wait for the process that is lost
        print(f"error: {sentence(error)}", file=sys.stderr)
        sys.exit(2)


def _of_a_thread(of: threading.ExceptHookArgs) -> None:
    """Show the trace of an error that ends a thread, but for files: TensorBoard's thread leaves it to its next call."""
    if not isinstance(of.exc_value, OSError) or os.environ.get(TRACE) == "1":
        threading.__excepthook__(of)


def end(sentence: str) -> NoReturn:
    """End this process at once, from any thread, whatever the others wait for: a sentence on stderr and code 2."""
    print(f"error: {sentence}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(2)
