"""Every path of a config or a command line goes through one function."""

import ast
from pathlib import Path

import numpy
import pytest
import torch
from torch import Tensor

import evaluate
import sample
from tests.runs import ROOT, run
from utils.config.loading import load
from utils.data import domains
from utils.errors import UserError
from utils.paths import path_of
from utils.run.folder import RunFolder


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A home folder of the test's own."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_a_home_is_expanded_and_other_paths_stay_as_they_are(home):
    assert path_of("~") == home
    assert path_of("~/a b") == home / "a b"
    assert [str(path_of(text)) for text in ("a", "/a", "./~", "a/~", "a~")] == ["a", "/a", "~", "a/~", "a~"]


@pytest.mark.parametrize("text", ["a\0b", "~no-such-person/a"])
def test_a_path_that_cannot_exist(text):
    with pytest.raises(UserError) as caught:
        path_of(text)
    assert str(caught.value).endswith(".")


def test_a_run_in_the_home_folder_is_trained_sampled_and_evaluated(home, tmp_path, capsys):
    assert run(tmp_path, "run.dir=~/runs", "run.name=a") == 0
    assert (home / "runs/a/config.yaml").is_file()
    assert evaluate.main(["~/runs/a"]) == 0
    assert sample.main(["~/runs/a", "--out", "~/out.png"]) == 0
    assert (home / "out.png").is_file()


def test_recipes_bases_and_pretrained_runs_in_the_home_folder(home, tmp_path):
    home.mkdir()
    (home / "base.yaml").write_text("seed: 5\nrun: {dir: ~/runs}\n")
    (tmp_path / "recipe.yaml").write_text("base: ~/base.yaml\n")
    config = load(tmp_path / "recipe.yaml", [])
    assert config.seed == 5
    assert RunFolder.of(config).path == home / "runs/recipe"


@pytest.mark.parametrize("root", ["~", "elsewhere"])
def test_files_of_vectors_in_the_home_folder(home, root):
    home.mkdir()
    numpy.savez(home / "a.npz", features=numpy.eye(4), labels=[0, 1, 0, 1])
    recipe = ROOT / "configs/vectors.yaml"
    name = "a.npz" if root == "~" else "~/a.npz"
    words = [f"data.root={root}", f"data.source={name}", f"data.target={name}", "data.validation=0.5"]
    x = domains.load(load(recipe, words).data, 0).target.x
    assert isinstance(x, Tensor)
    assert torch.equal(x, torch.eye(4))


def test_no_other_place_makes_a_path_of_a_config():
    """A path that a person gives is expanded in utils/paths.py, and nowhere else."""
    for path in [ROOT / "train.py", ROOT / "sample.py", ROOT / "evaluate.py", *(ROOT / "utils").rglob("*.py")]:
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        for call in calls:
            name = getattr(call.func, "id", getattr(call.func, "attr", None))
            said = ast.unparse(call)
            assert name != "expanduser" or path.name == "paths.py", said
            assert name != "Path" or not any(word in said for word in ("config.", "cfg.", "options.")), said
