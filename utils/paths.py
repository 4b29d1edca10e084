"""From text of a config or a command line to a path."""

import os
from pathlib import Path

from utils.errors import UserError


def path_of(text: str) -> Path:
    """The path that a person names, ``~`` and ``~user`` expanded. Raises UserError for one that cannot exist."""
    if "\0" in text:
        raise UserError(f"The path {text!r} holds a NUL character, which no file name can: leave it out.")
    path = os.path.expanduser(text)  # Path.expanduser would also expand './~'
    if path.startswith("~"):
        raise UserError(f"There is no home folder for '{text}': write the path out, or begin it with './'.")
    return Path(path)
