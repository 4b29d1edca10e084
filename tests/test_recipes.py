"""Every YAML in configs/ trains for a few steps under each rule that its critic accepts, and resumes."""

import pytest
from omegaconf import OmegaConf

import train
from adversarial.updates import RULES
from tests.runs import ROOT, SMALL, TINY, fingerprint, signal_at
from utils import config

RECIPES = sorted((ROOT / "configs").glob("*.yaml"))
QUICK = ["train.steps=4", "log.every=2", "sample.every=2", "checkpoint.every=3", "evaluate.every=2"]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipe_trains_and_resumes(tmp_path, monkeypatch, recipe, rule):
    family = config.load(recipe, []).model.name
    command = [str(recipe), f"update.rule={rule}", *TINY[family], *SMALL, *QUICK, "run.device=cpu"]
    assert train.main([*command, f"run.dir={tmp_path}/whole"]) == 0
    with monkeypatch.context() as patch:
        signal_at(patch, 1)
        assert train.main([*command, f"run.dir={tmp_path}/parts"]) == 75
    assert train.main([*command, f"run.dir={tmp_path}/parts"]) == 0
    assert fingerprint(tmp_path / "parts", recipe.stem) == fingerprint(tmp_path / "whole", recipe.stem)
    assert (tmp_path / "whole" / recipe.stem / "samples/step-00000004.png").is_file()


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipe_is_short_and_says_what_to_expect(recipe):
    """The header names source, expected result and time; every key differs from the base or the default."""
    text = recipe.read_text()
    header = [line for line in text.splitlines() if line.startswith("#")]
    assert any(line.startswith("# Source:") for line in header)
    assert any(line.startswith("# Expected:") for line in header)
    assert any(line.startswith("# Time:") for line in header)

    own = OmegaConf.to_container(OmegaConf.load(recipe))
    base = own.pop("base", None)
    given = config._flat(config.load(recipe, []))
    before = config._flat(config.load(recipe.parent / base, []) if base else _defaults(own))
    keys = [f"{section}.{key}" for section, values in own.items() for key in values]
    assert [key for key in keys if given[key] == before.get(key) and not key.endswith(".name")] == []


def _defaults(own: dict) -> config.Config:
    family = config.FAMILIES[own.get("model", {}).get("name", "dcgan")]
    return config.Config(model=family.config())
