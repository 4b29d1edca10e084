"""What starting a command imports: answers that need no training wait for no library that they do not use."""

import json
import subprocess
import sys

import pytest

from tests.runs import ROOT

# Each takes between a fifth of a second and three seconds to import.
HEAVY = ["torchvision", "sklearn", "matplotlib", "torchmetrics", "torch.utils.tensorboard", "torch._dynamo", "PIL"]
SCRIPT = """
import json, runpy, sys
command, *sys.argv = sys.argv[1:]
sys.argv = [command, *sys.argv]
try:
    runpy.run_path(command, run_name="__main__")
except SystemExit as end:
    code = end.code
print("\\n" + json.dumps([code, [name for name in {heavy} if name in sys.modules]]))
"""

COMMANDS = {
    "print-config": (["train.py", "--print-config"], 0),
    "print-config of networks by torchvision": (["train.py", "configs/office.yaml", "--print-config"], 0),
    "list": (["train.py", "--list"], 0),
    "help": (["train.py", "--help"], 0),
    "unknown key": (["train.py", "train.step=3"], 2),
    "unknown data": (["train.py", "data.name=digit"], 2),
    "key of another game": (["train.py", "game.method=cdan"], 2),
    "out of range": (["train.py", "model.latent_dim=0"], 2),
    "refused by the game": (["train.py", "configs/moons.yaml", "penalty.path=1"], 2),
    "refused by the metrics": (["train.py", "checkpoint.best=FID"], 2),
    "sample, help": (["sample.py", "--help"], 0),
    "sample, no run": (["sample.py", "nowhere"], 2),
    "evaluate, help": (["evaluate.py", "--help"], 0),
    "evaluate, no run": (["evaluate.py", "nowhere"], 2),
}


@pytest.mark.parametrize(("words", "code"), COMMANDS.values(), ids=COMMANDS)
def test_answers_that_need_no_training_import_little(words, code):
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("{heavy}", repr(HEAVY)), *words], cwd=ROOT, capture_output=True, text=True
    )
    ended, imported = json.loads(process.stdout.splitlines()[-1])
    assert (ended, imported) == (code, []), process.stderr


def test_loading_a_config_imports_little():
    """What a script of one's own pays for."""
    script = f"import sys, utils.config.loading; print([name for name in {HEAVY} if name in sys.modules])"
    process = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert process.stdout == "[]\n", process.stderr


def test_the_list_of_heavy_modules_is_of_modules():
    """A misspelt name would never be imported."""
    script = f"import importlib; [importlib.import_module(name) for name in {HEAVY}]"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT).returncode == 0
