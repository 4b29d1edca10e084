"""The rows of a sweep: every combination of the values on its command line, each a run with a name of its own."""

import hashlib
import itertools
import json
import re
import shlex
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any, get_origin

from utils.config.identity import differences, identity, short_name
from utils.config.loading import load
from utils.config.reading import hint_of
from utils.config.sections import Config
from utils.errors import UserError
from utils.run.ending import is_finished
from utils.run.folder import RunFolder
from utils.training import checkpoint

LONGEST_VALUE, LONGEST_NAME = 40, 200  # characters; file systems allow names of 255 bytes


@dataclass(frozen=True)
class Row:
    """One run of a sweep: its checked config, and the arguments of train.py that give it."""

    config: Config
    words: tuple[str, ...]

    @property
    def folder(self) -> RunFolder:
        """Where the run lies."""
        return RunFolder.of(self.config)

    @property
    def command(self) -> str:
        """The command that runs it, for a shell."""
        return shlex.join(["python", "train.py", *self.words])

    def is_finished(self) -> bool:
        """Whether there is nothing left to do. False also where another config has the folder: train.py says so."""
        state = checkpoint.newest_state(self.folder.checkpoints)
        if state is None or differences(state.config, identity(self.config)):
            return False
        return is_finished(self.folder, state.step, self.config.train.steps)


def rows_of(recipes: list[Path], overrides: list[str]) -> list[Row]:
    """All combinations of recipes and values; the values of the first key change slowest.

    Raises UserError for a config that cannot be, and where two rows would have the same folder.
    """
    choices = [values_of(text) for text in overrides]
    swept = sorted({text.partition("=")[0] for text in overrides if is_swept(text)})
    rows = [_row(recipe, words, swept) for recipe in recipes for words in itertools.product(*choices)]
    seen: dict[str, Row] = {}
    for row in rows:
        # Some file systems do not tell capital letters from small ones.
        _check_apart(row, seen.setdefault(str(row.folder.path).casefold(), row))
    return rows


def is_swept(override: str) -> bool:
    """Whether ``key=value`` gives a list of values. ``seed=3,`` is a list of one."""
    return len(_split(override)) > 1


def values_of(override: str) -> list[str]:
    r"""The ``key=value`` words in which ``key=a,b`` gives its values one at a time.

    A comma inside the brackets of a list or a map separates nothing, nor does ``\,`` in text.
    """
    key, values = override.partition("=")[0], _split(override)
    if len(values) > 1 and not values[-1]:
        values.pop()
    if "" in values and "," in override:
        raise UserError(f"'{override}' has a comma without a value beside it: take the comma away.")
    return [f"{key}={value}" for value in values]


def _split(override: str) -> list[str]:
    key, _, value = override.partition("=")
    if get_origin(hint_of(key)[0]) not in (list, dict):
        return [part.replace("\\,", ",") for part in re.split(r"(?<!\\),", value)]
    parts, depth = [""], 0
    for letter in value:
        depth += (letter in "[{") - (letter in "]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _row(recipe: Path, words: tuple[str, ...], swept: list[str]) -> Row:
    if "run.name" in swept:
        raise UserError("run.name has several values: a sweep names its runs after what differs; give it one, or none.")
    try:
        config = load(recipe, list(words))
    except UserError as error:
        chosen = " ".join([str(recipe), *(word for word in words if word.partition("=")[0] in swept)])
        raise UserError(f"In the run of {chosen}: {error}") from None
    parts = [f"{_word(key, swept)}={_text(config, key)}" for key in swept]
    named = any(word.startswith("run.name=") for word in words)
    over_data = any(key.startswith("data.") for key in swept)  # the parts say already which data it trains on
    config.run.name = "-".join([recipe.stem if over_data and not named else config.run.name, *parts])
    if len(config.run.name) > LONGEST_NAME:
        raise UserError(f"The run name '{config.run.name}' is too long for a folder: choose a shorter run.name.")
    own = [word for word in words if not word.startswith("run.name=")]
    return Row(config, (str(recipe), *own, f"run.name={config.run.name}"))


def _word(key: str, swept: list[str]) -> str:
    """How a key is called in names: by its last word, in full where two keys of the sweep share that."""
    short = short_name(key)
    return key if [short_name(other) for other in swept].count(short) > 1 else short


def _text(config: Config, key: str) -> str:
    """The value of a key in letters that every file system takes; the end of a long one, and a hash of it all."""
    value: Any = config
    for word in key.split("."):
        value = value[word] if isinstance(value, dict) else getattr(value, word)
    if is_dataclass(value):
        raise UserError(f"'{key}' is a section, which a sweep cannot name: sweep over its keys, such as {key}.name.")
    whole = value if isinstance(value, str) else json.dumps(value)
    text = re.sub(r"[^A-Za-z0-9.+-]+", "_", whole).strip("_.")
    if len(text) > LONGEST_VALUE:
        text = f"{text[-LONGEST_VALUE + 9 :].lstrip('_.-')}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"
    return text


def _check_apart(row: Row, other: Row) -> None:
    if row is not other:
        different = [f"{b} and {a}" for a, b in zip(row.words, other.words, strict=False) if a != b]
        raise UserError(
            f"Two runs of the sweep would both be {row.folder.path} ({'; '.join(different) or 'given twice'}): leave "
            "one out, or give it in a sweep of its own with another run.name."
        )
