"""Checks of a dataclass against its annotations."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Gt, Le, Len, Lt

from tests.utils.config.configs import refusal
from utils.config.fields import OneOf, PositiveInt, Share, check, check_type
from utils.config.loading import load
from utils.errors import UserError

REGISTRY = {"alpha": 1, "beta": 2}


@dataclass
class Inner:
    weight: Annotated[float, Gt(0), Lt(2)] = 1.0


@dataclass
class Section:
    count: PositiveInt = 1
    maybe: PositiveInt | None = None
    share: Share = 0.5
    free: float = 0.0
    name: Annotated[str, OneOf(REGISTRY)] = "alpha"
    choice: Literal["x", "y"] = "x"
    pair: Annotated[list[Annotated[float, Ge(0)]], Len(2, 2)] = field(default_factory=lambda: [0.0, 1.0])
    paces: dict[Annotated[str, OneOf(REGISTRY)], PositiveInt] = field(default_factory=dict)
    least: Annotated[int, Ge(-1), Le(1)] = 0
    inner: Any = field(default_factory=Inner)


def test_the_defaults_pass():
    check(Section())


@pytest.mark.parametrize(
    "values",
    [
        {"maybe": 1}, {"share": 0.0}, {"share": 1.0}, {"free": -1e308}, {"name": "beta"}, {"paces": {"beta": 1}},
        {"least": -1}, {"least": 1}, {"inner": Inner(1.999)},
    ],
    ids=str,
)  # fmt: skip
def test_values_at_the_edge_pass(values):
    check(Section(**values))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"count": 0}, "count is 0 and must be at least 1."),
        ({"maybe": 0}, "maybe is 0 and must be at least 1."),
        ({"share": 1.5}, "share is 1.5 and must be at most 1."),
        ({"share": float("nan")}, "share is nan and must be at least 0."),
        ({"free": float("inf")}, "free is inf and must be finite."),
        ({"free": float("nan")}, "free is nan and must be finite."),
        ({"name": "bet"}, "name 'bet' is unknown; did you mean 'beta'? Valid are: beta, alpha."),
        ({"pair": [0.0]}, "pair is [0.0] and must have 2 entries."),
        ({"pair": [0.0, -1.0]}, "pair[1] is -1.0 and must be at least 0."),
        ({"pair": [0.0, float("inf")]}, "pair[1] is inf and must be finite."),
        ({"pair": [0.0, ["1"]]}, "pair[1] is ['1'] and must be a number."),
        ({"paces": {"bet": 1}}, "paces: 'bet' is unknown; did you mean 'beta'? Valid are: beta, alpha."),
        ({"paces": {"beta": 0}}, "paces.beta is 0 and must be at least 1."),
        ({"least": 2}, "least is 2 and must be at most 1."),
        ({"inner": Inner(0.0)}, "inner.weight is 0.0 and must be above 0."),
        ({"inner": Inner(2.0)}, "inner.weight is 2.0 and must be below 2."),
    ],
    ids=lambda x: str(x) if isinstance(x, dict) else "",
)
def test_the_sentence_names_key_value_and_bound(values, sentence):
    with pytest.raises(UserError) as caught:
        check(Section(**values))
    assert str(caught.value) == sentence


def test_a_name_that_was_registered_later_is_known(monkeypatch):
    monkeypatch.setitem(REGISTRY, "gamma", 3)
    check(Section(name="gamma"))


@pytest.mark.parametrize(
    ("hint", "value", "sentence"),
    [
        (Literal["x", "y"], "z", "key 'z' is unknown; Valid are: x, y."),
        (PositiveInt, "many", "key is 'many' in a.yaml and must be a whole number."),
        (PositiveInt | None, "many", "key is 'many' in a.yaml and must be a whole number."),
        (float, None, "key is null in a.yaml and must be a number."),
        (bool, "maybe", "key is 'maybe' in a.yaml and must be true or false."),
    ],
)
def test_a_value_of_the_wrong_type(hint, value, sentence):
    with pytest.raises(UserError) as caught:
        check_type("key", "a.yaml", value, hint)
    assert str(caught.value) == sentence


@pytest.mark.parametrize("value", [2**63, 2**70])
@pytest.mark.parametrize("key", ["seed", "guard.patience", "penalty.every.r1", "model.latent_dim"])
def test_a_whole_number_beyond_64_bits(value, key, empty):
    assert f"{key} is {value} and must be at most {2**63 - 1}" in refusal(empty, f"{key}={value}")


def test_a_seed_below_64_bits(empty):
    assert "must be at least" in refusal(empty, f"seed={-(2**63) - 1}")


def test_the_largest_whole_numbers(empty):
    assert load(empty, [f"seed={-(2**63)}", f"guard.patience={2**63 - 1}"]).guard.patience == 2**63 - 1


@pytest.mark.parametrize(
    "text",
    [
        "run.threads=2147483648", "run.threads=4097", "penalty.clip=1e308", "penalty.clip=4e38", "run.timeout=604801",
        "data.name=folder data.workers=1025", "model.name=mlp model.depth=1001", "model.name=r3gan model.blocks=1001",
        "model.name=stylegan2 model.mapping_layers=1001",
        "game.name=adaptation data.name=moons model.name=dense model.critic_depth=1001",
    ],
)  # fmt: skip
def test_what_torch_cannot_hold(empty, text):
    assert "and must be at most" in refusal(empty, *text.split())
