"""The notebook of first steps runs from its first cell to its last."""

import importlib
import json
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from tests.conftest import forget_accelerator
from tests.runs import ROOT
from utils.training import checkpoint

CELLS = json.loads((ROOT / "docs/first_steps.ipynb").read_text())["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]


def test_no_outputs_are_kept():
    assert [cell for cell in CELLS if cell.get("outputs") or cell.get("execution_count")] == []


def command(line: str) -> None:
    """What ``!python SCRIPT WORDS`` does, in this process."""
    program, script, *words = shlex.split(line)
    assert program == "python"
    forget_accelerator()
    assert importlib.import_module(script.removesuffix(".py")).main(words) == 0


@pytest.fixture
def shown(tmp_path, monkeypatch) -> list[Image.Image]:
    """The pictures that the cells show. They run in a folder that looks like a clone."""
    (tmp_path / "train.py").touch()
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    pictures: list[Image.Image] = []
    display = ModuleType("IPython.display")
    display.Image = lambda filename: Image.open(filename)
    display.display = lambda *images: pictures.extend(images)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return pictures


def test_all_cells_run(shown):
    names = {"command": command}
    for text in CODE:
        text = re.sub(r"^STEPS = \d+", "STEPS = 4", text)
        text = re.sub(r"^( *)!(.*)$", lambda line: f"{line[1]}command(f{line[2]!r})", text, flags=re.MULTILINE)
        exec(compile(text, "first_steps.ipynb", "exec"), names)
    assert checkpoint.steps(Path("runs/first/checkpoints"))[-1] == 8
    assert checkpoint.steps(Path("runs/alternating/checkpoints")) == [4]
    assert [picture.format for picture in shown] == ["PNG", "PNG", "PNG", "PNG", "GIF"]
    assert names["images"].shape == (16, 1, 8, 8)


def test_outside_a_clone_an_address_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    setup = re.sub(r"^ *!.*$", "", CODE[1], flags=re.MULTILINE)
    with pytest.raises(AssertionError, match="Set REPOSITORY above, or open this notebook in a clone"):
        exec(setup, {"REPOSITORY": ""})
