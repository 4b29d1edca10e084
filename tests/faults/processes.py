"""Two processes of one run whose configs differ in one key: both end well where the key may differ, else neither does,
and what is wrong is said.
"""

import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import train
from tests.faults.values import LEFT_OUT, NONSENSE, hint_of, values_of
from tests.launch import Launch
from tests.runs import arguments
from tests.utils.config.configs import keys_of, value_of
from utils.config.identity import PROCESS_KEYS
from utils.config.loading import load
from utils.errors import UserError

MAY_DIFFER = ["run.threads=2", "run.dir={folder}/other"]


def cases(folder: Path, seed: int) -> dict[str, Callable[[Path], None]]:
    """A valid other value of every key that has one."""
    recipe, *words = arguments(folder, "train.steps=2")
    config = load(Path(recipe), words)
    others = [*MAY_DIFFER]
    for key in keys_of(config):
        if key not in (*LEFT_OUT, *PROCESS_KEYS):
            own, values = value_of(config, key), [v for v in values_of(hint_of(config, key)) if v not in NONSENSE]
            valid = (value for value in values if given(recipe, words, key, value) not in (None, own))
            others += [f"{key}={value}" for value in islice(valid, 1)]
    return {other: lambda own, other=other: agrees_or_ends(own, other) for other in others}


def given(recipe: str, words: list[str], key: str, value: str) -> object:
    """What a config has at ``key`` that is given this value; None where it is refused."""
    try:
        return value_of(load(Path(recipe), [*words, f"{key}={value}"]), key)
    except UserError:
        return None


def agrees_or_ends(folder: Path, other: str) -> None:
    """Raise AssertionError unless two processes, one of them with another value, end as they should."""
    words = arguments(folder, "train.steps=2")
    launch = Launch(folder, 2, train_one_apart, words, other.replace("{folder}", str(folder)))
    codes, key = launch.end(), other.partition("=")[0]
    output = launch.output.read_text()
    if key in PROCESS_KEYS:
        assert codes == [0, 0], output[-3000:]
    else:
        assert 0 not in codes, output[-3000:]
        assert "error: " in output, output[-3000:]
        assert key in output, output[-3000:]


def train_one_apart(words: list[str], other: str) -> int:
    """Train; the second process with one word more."""
    return train.main([*words, other] if os.environ["RANK"] == "1" else words)
