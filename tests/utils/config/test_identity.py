"""What identifies a run, and which checkpoints another config may resume."""

import json
import re
from pathlib import Path

import pytest

from models import FAMILIES
from tests.utils.config.configs import PLAYS, SECTIONS, changed, keys_of, value_of, whole
from utils.config.identity import RUNTIME_KEYS, check_same_run, differences, identity, suggested_name
from utils.config.loading import load
from utils.config.sections import Config, kinds
from utils.errors import UserError

KEYS = keys_of(whole())


@pytest.mark.parametrize("key", KEYS)
def test_differences_are_seen_unless_they_are_runtime(key):
    config = whole()
    runtime = key in RUNTIME_KEYS or key.split(".")[0] in RUNTIME_KEYS
    found = differences(identity(config), identity(changed(config, key)))
    if runtime:
        assert found == {}
    else:
        assert found == {key: f"{key}: {value_of(config, key)} -> {value_of(changed(config, key), key)}"}


def test_every_runtime_key_is_a_key():
    of_data = [f"data.{key}" for _, kind in kinds("data") for key in kind.__dataclass_fields__]
    assert [key for key in RUNTIME_KEYS if key not in [*KEYS, *of_data, *SECTIONS]] == []


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
    assert list(differences(identity(whole()), identity(changed(whole(), key)))) == [key]


@pytest.mark.parametrize(
    "key",
    [
        "run.name", "run.dir", "run.device", "data.root", "data.workers", "log.every", "sample.every",
        "evaluate.every", "evaluate.samples", "checkpoint.every", "checkpoint.keep", "train.steps", "train.compile",
    ],
)  # fmt: skip
def test_what_is_only_about_the_machine_does_not(key):
    assert differences(identity(whole()), identity(changed(whole(), key))) == {}


def test_where_data_come_from_does_not_identify_the_run(empty):
    here, there = (load(empty, ["data.name=mnist", f"data.download={download}"]) for download in ("false", "true"))
    assert here.data != there.data
    assert differences(identity(here), identity(there)) == {}


def test_another_family_of_networks_differs(empty):
    found = differences(*(identity(load(empty, [f"model.name={name}"])) for name in ("dcgan", "mlp")))
    assert found["model.name"] == "model.name: dcgan -> mlp"
    assert all(key.startswith("model.") for key in found)


def test_several_differences_are_all_named():
    config = changed(changed(Config(), "seed"), "train.batch_size")
    assert differences(identity(Config()), identity(config)) == {
        "seed": "seed: 0 -> 1", "train.batch_size": "train.batch_size: 64 -> 65",
    }  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_an_identity_is_the_same_after_a_checkpoint(empty, family):
    """Which keeps it as JSON."""
    ours = identity(
        load(empty, [f"model.name={family}", *PLAYS.get(family, []), "optimizer.eps=1e-8", "optimizer.betas=[0,0.99]"])
    )
    assert differences(json.loads(json.dumps(ours)), ours) == {}


# --- Versions with other keys


@pytest.mark.parametrize("key", ["update.warmup", "penalty.every", "model.critic_norm", "data.mirror", "burn_in.beta2"])
def test_a_key_that_an_older_version_lacked_counts_as_its_default(key):
    config = whole()
    old = {name: value for name, value in identity(config).items() if name != key}
    assert differences(old, identity(config)) == {}
    other = changed(config, key)
    assert list(differences(old, identity(other))) == [key]
    assert differences(old, identity(other))[key].endswith(f" -> {value_of(other, key)}")


def test_runs_from_before_images_were_held_out_trained_on_all(empty):
    new, all_of_them = (identity(load(empty, ["data.name=folder", f"data.validation={share}"])) for share in (0.05, 0))
    old = {key: value for key, value in new.items() if key != "data.validation"}
    assert differences(old, new) == {"data.validation": "data.validation: 0.0 -> 0.05"}
    assert differences(old, all_of_them) == {}
    assert list(differences(identity(load(empty, [])), new)) == ["data.name"]


def test_the_default_is_that_of_the_section_by_its_name(empty):
    """model.critic_width is 64 by default in dcgan and 1024 in resnet."""
    ours = identity(load(empty, ["model.name=dcgan", "model.critic_width=1024"]))
    old = {key: value for key, value in ours.items() if key != "model.critic_width"}
    assert differences(old, ours) == {"model.critic_width": "model.critic_width: 64 -> 1024"}


def test_keys_of_other_games_that_an_older_version_kept(empty):
    ours = identity(Config())
    old = {**ours, "game.method": "dann", "game.margin": 4.0, "game.pretrained": ""}
    assert differences(old, ours) == {}
    found = differences({**old, "game.margin": 2.0}, ours)
    assert found == {"game.margin": "game.margin: 2.0 -> no key of game.name=generation"}


def test_a_key_that_no_section_has_any_more():
    ours = identity(Config())
    for key in ("train.gone", "gone", "gone.gone", "model.gone"):
        assert differences({**ours, key: 3}, ours) == {key: f"{key}: 3 -> no longer a key"}


# --- What a refused resume says


def refusal(saved: dict, config: Config) -> str:
    with pytest.raises(UserError) as caught:
        check_same_run(saved, config, Path("runs/a/checkpoints/step-00000005"))
    return str(caught.value)


def test_the_same_run_may_go_on():
    check_same_run(json.loads(json.dumps(identity(Config()))), Config(), Path("x"))


def test_another_run_is_refused_with_a_name_for_it(empty):
    config = load(empty, ["seed=1", "update.rule=alternating"])
    assert refusal(identity(load(empty, [])), config) == (
        "runs/a/checkpoints/step-00000005 is of a run with another config (seed: 0 -> 1; update.rule: single_pass -> "
        "alternating); choose another run.name, such as run.name=empty-seed-1-rule-alternating, which trains from the "
        "beginning."
    )


def test_a_vanished_key_is_named(empty):
    config = load(empty, [])
    text = refusal({**identity(config), "train.gone": 3}, config)
    assert "(train.gone: 3 -> no longer a key)" in text
    assert "run.name=empty-new," in text


@pytest.mark.parametrize(
    ("name", "changed", "want"),
    [
        ("digits", {"seed": 1}, "digits-seed-1"),
        ("digits-seed-1", {"seed": 2}, "digits-seed-2"),
        ("digits-seed-1-rule-alternating", {"seed": 2}, "digits-rule-alternating-seed-2"),
        ("digits-seed-1", {"update.rule": "simultaneous"}, "digits-seed-1-rule-simultaneous"),
        ("digits", {"model.name": "mlp"}, "digits-model-mlp"),
        ("digits", {"optimizer.critic_lr": 1e-05}, "digits-critic_lr-1e_05"),
        ("digits", {"optimizer.betas": [0.0, 0.99]}, "digits-betas-0.0_0.99"),
        ("digits", {"penalty.every": {"r1": 16}}, "digits-every-r1_16"),
        ("digits", {"game.conditional": True}, "digits-conditional-true"),
        ("digits-seed-2", {"seed": 2}, "digits-seed-2-new"),  # whose folder holds another seed
        ("digits-seed-2-new", {"seed": 2}, "digits-seed-2-new2"),
        ("digits", {}, "digits-new"),
        ("digits-new", {}, "digits-new2"),
        ("digits-new2", {}, "digits-new3"),
        ("digits", {f"train.{key}": 1 for key in "abcde"}, "digits-a-1-b-1-c-1"),
    ],
)
def test_suggested_names(name, changed, want):
    assert suggested_name(name, changed) == want


def test_suggested_names_do_not_grow(empty):
    """Whatever is followed again and again, with one key or the other changed."""
    name, longest = "digits", 0
    for i in range(30):
        name = suggested_name(name, {"seed": i % 7} if i % 2 else {"seed": i % 5, "update.rule": "alternating"})
        longest = max(longest, len(name))
        assert re.fullmatch(r"[\w.-]+", name)
        load(empty, [f"run.name={name}"])
    assert longest <= len("digits-rule-alternating-seed-0-new9")
