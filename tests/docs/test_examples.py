"""The examples in docs/ say what is true, and the single pass in 30 lines is the one that trains."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from adversarial.draws import Draw
from adversarial.games import Batch, GenerationGame
from adversarial.objectives import OBJECTIVES
from adversarial.rules import single_pass
from docs import dirac, idea, reversal
from tests.adversarial.toy_games import flat, gradients_of, relative_error

ROOT = Path(__file__).parents[2]
ONE_SIDED = [name for name, objective in OBJECTIVES.items() if not objective.pairs]


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)


class WithLabel(nn.Module):
    """A network as a game calls it."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor, label: None = None) -> torch.Tensor:
        return self.network(x)


@pytest.mark.parametrize("name", ONE_SIDED)
def test_the_idea_is_what_the_product_does(name):
    """The same gradients as ``adversarial.rules.single_pass``, whatever the objective: 1e-12 relative, in float64."""
    torch.manual_seed(0)
    G = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
    D = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1), nn.Flatten(0))
    real, draw, objective = torch.randn(16, 2), Draw((0,), 16), OBJECTIVES[name]
    game = GenerationGame(WithLabel(G), WithLabel(D), latent_dim=3)
    next(single_pass(game, objective, [(Batch(real), draw)]))
    want = [gradients_of(network) for network in (G, D)]
    G.zero_grad(), D.zero_grad()

    idea.single_pass(
        G, D, real, draw.normal("latent", (3,)),
        lambda real, fake: objective.critic_loss(real, fake).mean(),
        lambda fake: objective.generator_loss(None, fake).mean(),
    )  # fmt: skip
    for network, reference in zip((G, D), want, strict=True):
        assert flat(reference).norm() > 0
        assert relative_error(gradients_of(network), reference) <= 1e-12


def test_the_idea_fits_on_a_screen():
    source = (ROOT / "docs/idea.py").read_text()
    body = source[source.index("def single_pass") : source.index("def main")]
    assert len([line for line in body.splitlines() if line.strip()]) <= 30


def printed(*command: str) -> str:
    return subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_the_idea_prints_its_proof(capsys):
    runpy.run_path(str(ROOT / "docs/idea.py"), run_name="__main__")
    errors = [float(text) for text in re.findall(r"error (\S+)", capsys.readouterr().out)]
    assert len(errors) == 2
    assert all(error < 1e-14 for error in errors)


@pytest.mark.parametrize(
    ("rule", "circles"), [("alternating", 0.2835), ("simultaneous", 0.6343), ("single_pass", 0.6343)]
)
def test_the_dirac_gan_circles_without_a_penalty_and_converges_with_r1(rule, circles):
    torch.set_default_dtype(torch.float32)
    assert dirac.distance(dirac.course(rule)) == pytest.approx(circles, abs=5e-5)
    assert dirac.distance(dirac.course(rule, gamma=1)) < 1e-6


def test_the_dirac_example_is_short():
    assert len([line for line in (ROOT / "docs/dirac.py").read_text().splitlines() if line.strip()]) <= 50


def test_plain_gradient_reversal_is_the_minimax_case():
    first, second = (reversal.gradients(dann) for dann in (reversal.dann_by_reversal, reversal.dann_by_single_pass))
    assert first.norm() > 0
    assert (first - second).norm() <= 1e-14 * first.norm()


def test_the_method_serves_as_a_package_of_its_own():
    """Under the name that pyproject.toml gives it, without anything else of this repository."""
    code = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('flipside', {str(ROOT / 'adversarial/__init__.py')!r})\n"
        "sys.modules['flipside'] = module = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "from flipside.rules import RULES\n"
        "from flipside import accumulation, compiled, coupling, domains, gradients, probability, reversal, schedules\n"
        "foreign = [name for name in sys.modules if name.partition('.')[0] in ('adversarial', 'models', 'utils')]\n"
        "print(sorted(RULES), foreign)\n"
    )
    assert printed("-I", "-c", code) == "['alternating', 'simultaneous', 'single_pass'] []\n"
