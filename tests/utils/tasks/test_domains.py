"""Networks of the games of domains, method by method, and what invariance needs."""

import pytest

from adversarial.domains import METHODS
from models.domain import SplitRecogniser
from tests.runs import ROOT
from utils.config import loading as config
from utils.config.sections import INVARIANCE_METHODS
from utils.errors import UserError
from utils.tasks.adaptation import Adaptation
from utils.tasks.invariance import Invariance
from utils.training.state import Sizes


def pretrained(method: str) -> list[str]:
    return ["init.run=runs/source"] if METHODS[method].split else []


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_critic_for_each_of_its_inputs(method):
    cfg = config.load(
        ROOT / "configs/moons.yaml", [f"game.method={method}", *pretrained(method), "model.depth=2", "model.width=5"]
    )
    generator, critic = Adaptation().networks(cfg, Sizes((2,), 3))
    assert len(critic.critics) == {"layers": 2, "mada": 3}.get(method, 1)
    assert isinstance(generator, SplitRecogniser) == (method == "adda")
    assert critic.outputs == (3 if method == "mdd" else 1), "MDD's critic is a second head over the classes"
    width = 15 if method.startswith("cdan") else 5
    assert critic.critics[-1][0].in_features == width


@pytest.mark.parametrize("method", INVARIANCE_METHODS)
def test_critics_of_an_attribute_have_an_output_for_each(method):
    cfg = config.load(ROOT / "configs/moons.yaml", ["game.name=invariance", "penalty.r2=0", f"game.method={method}"])
    _, critic = Invariance().networks(cfg, Sizes((2,), 3, outputs=4))
    assert critic.outputs == 4


def test_invariance_needs_two_attributes():
    cfg = config.load(ROOT / "configs/moons.yaml", ["game.name=invariance", "penalty.r2=0"])
    with pytest.raises(UserError, match=r"data\.name=moons gives 0; join domains"):
        Invariance().load(cfg)


def measured(every: int, count: int) -> list[dict]:
    """Evaluations of a critic that knows nothing where a fresh one finds everything."""
    found = []
    for step in range(every, every * count + 1, every):
        found.append({"metric": "critic accuracy", "value": 50.0, "chance": 50.0, "step": step})
        found.append({"metric": "probe critic accuracy", "value": 100.0, "step": step})
    return found


@pytest.mark.parametrize(
    ("words", "says_from"),
    [
        (["update.coefficient=6"], 600),
        (["update.warmup=1000"], 1000),  # λ is at half of its value after step 500: 600, 800 and 1000 count
        (["update.schedule=linear_growth"], 1600),  # over 2,000 steps: 1200, 1400 and 1600 count
        (["update.coefficient=0"], None),
        (["game.method=source_only"], None),
    ],
    ids=str,
)
def test_no_verdict_before_the_critic_is_played_against(words, says_from):
    cfg = config.load(ROOT / "configs/moons.yaml", ["train.steps=2000", *words])
    said = [200 * n for n in range(1, 11) if Adaptation().verdict(cfg, measured(200, n))]
    assert said == ([] if says_from is None else list(range(says_from, 2001, 200)))
