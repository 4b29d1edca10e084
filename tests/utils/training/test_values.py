"""What a config's schedules give at a step."""

from functools import partial

import pytest

from tests.runs import ROOT
from utils.config import loading as config
from utils.training import values
from utils.training.regularisers import penalties_of


def gammas(cfg: config.Config, step: int) -> dict[str, float]:
    """γ by name; 0 for those that are not due."""
    penalties = penalties_of(cfg)
    given = values.strengths_at(cfg, penalties, step).penalties
    return {name: given.get(penalty, 0) for name, penalty in penalties.items()}


def test_every_penalty_has_a_pace_and_a_schedule_of_its_own():
    """Applied every so often and as much stronger, on top of what the schedule gives."""
    keys = ["penalty.r1=2", "penalty.every.r1=4", "penalty.path=3", "penalty.every.path=2"]
    keys += ["penalty.gp=1", "penalty.schedule={r1: linear_decay, path: linear_decay}", "train.steps=8"]
    cfg = config.load(ROOT / "configs/digits.yaml", keys)
    found = [gammas(cfg, step) for step in range(8)]
    assert [gamma["r1"] for gamma in found] == [8, 0, 0, 0, 4, 0, 0, 0]
    assert [gamma["path"] for gamma in found] == [6, 0, 4.5, 0, 3, 0, 1.5, 0]
    assert {gamma["gp"] for gamma in found} == {1}


def test_warm_up_of_the_coefficient():
    cfg = config.load(ROOT / "configs/ring.yaml", ["update.coefficient=2", "update.warmup=4"])
    assert [values.strengths_at(cfg, {}, step).coefficient for step in range(6)] == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]


def test_the_critics_look_ahead_has_a_schedule_and_the_generators_has_none():
    keys = ["update.lookahead=2", "update.generator_lookahead=1", "train.steps=4"]
    cfg = config.load(ROOT / "configs/ring.yaml", [*keys, "update.lookahead_schedule=linear_decay"])
    assert [values.lookaheads_at(cfg, step) for step in (0, 2, 4)] == [
        {"generator": 1, "critic": alpha} for alpha in (2, 1, 0)
    ]


def test_burn_in_of_r3gan():
    """Its CIFAR-10's five schedules: at the start, half way through 20 million images, and afterwards; to one part in
    10,000, since half way is no whole number of batches.
    """
    cfg = config.load(ROOT / "configs/cifar10_r3gan.yaml", [])
    half = 10_000_000 // 512
    for step, lr, beta2, half_life, gamma, p in (
        (0, 2e-4, 0.9, 0, 0.05, 0),
        (half, 1.25e-4, 0.945, 2.5e6, 0.0275, 0.275),
        (10**6, 5e-5, 0.99, 5e6, 0.005, 0.55),
    ):
        near = partial(pytest.approx, rel=1e-4)
        assert values.learning_rates_at(cfg, step) == {"generator": near(lr), "critic": near(lr)}
        assert values.betas_at(cfg, step) == (0, near(beta2))
        assert values.ema_decay_at(cfg, step) == near(0.5 ** (512 / half_life) if half_life else 0)
        assert gammas(cfg, step) == {"r1": near(gamma), "r2": near(gamma)}
        assert values.augment_p_at(cfg, step) == near(p)


def test_without_burn_in_nothing_changes():
    cfg = config.load(ROOT / "configs/ring.yaml", ["optimizer.schedule=constant"])
    assert values.learning_rates_at(cfg, 0) == {"generator": 0.008, "critic": 0.008}
    assert values.betas_at(cfg, 0) == (0, 0.99)
    assert gammas(cfg, 0)["r1"] == 0.02
    assert values.augment_p_at(cfg, 0) == cfg.augment.p


def test_warm_up_and_schedule_go_on_under_the_burn_in():
    """What is burned in is what the other settings give."""
    keys = ["augment.p=0.5", "augment.schedule=linear_decay", "train.steps=8", "train.batch_size=1", "penalty.r2=2"]
    keys += ["burn_in.images=2", "burn_in.gamma=3", "augment.name=scheduled", "burn_in.augment_p=0.1"]
    cfg = config.load(ROOT / "configs/digits.yaml", keys)
    assert [values.augment_p_at(cfg, step) for step in (0, 1, 2, 4, 8)] == pytest.approx([0.1, 0.26875, 0.375, 0.25, 0])
    assert [gammas(cfg, step)["r2"] for step in range(4)] == [6, 4, 2, 2]
