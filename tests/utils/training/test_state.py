"""The state of a checkpoint: read as it was written, of this format and the one before, and nothing else."""

import json
from dataclasses import replace
from typing import Any

import pytest

from utils.errors import UserError
from utils.training.state import FORMAT, BestRecord, RunState, Sizes

STATE = RunState(
    12, {"seed": 0, "data.name": "é", "optimizer.betas": [0.5, 0.99]}, (3, 7), Sizes((1, 8, 8), 10, 4), 100, 50,
    BestRecord("SND", 0.25, 10, True), data="5f",
)  # fmt: skip


@pytest.mark.parametrize("state", [STATE, RunState(0), replace(STATE, best=BestRecord("modes", 8, 10, True))])
def test_what_is_read_is_what_was_written(state):
    read = RunState.from_json(state.to_json())
    assert read == state
    assert isinstance(read.sizes.shape, tuple)


def test_the_text_is_readable():
    content = json.loads(STATE.to_json())
    assert content["format"] == FORMAT == 5
    assert content["sizes"] == {"shape": [1, 8, 8], "classes": 10, "outputs": 4, "aspect": None}
    assert content["best"] == {"metric": "SND", "value": 0.25, "step": 10, "higher_is_better": True}
    assert len(STATE.to_json().splitlines()) > 20


def test_a_state_of_the_first_format():
    """As it was written before a state had a format; games without a domain critic had no ``outputs``."""
    text = b"""{"step": 10, "config": {"seed": 0}, "skipped": [4], "shape": [1, 8, 8], "classes": 10,
                "train_samples": 1438, "target_samples": null}"""
    assert RunState.from_json(text) == RunState(10, {"seed": 0}, (4,), Sizes((1, 8, 8), 10), 1438)
    text = b"""{"step": 10, "config": {}, "skipped": [], "shape": [2], "classes": 2, "outputs": 3,
                "train_samples": 300, "target_samples": 200}"""
    assert RunState.from_json(text) == RunState(10, {}, (), Sizes((2,), 2, 3), 300, 200)


@pytest.mark.parametrize("text", [b'{"step": 3}', b'{"step": 3, "format": 2}', b'{"step": 3, "format": 5}'])
def test_absent_keys_have_their_defaults(text):
    assert RunState.from_json(text) == RunState(3)


@pytest.mark.parametrize("number", [6, 17])
def test_a_later_format_is_refused_and_not_taken_for_damage(number):
    with pytest.raises(UserError, match=f"step 12 has format {number}.* up to 5.* use the version") as error:
        RunState.from_json(json.dumps({"step": 12, "format": number, "more": 1}).encode())
    assert "\n" not in str(error.value)


BEST = json.loads(STATE.to_json())["best"]
WRONG = {
    "step": [None, "12", 1.5, True, [12]],
    "config": [None, [], "x"],
    "skipped": [None, 3, ["3"], [1.5], [None], {"0": 1}, [True]],
    "sizes": [
        None, [], {"shape": [1]}, {"shape": 1, "classes": 0}, {"shape": [1.0], "classes": 0},
        {"shape": [1], "classes": None}, {"shape": [1], "classes": 1, "width": 1},
    ],
    "train_samples": ["7", 7.0, False],
    "target_samples": [[]],
    "data": [7, [], True],
    "history": [None, "x", [3]],
    "best": [
        {}, 5, {**BEST, "value": "high"}, {**BEST, "value": float("nan")}, {**BEST, "value": float("inf")},
        {**BEST, "higher_is_better": 1},
    ],
    "format": ["2", None, 1.5],
    "surplus": [1],
}  # fmt: skip


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG.items() for value in values], ids=str)
def test_a_wrong_name_or_type_is_damage(key: str, value: Any):
    content = {**json.loads(STATE.to_json()), key: value}
    with pytest.raises((ValueError, TypeError)) as error:
        RunState.from_json(json.dumps(content).encode())
    assert "\n" not in str(error.value)


def test_the_key_is_named():
    content = {**json.loads(STATE.to_json()), "train_samples": "7"}
    with pytest.raises(ValueError, match=r"state\.json: train_samples is '7' and must be of type int"):
        RunState.from_json(json.dumps(content).encode())
    with pytest.raises(ValueError, match=r"state\.json has an unknown key 'colour'"):
        RunState.from_json(b'{"step": 1, "format": 2, "colour": 1}')


@pytest.mark.parametrize("text", [b"", b"{", b"null", b"5", b"[]", b'"text"', b"{}", b"\xff", b"\0\0"])
def test_garbage_is_damage(text):
    with pytest.raises((ValueError, TypeError)):
        RunState.from_json(text)


@pytest.mark.parametrize(
    ("ours", "theirs", "higher_is_better", "beats"),
    [(2, 1, True, True), (1, 2, True, False), (2, 1, False, False), (1, 2, False, True), (1, 1, True, True)],
)
def test_which_record_is_better(ours, theirs, higher_is_better, beats):
    first, second = (BestRecord("m", float(value), 1, higher_is_better) for value in (ours, theirs))
    assert first.beats(second) is beats
    assert first.beats(None)
