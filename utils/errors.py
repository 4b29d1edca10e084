"""Mistakes that the user can correct: one sentence each, printed without a stack trace."""

import difflib
import io
import os
import signal
import sys
from collections.abc import Callable, Iterable


class UserError(Exception):
    """One sentence: what is wrong, where, and what to do."""


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


def run(main: Callable[[list[str]], int]) -> None:
    """Call a script's ``main`` and exit with its code.

    A UserError, or a file that cannot be read or written, becomes a sentence on stderr and code 2. Ctrl-C before
    training gives 130. What the terminal's encoding does not have is shown as "?".
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:  # as scripts set it while they import
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains once more at its exit
        sys.exit(1)
    except OSError as error:
        print(f"error: {error.filename or 'A file'} cannot be used: {error.strerror or error}.", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
