"""What a word of the command line or a line of a file holds: text as it stands, numbers, YAML, references."""

import dataclasses
import time
from typing import get_origin

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.utils.config.configs import refusal, value_of
from utils.config import fields
from utils.config.loading import load
from utils.config.reading import hint_of, is_override
from utils.config.sections import kinds
from utils.config.text import to_yaml

FOLDER = ["data.name=folder"]
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")).filter(
    lambda text: text != "???" and "${" not in text
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TEXT)
@example("photos #2")
@example("#")
@example("&x")
@example("*x")
@example("a: b")
@example("[a")
@example("{a")
@example("@a")
@example("%a")
@example("!a")
@example("'a'")
@example('"a"')
@example(" a ")
@example("null")
@example("~")
@example("a\nb\n\n  c: d\n")
@example("---")
@example("...")
@example("\\")
@example("\\n\t\r\x85\u2028\ufeff\x07")
@example("$HOME $ \\$")
@example("a " * 1000)
@example("=a=b")
def test_text_comes_out_as_it_went_in_and_survives_the_config_of_the_run(empty, tmp_path, text):
    config = load(empty, [*FOLDER, f"data.root={text}"])
    assert config.data.root == text
    again = tmp_path / "config.yaml"
    again.write_text(to_yaml(config), encoding="utf-8")
    assert load(again, []) == config


def test_text_with_the_looks_of_a_reference_survives_the_config_of_the_run(write, empty):
    for text in (r"\${seed}", r"a\\\${seed}", r"\${seed} and ${seed}"):
        config = load(empty, [*FOLDER, f"data.root={text}"])
        assert "${seed}" in config.data.root
        assert load(write(to_yaml(config)), []) == config


def test_a_reference_to_another_key_is_its_value(empty, write):
    assert load(empty, ["run.name=exp-${seed}", "seed=7"]).run.name == "exp-7"
    assert load(write("run: {name: 'exp-${train.steps}'}\ntrain: {steps: 5}\n"), []).run.name == "exp-5"


@pytest.mark.parametrize(
    "text",
    [
        "${oc.env:HOME}",
        "a ${oc.env:HOME} b",
        "${oc.decode:${seed}}",
        "${${seed}:x}",
        "${oc.env:A,{b: c}}",
        "${oc.env:A,'}'}",
    ],
)
def test_a_reference_to_the_environment_is_refused(empty, write, monkeypatch, text):
    monkeypatch.setenv("HOME", "secret")
    for words in (refusal(empty, f"run.name={text}"), refusal(write(f"run: {{name: {json(text)}}}\n"))):
        assert "${seed}" in words
        assert "secret" not in words
    assert "secret" not in refusal(empty, f"augment.policy=[{json(text)}]")


def json(text: str) -> str:
    return f'"{text}"'


@pytest.mark.parametrize("key", ["train.steps", "log.every", "seed", "checkpoint.keep", "burn_in.images"])
@pytest.mark.parametrize("text", ["1e5", "1E5", "100000", "100_000", "1.0e5", "100000.0"])
def test_a_whole_number_in_any_notation(empty, write, key, text):
    value = value_of(load(empty, [f"{key}={text}"]), key)
    assert value == 100_000
    assert type(value) is (float if key == "burn_in.images" else int)
    section, _, name = key.rpartition(".")
    line = f"{section}: {{{name}: {text}}}\n" if section else f"{name}: {text}\n"
    assert value_of(load(write(line), []), key) == 100_000


def test_whole_numbers_in_lists_and_maps(empty):
    assert load(empty, ["penalty.r1=1", "penalty.every={r1: 1e1}"]).penalty.every == {"r1": 10}
    assert load(empty, ["penalty.r1=1", "penalty.every.r1=1e1"]).penalty.every == {"r1": 10}
    assert load(empty, ["model.name=resnet_gan", "model.attention=[1.6e1]"]).model.attention == [16]


@pytest.mark.parametrize("text", ["1.5", "1e-1", "1e999999999", "1e400", "nan", "inf", "", "0x10", "1 0"])
def test_no_whole_number(empty, text):
    assert refusal(empty, f"train.steps={text}").endswith("must be a whole number.")


@pytest.mark.parametrize("text", ["null", "~", "NULL"])
def test_null_is_none_where_a_value_may_be_missing_and_text_elsewhere(empty, text):
    config = load(empty, ["optimizer.schedule=constant", f"train.steps={text}", *FOLDER, f"data.root={text}"])
    assert config.train.steps is None
    assert config.data.root == text


@pytest.mark.parametrize(
    ("override", "form"),
    [
        ("optimizer.betas=0.0,0.99", "optimizer.betas=[0.5,0.99]"),
        ("optimizer.betas=[0.0,0.99", "optimizer.betas=[0.5,0.99]"),
        ("optimizer.betas=", "optimizer.betas=[0.5,0.99]"),
        ("optimizer.betas=&a [*a]", "optimizer.betas=[0.5,0.99]"),
        ("augment.policy=color", "augment.policy=[first,second]"),
        ("augment.policy=[color: @", "augment.policy=[first,second]"),
        ("penalty.every={r1: 4", "penalty.every.r1=4"),
        ("penalty.schedule={r1", "penalty.schedule.r1=linear_decay"),
        ("train={steps: 4", "train.key=value"),
    ],
)
def test_a_list_or_map_that_cannot_be_read_is_answered_with_the_right_form(empty, override, form):
    text = refusal(empty, override)
    assert form in text
    assert "unicode string" not in text


def test_bytes_that_are_no_text_are_refused(empty):
    assert "UTF-8" in refusal(empty, *FOLDER, "data.root=a\udcff")


@pytest.mark.parametrize("text", ["run.name=???", "seed=???", "optimizer.betas=???", "optimizer.betas=[???, 0]"])
def test_a_missing_value_is_refused(empty, text):
    refusal(empty, text)


DEEP = "[" * 30 + "]" * 30
BOMB = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
FILES = {
    "missing": ("seed: ???\n", "'???'"),
    "missing-inside": ("run:\n  name: ???\n", "'???'"),
    "key-twice": ("seed: 1\nseed: 2\n", "'seed' stands there twice"),
    "key-twice-inside": ("train:\n  steps: 1\n  steps: 2\n", "'steps' stands there twice"),
    "section-twice": ("train: {steps: 1}\nseed: 1\ntrain: {batch_size: 2}\n", "'train' stands there twice"),
    "anchor-in-itself": ("train: &a [*a]\n", "levels deep"),
    "map-in-itself": ("train: &a {steps: *a}\n", "levels deep"),
    "merge-of-itself": ("train: &a {!!merge <<: *a}\n", "not valid YAML"),
    "deep": (f"seed: {DEEP}\n", "levels deep"),
    "very-deep": ("seed: " + "[" * 50_000 + "\n", "too deep"),
    "very-deep-blocks": ("- " * 5_000 + "a\n", "too deep"),
    "bomb": (BOMB, "more than 10000 values"),
    "escape-beyond-unicode": ('seed: "\\UFFFFFFFF"\n', "not valid YAML"),
}


@pytest.mark.parametrize(("content", "words"), FILES.values(), ids=FILES)
def test_refused_files(write, content, words):
    began = time.monotonic()
    text = refusal(write(content))
    assert "recipe.yaml" in text
    assert words in text
    assert time.monotonic() - began < 10


def test_an_alias_is_the_value_of_its_anchor(write):
    config = load(write("optimizer: {generator_lr: &lr 3e-4, critic_lr: *lr}\n"), [])
    assert config.optimizer.generator_lr == config.optimizer.critic_lr == 3e-4


def test_a_chain_of_bases_has_an_end(write):
    for i in range(2000):
        path = write(f"base: {i - 1}.yaml\n" if i else "seed: 3\n", f"{i}.yaml")
    assert "join some of these files" in refusal(path)
    assert load(path.with_name("50.yaml"), []).seed == 3


@pytest.mark.parametrize("section", ["model", "game", "data"])
def test_a_key_is_of_the_same_type_in_all_kinds_of_a_section(section):
    for name, kind in kinds(section):
        for field in dataclasses.fields(kind):
            mine, anyone = fields.plain(fields.hints(kind)[field.name]), hint_of(f"{section}.{field.name}")
            assert (get_origin(mine[0]), mine[1]) == (get_origin(anyone[0]), anyone[1]), f"{name}: {field.name}"


@pytest.mark.parametrize("word", ["data.root=a b", "seed=#"])
def test_text_with_signs_is_an_override(word):
    assert is_override(word)


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("data.resolution=64", 64),
        ("data.resolution=1e2", 100),
        ("data.resolution=[96,64]", [96, 64]),
        ("data.background=white", "white"),
        ("data.background=#ff8000", "#ff8000"),
        ("data.background=128", 128),
        ("data.background=[255,128,0]", [255, 128, 0]),
    ],
)
def test_a_key_of_more_than_one_type(empty, word, value):
    config = load(empty, [*FOLDER, word])
    key = word.partition("=")[0].removeprefix("data.")
    assert getattr(config.data, key) == value
    empty.write_text(to_yaml(config))
    assert getattr(load(empty, []).data, key) == value


@pytest.mark.parametrize(
    "text", ["0", "-8", "abc", "1.5", "true", "null", "", "[8]", "[8,8,8]", "[8,0]", "[8,a]", "[8"]
)
def test_what_is_no_resolution(empty, text):
    assert "data.resolution" in refusal(empty, *FOLDER, f"data.resolution={text}")


@pytest.mark.parametrize("text", ["whitish", "-1", "256", "1.5", "", "[1,2]", "[1,2,256]", "[1,2,a]"])
def test_what_is_no_colour(empty, text):
    assert "data.background" in refusal(empty, *FOLDER, f"data.background={text}")
