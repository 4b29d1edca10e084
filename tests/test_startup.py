"""What starting a command imports: answers that need no training wait for no library that they do not use."""

import importlib.util
import json
import subprocess
import sys

import pytest

from tests.runs import ROOT

# Each takes between a fifth of a second and three seconds to import.
HEAVY = ["torchvision", "sklearn", "scipy", "matplotlib", "torch.utils.tensorboard", "torch._dynamo", "PIL"]
# Every command line in a process of its own, by fork from one that has imported all commands: what a command imports
# before it reads its words, such as what loads a config, is seen in every answer.
SCRIPT = """
import json, os, runpy, sys, traceback
import {modules}

def answer(words):
    sys.argv = list(words)
    try:
        runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        return end.code
    except BaseException:
        traceback.print_exc()

for name, words in json.load(sys.stdin).items():
    sys.stdout.flush()
    if os.fork() == 0:
        code = answer(words)
        print("\\n" + json.dumps(["answer", name, code, [name for name in {heavy} if name in sys.modules]]), flush=True)
        os._exit(0)
    os.wait()
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
    "export, no run": (["export.py", "nowhere", "nowhere"], 2),
    "project, no run": (["project.py", "nowhere", "a.png"], 2),
    "explain, help": (["explain.py", "--help"], 0),
    "explain, no run": (["explain.py", "nowhere"], 2),
    "diagnose, help": (["diagnose.py", "--help"], 0),
    "diagnose, no run": (["diagnose.py", "nowhere"], 2),
    "compare, help": (["compare.py", "--help"], 0),
    "compare, no run": (["compare.py", "nowhere"], 2),
    "sweep, help": (["sweep.py", "--help"], 0),
    "sweep, printed": (["sweep.py", "seed=0,1", "--print"], 0),
}


ROOMS = [f"utils.{room}.{path.stem}" for room in ("data", "evaluation") for path in ROOT.glob(f"utils/{room}/*.py")]


def test_answers_that_need_no_training_import_little(tmp_path):
    """Nor does a script of one's own that imports every module of data and evaluation."""
    own = tmp_path / "own.py"
    own.write_text("".join(f"import {module}\n" for module in [*ROOMS, "utils.pictures"]) + "raise SystemExit(0)\n")
    modules = ", ".join({words[0].removesuffix(".py") for words, _ in COMMANDS.values()})
    commands = {**COMMANDS, "a script of one's own": ([str(own)], 0)}
    words = json.dumps({name: command for name, (command, _) in commands.items()})
    command = [sys.executable, "-c", SCRIPT.replace("{heavy}", repr(HEAVY)).replace("{modules}", modules)]
    process = subprocess.run(command, cwd=ROOT, input=words, capture_output=True, text=True, check=True)
    answers = [json.loads(line) for line in process.stdout.splitlines() if line.startswith('["answer"')]
    found = {name: (code, imported) for _, name, code, imported in answers}
    assert found == {name: (code, []) for name, (_, code) in commands.items()}, process.stderr


@pytest.mark.parametrize("name", HEAVY)
def test_the_list_of_heavy_modules_is_of_modules(name):
    """A misspelt name would never be imported."""
    assert importlib.util.find_spec(name)
