"""Configs: what is read, what is refused and in which words, and what comes back out."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from adversarial.objectives import OBJECTIVES
from adversarial.penalties import PENALTIES
from adversarial.rules import RULES
from adversarial.schedules import SCHEDULES
from models import FAMILIES
from utils.config.loading import (
    OPTIMIZERS,
    RUNTIME_KEYS,
    Config,
    comments,
    differences,
    identity,
    is_override,
    load,
    load_run,
    to_yaml,
)
from utils.data.datasets import DATASETS
from utils.data.domains import DOMAINS
from utils.data.image_files import ImageFiles
from utils.data.image_sets import MnistM, TorchvisionSet
from utils.data.sections import data_section
from utils.data.vectors import VectorFiles
from utils.errors import UserError
from utils.tasks.generation import Generation
from utils.tasks.registry import TASKS, task_of

ROOT = Path(__file__).parents[3]
RECIPES = sorted((ROOT / "configs").glob("*.yaml"))
SECTIONS = [f.name for f in dataclasses.fields(Config) if dataclasses.is_dataclass(getattr(Config(), f.name))]


@pytest.fixture
def write(tmp_path):
    """Write a YAML file below the test's folder and give its path."""

    def write(text: str, name: str = "recipe.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


@pytest.fixture
def empty(write):
    """A recipe of defaults."""
    return write("", "empty.yaml")


def refusal(recipe: Path, *overrides: str) -> str:
    """The words of the UserError that loading must end with: one sentence."""
    with pytest.raises(UserError) as caught:
        load(recipe, list(overrides))
    return sentence(caught.value)


def sentence(error: UserError) -> str:
    text = str(error)
    assert "\n" not in text
    assert text.endswith(".")
    return text


def keys_of(config: Config) -> list[str]:
    """Every key, dotted."""
    return ["seed", *(f"{s}.{f.name}" for s in SECTIONS for f in dataclasses.fields(getattr(config, s)))]


def value_of(config: Config, key: str):
    """The value at a dotted key."""
    for name in key.split("."):
        config = getattr(config, name)
    return config


def changed(config: Config, key: str) -> Config:
    """The config with another value of the same type at ``key``."""
    value = value_of(config, key)
    match value:
        case bool():
            value = not value
        case str():
            value += "-other"
        case list():
            value = [x / 2 for x in value] or ["other"]
        case dict():
            value = {**value, "r1": 2}
        case None:
            value = 0.5
        case _:
            value += 1
    if "." not in key:
        return dataclasses.replace(config, **{key: value})
    section, name = key.split(".")
    return dataclasses.replace(config, **{section: dataclasses.replace(getattr(config, section), **{name: value})})


# --- Bases and overrides


def test_an_empty_recipe_is_the_defaults_under_its_own_name(empty):
    want = Config()
    want.run.name = "empty"
    assert load(empty, []) == want


def test_a_file_of_comments_is_an_empty_recipe(write):
    assert load(write("# nothing yet\n"), []).seed == 0


def test_later_files_and_then_overrides_win(write):
    write("seed: 1\nlog: {every: 1}\nsample: {every: 1}\nevaluate: {every: 1}\n", "a.yaml")
    write("base: a.yaml\nseed: 2\nlog: {every: 2}\nsample: {every: 2}\n", "b.yaml")
    config = load(write("base: b.yaml\nseed: 3\nlog: {every: 3}\n", "c.yaml"), ["seed=4", "seed=5"])
    assert (config.seed, config.log.every, config.sample.every, config.evaluate.every) == (5, 3, 2, 1)
    assert config.run.name == "c"


def test_paces_of_penalties_are_inherited_one_by_one(write):
    write("penalty: {every: {r1: 16, path: 4}}\n", "a.yaml")
    config = load(write("base: a.yaml\npenalty: {every: {r1: 8}}\n"), ["penalty.every.gp=2"])
    assert config.penalty.every == {"r1": 8, "path": 4, "gp": 2}


def test_a_base_is_relative_to_the_file_that_names_it(write, monkeypatch, tmp_path):
    write("seed: 7\n", "family/common/base.yaml")
    write("base: common/base.yaml\n", "family/middle.yaml")
    path = write("base: ../family/middle.yaml\n", "mine/recipe.yaml")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load(path, []).seed == 7


def test_an_absolute_base(write):
    base = write("seed: 7\n", "far/base.yaml")
    assert load(write(f"base: {base}\n"), []).seed == 7


def test_two_files_may_share_a_base_through_different_chains(write):
    write("seed: 7\n", "base.yaml")
    write("base: base.yaml\n", "middle.yaml")
    assert load(write("base: middle.yaml\n"), []).seed == 7


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_circle_of_bases_is_refused(write, length):
    for i in range(length):
        path = write(f"base: file{(i + 1) % length}.yaml\n", f"file{i}.yaml")
    assert "circle" in refusal(path)


def test_a_missing_base_is_named_with_its_neighbours(write):
    write("seed: 1\n", "common.yaml")
    text = refusal(write("base: comon.yaml\n"))
    assert "comon.yaml" in text
    assert "did you mean" in text
    assert "common.yaml'" in text


def test_a_missing_recipe_is_named_with_its_neighbours(write, tmp_path):
    write("", "digits.yaml")
    assert f"did you mean '{tmp_path}/digits.yaml'" in refusal(tmp_path / "digit.yaml")


def test_a_missing_recipe_in_a_folder_without_any_names_those_of_the_house(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert "configs/digits.yaml" in refusal(tmp_path / "nothing.yaml")


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("seed=3", "seed", 3),
        ("train.steps=10_000", "train.steps", 10_000),
        ("optimizer.critic_lr=1e-4", "optimizer.critic_lr", 1e-4),
        ("optimizer.critic_lr=1", "optimizer.critic_lr", 1.0),
        ("optimizer.betas=[0.0,0.9]", "optimizer.betas", [0.0, 0.9]),
        ("game.conditional=true", "game.conditional", True),
        ("run.dir=/a/b c", "run.dir", "/a/b c"),
        ("run.dir=a=b", "run.dir", "a=b"),
        ("run.name=a-b_c.1", "run.name", "a-b_c.1"),
        ("run.name=é", "run.name", "é"),
        ("penalty.every.r1=16", "penalty.every", {"r1": 16}),
        ("penalty.every={r1: 16, path: 4}", "penalty.every", {"r1": 16, "path": 4}),
        ("penalty.schedule.gp=linear_decay", "penalty.schedule", {"gp": "linear_decay"}),
        ("run.name=007", "run.name", "007"),
        ("run.name=1.10", "run.name", "1.10"),  # not 1.1, which is another run
        ("run.name=2e-4", "run.name", "2e-4"),
        ("run.name=on", "run.name", "on"),
        ("run.name=1:30", "run.name", "1:30"),
        ("run.name=2024-01-31", "run.name", "2024-01-31"),  # to YAML 1.1 a date
        ("update.rule=alternating", "update.rule", "alternating"),
        ("model.generator_norm=none", "model.generator_norm", "none"),
        ("train.precision=bf16", "train.precision", "bf16"),
        ("train.precision=no", "train.precision", "no"),  # to YAML 1.1 a bare no is false
    ],
    ids=lambda x: x if isinstance(x, str) else repr(x),
)
def test_an_override(empty, override, key, value):
    got = value_of(load(empty, [override]), key)
    assert got == value
    assert type(got) is type(value)


def test_precision_no_in_a_file(write):
    """The default's own spelling, as the comment of the field gives it."""
    assert load(write("train:\n  precision: no\n"), []).train.precision == "no"


@pytest.mark.parametrize("source", ["file", "override"])
def test_integer_betas_come_out_as_floats(write, empty, source):
    config = (
        load(write("optimizer: {betas: [0, 0]}\n"), []) if source == "file" else load(empty, ["optimizer.betas=[0,0]"])
    )
    assert [type(beta) for beta in config.optimizer.betas] == [float, float]


def test_a_number_that_yaml_takes_for_text_becomes_a_float(write):
    """To YAML 1.1, 2e-4 without a dot is a string."""
    assert load(write("optimizer: {critic_lr: 2e-4}\n"), []).optimizer.critic_lr == 2e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_section_has_the_fields_of_its_family(empty, family):
    assert type(load(empty, [f"model.name={family}"]).model) is FAMILIES[family].config


def test_loading_leaves_the_schema_alone(empty):
    load(empty, ["optimizer.betas=[0,0]", "seed=9"])
    assert load(empty, []).optimizer.betas == [0.5, 0.999]


# --- What is refused. The words are what the sentence must contain: the key, and the valid names.


VECTORS = ["game.name=adaptation", "data.name=vectors"]
REFUSED = {
    "unknown-section": (["optimiser.eps=1"], ["'optimiser'", "did you mean 'optimizer'", "the command line"]),
    "unknown-key": (["train.step=1"], ["'train.step'", "did you mean 'steps'", "batch_size"]),
    "unknown-key-of-the-optimizer": (["optimizer.learning_rate=1"], ["'optimizer.learning_rate'", "generator_lr"]),
    "unknown-key-of-the-model": (["model.width=1"], ["'model.width'", "generator_width", "critic_width"]),
    "key-of-another-model": (["model.name=mlp", "model.critic_norm=batch"], ["'model.critic_norm'", "width", "depth"]),
    "unknown-key-of-the-data": (["data.size=1"], ["'data.size'", "resolution"]),
    "base-as-an-override": (["base=digits.yaml"], ["'base'"]),
    "empty-key": (["update.=1"], ["'update.'"]),
    "unknown-model": (["model.name=dcgn"], ["model.name", "did you mean 'dcgan'", *FAMILIES]),
    "unknown-objective": (["game.objective=hing"], ["game.objective", "did you mean 'hinge'", *OBJECTIVES]),
    "unknown-rule": (["update.rule=singlepass"], ["update.rule", "did you mean 'single_pass'", *RULES]),
    "unknown-schedule-of-λ": (["update.schedule=cosine"], ["update.schedule", "cosine_decay", *SCHEDULES]),
    "unknown-schedule-of-γ": (["penalty.schedule.r1=linear"], ["penalty.schedule.r1", "linear_decay"]),
    "unknown-schedule-of-the-rates": (["optimizer.schedule=const"], ["optimizer.schedule", "did you mean 'constant'"]),
    "unknown-optimizer": (["optimizer.name=adan"], ["optimizer.name", "did you mean 'adam'", "sgd"]),
    "unknown-device": (["run.device=cuda"], ["run.device", "auto", "cpu"]),
    "unknown-precision": (["train.precision=bf_16"], ["train.precision", "did you mean 'bf16'"]),
    "fp16": (["train.precision=fp16"], ["train.precision=fp16", "bf16"]),
    "text-for-an-integer": (["train.steps=many"], ["train.steps", "many"]),
    "seed-none": (["seed=none"], ["seed", "none"]),
    "null-seed": (["seed=null"], ["seed"]),
    "no-value": (["seed="], ["seed"]),
    "fraction-for-an-integer": (["train.steps=1.5"], ["train.steps", "1.5"]),
    "truth-for-an-integer": (["train.steps=true"], ["train.steps"]),
    "list-for-an-integer": (["train.steps=[1]"], ["train.steps"]),
    "section-for-an-integer": (["seed.x=1"], ["seed"]),
    "text-for-a-number": (["penalty.r1=strong"], ["penalty.r1", "strong"]),
    "text-for-a-truth": (["train.compile=maybe"], ["train.compile", "maybe"]),
    "null-text": (["update.rule=null"], ["update.rule"]),
    "section-for-text": (["run.name.x=1"], ["run.name"]),
    "number-for-a-list": (["optimizer.betas=0.5"], ["optimizer.betas"]),
    "section-for-a-list": (["optimizer.betas.0=0.5"], ["optimizer.betas"]),
    "null-list": (["optimizer.betas=null"], ["optimizer.betas"]),
    "short-list": (["optimizer.betas=[0.5]"], ["optimizer.betas", "two numbers"]),
    "long-list": (["optimizer.betas=[0.5,0.9,0.9]"], ["optimizer.betas", "two numbers"]),
    "null-in-a-list": (["optimizer.betas=[0.5,null]"], ["optimizer.betas"]),
    "text-in-a-list": (["optimizer.betas=[0.5,big]"], ["optimizer.betas", "big"]),
    "list-in-a-list": (["optimizer.betas=[0.5,[0.9]]"], ["optimizer.betas"]),
    "β-of-1": (["optimizer.betas=[0.5,1.0]"], ["optimizer.betas"]),
    "negative-β": (["optimizer.betas=[-0.5,0.9]"], ["optimizer.betas"]),
    "burn-in-of-no-length": (["burn_in.lr=4"], ["burn_in.lr", "burn_in.images="]),
    "burn-in-of-no-length-to-a-half-life": (["burn_in.ema_half_life=0"], ["burn_in.ema_half_life", "burn_in.images="]),
    "burn-in-of-no-length-of-γ": (["burn_in.gamma=10"], ["burn_in.gamma", "burn_in.images="]),
    "burn-in-of-a-p-that-is-adaptive": (
        ["burn_in.images=9", "burn_in.augment_p=0", "augment.name=ada"],
        ["burn_in.augment_p", "augment.name is ada", "augment.name=scheduled"],
    ),
    "burn-in-from-a-p-above-1": (
        ["burn_in.images=9", "burn_in.augment_p=2", "augment.name=scheduled"],
        ["burn_in.augment_p is 2", "at most 1"],
    ),
    "burn-in-of-negative-length": (["burn_in.images=-1"], ["burn_in.images", "at least 0"]),
    "burn-in-of-sgd": (
        ["burn_in.images=9", "burn_in.beta2=0.9", "optimizer.name=sgd"],
        ["burn_in.beta2", "optimizer.name"],
    ),
    "burn-in-from-a-β-of-1": (["burn_in.images=9", "burn_in.beta2=1"], ["burn_in.beta2", "below 1"]),
    "scalar-for-a-section": (["train=5"], ["'train'", "section"]),
    "null-for-a-section": (["train=null"], ["'train'", "section"]),
    "list-for-a-section": (["train=[1]"], ["'train'", "section"]),
    "name-for-the-model": (["model=mlp"], ["model", *FAMILIES]),
    "list-for-the-model": (["model=[mlp]"], ["model", *FAMILIES]),
    "null-for-the-model": (["model=null"], ["model", *FAMILIES]),
    "null-name-of-the-model": (["model.name=null"], ["model.name", *FAMILIES]),
    "no-equals-sign": (["update.rule"], ["'update.rule'", "key=value"]),
    "no-key": (["=3"], ["'=3'", "key=value"]),
    "a-flag": (["--seed=3"], ["'--seed=3'", "key=value"]),
    "spaces-around-the-sign": (["seed = 3"], ["'seed = 3'", "key=value"]),
    "open-bracket": (["optimizer.betas=[0.5,"], ["optimizer.betas=[0.5,"]),
    "open-reference": (["run.name=${"], ["run.name"]),
    "reference-to-nothing": (["run.name=${nothing}"], ["run.name", "nothing"]),
    "reference-of-the-model-to-nothing": (["model.name=${oc.env:FLIPSIDE_NO_SUCH}"], ["FLIPSIDE_NO_SUCH"]),
    "reference-to-itself": (["seed=${seed}"], ["seed"]),
    "line-break-in-a-name": (['update.rule="a\\nb"'], ["update.rule"]),
    "line-break-in-place-of-a-section": (['train="a\\nb"'], ["'train'"]),
    "line-break-without-a-key": (["a\nb"], ["key=value"]),
    "compile-with-r1": (
        ["train.compile=true", "penalty.r1=1", "game.name=adaptation", "data.name=moons"],
        ["train.compile", "penalty.r1"],
    ),
    "compile-with-gp": (
        ["train.compile=true", "penalty.gp=1", "game.name=adaptation", "data.name=moons"],
        ["train.compile", "penalty.gp"],
    ),
    "penalties-never": (["penalty.every.gp=0"], ["penalty.every.gp is 0", "at least 1"]),
    "one-pace-of-all-penalties": (["penalty.every=16"], ["penalty.every", "each penalty", "penalty.every.r1"]),
    "one-schedule-of-all-penalties": (["penalty.schedule=linear_decay"], ["penalty.schedule", "penalty.schedule.r1"]),
    "pace-of-an-unknown-penalty": (["penalty.every.r3=4"], ["penalty.every", "'r3'", *PENALTIES]),
    "schedule-of-an-unknown-penalty": (
        ["penalty.schedule={ada: constant}"],
        ["penalty.schedule", "'ada'", *PENALTIES],
    ),
    "pace-that-is-no-number": (["penalty.every.r1=often"], ["penalty.every", "often"]),
    "null-pace": (["penalty.every.r1=null"], ["penalty.every"]),
    "null-paces": (["penalty.every=null"], ["penalty.every"]),
    "negative-weight": (["penalty.lecam=-1"], ["penalty.lecam is -1", "at least 0"]),
    "negative-probability": (["augment.name=scheduled", "augment.p=-0.5"], ["augment.p is -0.5", "at least 0"]),
    "target-of-signs": (["augment.name=ada", "augment.target=2"], ["augment.target is 2", "at most 1"]),
    "schedule-of-augmentation": (["augment.schedule=ramp"], ["augment.schedule", "ramp", "linear_growth"]),
    "empty-packs": (["game.pack=0"], ["game.pack is 0", "at least 1"]),
    "schedule-of-λ-without-an-end": (
        ["train.steps=null", "update.schedule=linear_growth"],
        ["update.schedule=linear_growth", "train.steps", "null", "update.schedule=constant"],
    ),
    "schedule-of-γ-without-an-end": (
        ["train.steps=null", "penalty.schedule.gp=linear_decay"],
        ["penalty.schedule.gp=linear_decay", "train.steps", "null", "penalty.schedule.gp=constant"],
    ),
    "schedule-of-the-rates-without-an-end": (
        ["train.steps=null", "optimizer.schedule=dann_lr"],
        ["optimizer.schedule=dann_lr", "train.steps", "null", "optimizer.schedule=constant"],
    ),
    "reused-fakes-in-a-single-pass": (
        ["update.reuse_fakes=true"],
        ["update.reuse_fakes", "alternating", "single_pass"],
    ),
    "reused-fakes-simultaneously": (
        ["update.reuse_fakes=true", "update.rule=simultaneous"],
        ["update.reuse_fakes", "alternating", "simultaneous"],
    ),
    "unknown-game": (["game.name=generaton"], ["game.name", "did you mean 'generation'", *TASKS]),
    "unknown-data": (["data.name=digit"], ["data.name", "did you mean 'digits'", *DATASETS]),
    "data-of-another-game": (["game.name=adaptation"], ["data.name 'digits' is unknown", *DOMAINS]),
    "line-break-in-the-data": (['data.name="a\\nb"'], ["data.name"]),
    "line-break-in-the-game": (['game.name="a\\nb"'], ["game.name"]),
    "key-of-another-set": (["data.name=ring", "data.workers=2"], ["'data.workers'", "Valid are: name"]),
    "no-such-fit": (["data.fit=padd"], ["data.fit", "exact", "pad", "crop"]),
    "no-loader-processes": (["data.name=folder", "data.workers=-1"], ["data.workers is -1", "at least 0"]),
    "no-memory": (["data.name=zip", "data.resident_gib=nan"], ["data.resident_gib is nan", "at least 0"]),
    "nothing-held-out": ([*VECTORS, "data.validation=0"], ["data.validation is 0.0", "above 0"]),
    "all-held-out": ([*VECTORS, "data.validation=1"], ["data.validation is 1.0", "below 1"]),
    "run-name-with-a-slash": (["run.name=a/b"], ["run.name", "a/b", "run.dir"]),
    "run-name-upwards": (["run.name=.."], ["run.name", "run.dir"]),
    "run-name-of-here": (["run.name=."], ["run.name", "run.dir"]),
}


@pytest.mark.parametrize(("overrides", "words"), REFUSED.values(), ids=REFUSED)
def test_refused_overrides(empty, overrides, words):
    text = refusal(empty, *overrides)
    assert [word for word in words if word not in text] == []


REFUSED_BY_THE_GAME = {
    "networks-of-another-game": (["model.name=dense"], ["model.name=dense", "game.name=generation", "dcgan", "mlp"]),
    "unknown-best": (
        ["checkpoint.best=FID"],
        ["checkpoint.best=FID", "game.name=generation", "auto", "none", *Generation.metrics],
    ),
}


@pytest.mark.parametrize(("overrides", "words"), REFUSED_BY_THE_GAME.values(), ids=REFUSED_BY_THE_GAME)
def test_overrides_that_the_game_refuses(empty, overrides, words):
    """Which names are valid depends on the game."""
    config = load(empty, overrides)
    with pytest.raises(UserError) as caught:
        task_of(config)
    text = sentence(caught.value)
    assert [word for word in words if word not in text] == []


@pytest.mark.parametrize("best", ["auto", "none", *Generation.metrics])
def test_metrics_by_which_the_best_model_may_be_chosen(empty, best):
    assert task_of(load(empty, [f"checkpoint.best={best}"])) is TASKS["generation"]


@pytest.mark.parametrize(
    "override",
    [
        "train.steps=0", "train.batch_size=0", "game.margin=-1", "update.warmup=-1", "penalty.gp=-0.5",
        "optimizer.momentum=-1", "optimizer.weight_decay=-1", "update.critic_steps=0", "update.coefficient=-1",
        "penalty.r1=-0.5", "penalty.r2=-0.5", "penalty.r1=nan", "optimizer.generator_lr=-1", "optimizer.critic_lr=-1",
        "optimizer.critic_lr=nan", "optimizer.warmup=-1", "ema.half_life=-1", "ema.ramp_up=-0.1", "log.every=0",
        "guard.score_gap=-1",
        "guard.patience=0", "guard.rollbacks=-1", "train.accumulate=0",
        "sample.every=-1", "sample.count=0", "evaluate.every=-1", "evaluate.samples=1",
        "checkpoint.every=0", "checkpoint.keep=1", "data.resolution=0", "model.latent_dim=0", "model.critic_width=-1",
    ],
)  # fmt: skip
def test_out_of_range(empty, override):
    key, value = override.split("=")
    text = refusal(empty, override)
    assert key in text
    assert "at least" in text
    assert value.lstrip("-0.") in text


@pytest.mark.parametrize("key", ["penalty.r1", "optimizer.critic_lr", "update.coefficient", "ema.half_life"])
@pytest.mark.parametrize("value", [".inf", "inf", "Infinity"])
def test_infinite(empty, key, value):
    text = refusal(empty, f"{key}={value}")
    assert key in text


@pytest.mark.parametrize("value", ["0", "-1e-8"])
def test_an_epsilon_that_would_divide_by_zero(empty, value):
    assert "optimizer.eps" in refusal(empty, f"optimizer.eps={value}")


@pytest.mark.parametrize(
    "override",
    [
        "train.steps=1", "train.steps=null", "train.batch_size=1", "update.coefficient=0", "penalty.r1=0",
        "optimizer.critic_lr=0", "ema.half_life=0", "ema.ramp_up=0", "sample.every=0", "evaluate.every=0",
        "checkpoint.keep=2", "data.resolution=1", "optimizer.betas=[0,0]",
    ],
)  # fmt: skip
def test_the_edge_of_a_range_is_in_it(empty, override):
    load(empty, [override])


FILES = {
    "broken": ("seed: [1\n", ["not valid YAML"]),
    "tab": ("train:\n\tsteps: 1\n", ["not valid YAML"]),
    "unknown-alias": ("seed: *nothing\n", ["not valid YAML"]),
    "python-object": ("seed: !!python/object/apply:os.getpid []\n", ["not valid YAML"]),
    "two-documents": ("seed: 1\n---\nseed: 2\n", ["not valid YAML"]),
    "date": ("seed: 2020-01-01\n", ["seed"]),
    "list": ("- seed\n- 1\n", ["key: value"]),
    "text": ("seed\n", []),
    "number": ("5\n", []),
    "unknown-key": ("sed: 1\n", ["'sed'", "did you mean 'seed'"]),
    "unknown-key-in-a-section": ("train:\n  step: 1\n", ["'train.step'", "did you mean 'steps'"]),
    "number-as-a-key": ("train:\n  1: 2\n", ["'train.1'"]),
    "null-as-a-key": ("null: 1\n", []),
    "scalar-for-a-section": ("train: 5\n", ["'train'", "section"]),
    "empty-section": ("train:\n", ["'train'", "section"]),
    "list-for-a-section": ("train: [1]\n", ["'train'", "section"]),
    "section-for-a-list": ("optimizer:\n  betas: {a: 1}\n", ["optimizer.betas"]),
    "text-for-an-integer": ("train:\n  steps: many\n", ["train.steps", "many"]),
}


@pytest.mark.parametrize(("content", "words"), FILES.values(), ids=FILES)
def test_refused_files(write, content, words):
    text = refusal(write(content))
    assert [word for word in ["recipe.yaml", *words] if word not in text] == []


@pytest.mark.parametrize("base", [".", "[a.yaml]", "{a: b}", "5", "a.yml"])
def test_a_base_that_is_no_file(write, base):
    refusal(write(f"base: {base}\n"))


def test_a_list_for_the_model_in_a_file(write):
    assert "dcgan" in refusal(write("model: [dcgan]\n"))


def test_a_list_over_the_model_of_a_base(write):
    write("model: {name: dcgan}\n", "base.yaml")
    assert "model" in refusal(write("base: base.yaml\nmodel: [dcgan]\n"))


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / "recipe.yaml").write_bytes(b"\xff\xfe\x00seed")
    assert "recipe.yaml" in refusal(tmp_path / "recipe.yaml")


def test_a_mistake_in_a_base_is_blamed_on_the_base(write):
    write("sed: 1\n", "base.yaml")
    text = refusal(write("base: base.yaml\n"))
    assert "base.yaml" in text
    assert "recipe.yaml" not in text


def test_files_that_disagree_about_what_a_key_is(write):
    """A list in the base and a section in the recipe: neither can be merged into the other."""
    write("optimizer: {betas: [0.5, 0.9]}\n", "base.yaml")
    assert "optimizer.betas" in refusal(write("base: base.yaml\noptimizer: {betas: {first: 0.5}}\n"))


KEYS = keys_of(Config())
WORDS = st.text(st.characters(exclude_categories=("C", "Zl", "Zp")), max_size=8)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from([*KEYS, *SECTIONS]) | WORDS, WORDS), min_size=1, max_size=2))
@example([("optimizer.betas", "{}")])
@example([("update", "{}")])
@example([("model", "{name: mlp}")])
def test_any_override_is_taken_or_refused_in_one_sentence(empty, pairs):
    said = ""
    try:
        task_of(load(empty, [f"{key}={value}" for key, value in pairs]))
    except UserError as error:
        said = str(error)
    assert "\n" not in said


# --- Out again


def same_again(config: Config, folder: Path) -> Config:
    """The config by way of its own YAML."""
    path = folder / "again.yaml"
    path.write_text(to_yaml(config, header="two\nlines"))
    return load(path, [])


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipes_come_back_from_their_own_yaml(recipe, tmp_path):
    config = load(recipe, [])
    assert same_again(config, tmp_path) == config
    assert config.run.name == recipe.stem


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_run_loads_its_own_config(recipe, tmp_path):
    config = load(recipe, [])
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert load_run(tmp_path, []) == config


def test_a_run_can_be_read_with_another_place_of_its_data(tmp_path):
    (tmp_path / "config.yaml").write_text(to_yaml(Config(data=TorchvisionSet("mnist"))))
    assert load_run(tmp_path, ["data.root=elsewhere"]).data.root == "elsewhere"


def test_a_folder_without_a_config_is_no_run(tmp_path):
    with pytest.raises(UserError, match=r"config\.yaml") as caught:
        load_run(tmp_path, [])
    assert str(tmp_path) in str(caught.value)


FLOATS = st.floats(min_value=0, allow_nan=False, allow_infinity=False)
COUNTS = st.integers(2, 10**12)
TEXT = st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters="$/") | st.just(" "), min_size=1)
CHOICES = {
    "seed": st.integers(-(2**70), 2**70),
    "run.name": TEXT.filter(lambda name: name not in (".", "..")),
    "run.dir": TEXT,
    "run.device": st.sampled_from(["auto", "cpu"]),
    "data.name": st.sampled_from(sorted(DATASETS)),
    "data.root": TEXT,
    "data.mirror": st.booleans(),
    "data.resident_gib": FLOATS,
    "game.objective": st.sampled_from(sorted(OBJECTIVES)),
    "game.conditional": st.booleans(),
    "update.rule": st.sampled_from(sorted(RULES)),
    "update.critic_steps": COUNTS,
    "update.coefficient": FLOATS,
    "update.schedule": st.sampled_from(sorted(SCHEDULES)),
    "penalty.r1": FLOATS,
    "penalty.gp": FLOATS,
    "penalty.every": st.dictionaries(st.sampled_from(PENALTIES), COUNTS),
    "penalty.schedule": st.dictionaries(st.sampled_from(PENALTIES), st.sampled_from(sorted(SCHEDULES))),
    "update.warmup": COUNTS,
    "checkpoint.best": TEXT,
    "optimizer.name": st.sampled_from(OPTIMIZERS),
    "optimizer.momentum": FLOATS,
    "optimizer.critic_lr": FLOATS,
    "optimizer.betas": st.lists(st.floats(0, 1, exclude_max=True), min_size=2, max_size=2),
    "optimizer.eps": FLOATS.filter(lambda eps: eps > 0),
    "train.steps": COUNTS,
    "train.batch_size": COUNTS,
    "train.precision": st.sampled_from(["no", "bf16"]),
    "train.channels_last": st.booleans(),
    "model.latent_dim": COUNTS,
    "model.width": COUNTS,
    "model.critic_width": COUNTS,
}


def as_override(key: str, value) -> str:
    """In JSON, which is YAML: text in quotes is text."""
    return f"{key}={json.dumps(value, ensure_ascii=False)}"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.fixed_dictionaries({}, optional=CHOICES), st.sampled_from(sorted(FAMILIES)))
@example({"run.name": "no", "run.dir": "1e3", "data.name": "mnist", "data.root": "# null: [x"}, "mlp")
@example({"run.name": "007", "run.dir": "'", "data.name": "folder", "data.root": '"'}, "mlp")
@example({"run.name": "2024-01-01", "run.dir": "1:30", "data.name": "zip", "data.root": "~"}, "mlp")
@example({"penalty.r1": 1e308, "optimizer.eps": 5e-324}, "dcgan")
@example({"train.steps": None}, "dense")
def test_what_was_set_comes_back_from_yaml(empty, tmp_path, values, family):
    data = data_section(values.get("data.name", "digits"), "generation")
    fields = {f"model.{field.name}" for field in dataclasses.fields(FAMILIES[family].config)}
    fields |= {f"data.{field.name}" for field in dataclasses.fields(data)}
    values = {key: value for key, value in values.items() if not key.startswith(("model.", "data.")) or key in fields}
    config = load(empty, [f"model.name={family}", *(as_override(*item) for item in values.items())])
    for key, value in values.items():
        assert value_of(config, key) == value
    assert same_again(config, tmp_path) == config


def test_the_header_and_every_comment_are_in_the_yaml():
    text = to_yaml(Config(), header="first\nsecond")
    assert text.startswith("# first\n# second\nseed:")
    for section in SECTIONS:
        for comment in comments(type(getattr(Config(), section))).values():
            assert f"  # {comment}\n" in text


def test_the_yaml_has_every_key_and_no_other():
    plain = yaml.safe_load(to_yaml(Config()))
    assert plain == dataclasses.asdict(Config())


DATACLASSES = {
    **{name: type(getattr(Config(), name)) for name in SECTIONS if name != "model"},
    **{f"model-{name}": family.config for name, family in FAMILIES.items()},
}


@pytest.mark.parametrize("section", DATACLASSES.values(), ids=DATACLASSES)
def test_every_field_says_what_it_is(section):
    said = comments(section)
    assert list(said) == [f.name for f in dataclasses.fields(section)]
    assert all(len(comment) > 3 for comment in said.values())
    assert len(set(said.values())) == len(said)


def test_fields_of_the_whole_config_say_what_they_are():
    assert comments(Config)["seed"]


# --- What identifies a run


DATA_SETS = [MnistM("mnist_m"), ImageFiles("folder"), VectorFiles()]
DATA_KEYS = {f"data.{field.name}": data for data in DATA_SETS for field in dataclasses.fields(data)}


def config_with(key: str) -> Config:
    """A config whose data set has the key."""
    return Config(data=dataclasses.replace(DATA_KEYS[key])) if key in DATA_KEYS else Config()


@pytest.mark.parametrize("key", sorted({*KEYS, *DATA_KEYS}))
def test_differences_are_seen_unless_they_are_runtime(key):
    config = config_with(key)
    runtime = key in RUNTIME_KEYS or key.split(".")[0] in RUNTIME_KEYS
    found = differences(identity(config), identity(changed(config, key)))
    if runtime:
        assert found == []
    else:
        assert [line.split(":")[0] for line in found] == [key]
        assert f"{value_of(config, key)} -> {value_of(changed(config, key), key)}" in found[0]


def test_every_runtime_key_is_a_key():
    assert [key for key in RUNTIME_KEYS if key not in [*KEYS, *DATA_KEYS, *SECTIONS]] == []


@pytest.mark.parametrize(
    "key",
    [
        "seed", "data.name", "data.resolution", "data.fit", "data.mirror", "model.latent_dim", "model.critic_width",
        "game.objective", "game.conditional", "update.rule", "update.critic_steps", "penalty.r1",
        "optimizer.generator_lr", "optimizer.critic_lr", "optimizer.betas", "optimizer.schedule", "optimizer.warmup",
        "train.batch_size", "train.precision", "ema.half_life",
    ],
)  # fmt: skip
def test_what_changes_the_numbers_identifies_the_run(key):
    config = config_with(key)
    assert differences(identity(config), identity(changed(config, key)))


@pytest.mark.parametrize(
    "key",
    [
        "run.name", "run.dir", "run.device", "data.root", "data.workers", "data.download", "log.every", "sample.every",
        "evaluate.every", "evaluate.samples", "checkpoint.every", "checkpoint.keep", "train.steps", "train.compile",
    ],
)  # fmt: skip
def test_what_is_only_about_the_machine_does_not(key):
    config = config_with(key)
    assert differences(identity(config), identity(changed(config, key))) == []


def test_another_family_of_networks_differs(empty):
    found = differences(*(identity(load(empty, [f"model.name={name}"])) for name in ("dcgan", "mlp")))
    assert "model.name: dcgan -> mlp" in found


def test_several_differences_are_all_named():
    config = changed(changed(Config(), "seed"), "train.batch_size")
    assert differences(identity(Config()), identity(config)) == ["seed: 0 -> 1", "train.batch_size: 64 -> 65"]


@pytest.mark.parametrize("family", FAMILIES)
def test_an_identity_is_the_same_after_a_checkpoint(empty, family):
    """Which keeps it as JSON."""
    ours = identity(load(empty, [f"model.name={family}", "optimizer.eps=1e-8", "optimizer.betas=[0,0.99]"]))
    assert differences(json.loads(json.dumps(ours)), ours) == []


def test_keys_of_another_version_differ():
    ours = identity(Config())
    assert differences({**ours, "train.gone": 3}, ours) == ["train.gone: 3 -> None"]
    assert differences(ours, {**ours, "train.new": 3}) == ["train.new: None -> 3"]


@pytest.mark.parametrize("word", ["seed=3", "update.rule=alternating", "data.root=a=b", "seed="])
def test_a_word_with_a_key_is_an_override(word):
    assert is_override(word)


@pytest.mark.parametrize("word", ["configs/a.yaml", "runs/lr=0.1/config.yaml", "./a=b.yaml", "seed", "=3", ""])
def test_a_path_is_no_override(word):
    assert not is_override(word)


def test_loading_a_config_draws_nothing(empty):
    before = torch.random.get_rng_state()
    load(empty, [])
    assert torch.equal(before, torch.random.get_rng_state())
