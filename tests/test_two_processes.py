"""Two processes on the CPU (gloo) play the same game as one."""

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from tests.runs import ROOT, arguments, run

# Rounding is all that may differ: the mean over the batch is a mean of two halves' means. No layer sees across samples.
GAME = ["model.generator_norm=none", "optimizer.eps=1e-3", "train.steps=6", "game.objective=hinge"]
RULES = {
    "single_pass": ["update.rule=single_pass", "penalty.r1=0.1"],
    "simultaneous": ["update.rule=simultaneous", "penalty.r2=0.1"],
    "lazy": ["penalty.r1=0.1", "penalty.every=2", "penalty.lecam=0.1", "penalty.consistency=0.1"],
    "packs through ADA": [
        "game.pack=2",
        "augment.name=ada",
        "augment.images=64",
        "augment.target=-1",
        "penalty.r2=0.1",
    ],
    "alternating": ["update.rule=alternating", "update.critic_steps=2"],
}


def launch(folder, *overrides: str, recipe: str = "configs/digits.yaml") -> subprocess.CompletedProcess:
    """Train with two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "0"]
    command += ["--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0", str(ROOT / "train.py")]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "1"}
    return subprocess.run(
        [*command, *arguments(folder, *overrides, recipe=recipe)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("rule", RULES)
def test_two_processes_follow_one(tmp_path, rule):
    """With a large ε Adam is nearly linear in the gradient, so float32 rounding stays rounding over 6 steps.

    The bound: 6 steps with a learning rate of 2e-4, gradients equal to about 1e-5 relative, so weights
    differ by less than 6 · 2e-4 · 1e-5 ≈ 1e-8 plus their own rounding, 2^-24 of values up to 1.
    """
    follow(tmp_path, [*GAME, *RULES[rule]], "digits")


def test_two_processes_follow_one_in_a_game_of_domains(tmp_path):
    """Both domains' samples are shared out; MADA has a critic per class. SGD steps are small: the same bound."""
    game = ["game.method=mada", "optimizer.name=sgd", "optimizer.generator_lr=2e-4", "optimizer.critic_lr=2e-4"]
    follow(tmp_path, [*game, "train.steps=6"], "moons")


def follow(tmp_path, overrides: list[str], recipe: str) -> None:
    """Train with two processes and with one, and compare all networks."""
    done = launch(tmp_path / "two", *overrides, recipe=f"configs/{recipe}.yaml")
    assert done.returncode == 0, done.stderr[-2000:]
    assert run(tmp_path / "one", *overrides, recipe=f"configs/{recipe}.yaml") == 0
    for name in ("generator", "critic", "generator_ema"):
        one, two = (
            load_file(tmp_path / folder / recipe / "checkpoints/step-00000006" / f"{name}.safetensors")
            for folder in ("one", "two")
        )
        assert one.keys() == two.keys()
        for key in one:
            assert torch.allclose(one[key], two[key], rtol=0, atol=1e-7), f"{name}: {key}"


def test_launcher_that_starts_lonely_processes_is_refused(tmp_path):
    """Without GPUs torchrun's processes each believe to be alone unless ACCELERATE_USE_CPU is set."""
    environment = {**os.environ, "WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    environment.pop("ACCELERATE_USE_CPU", None)
    command = [sys.executable, str(ROOT / "train.py"), *arguments(tmp_path, "run.device=auto")]
    if torch.cuda.is_available():
        pytest.skip("with GPUs the processes find each other")
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "ACCELERATE_USE_CPU=1" in done.stderr
