"""Mistakes that the user can mend: one sentence each, printed without a stack trace."""

import difflib
import sys
from collections.abc import Callable, Iterable


class UserError(Exception):
    """What is wrong, where, and what to do, in a sentence."""


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


def run(main: Callable[[list[str]], int]) -> None:
    """Call a script's ``main`` and exit with its code; a UserError becomes its sentence on stderr and code 2."""
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
