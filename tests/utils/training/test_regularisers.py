"""Penalties and the probability of augmentation, as a config asks for them."""

import pytest

from adversarial.penalties import PENALTIES, R1, Dragan, LeCam
from adversarial.probability import Adaptive, Scheduled
from utils.config import loading as config
from utils.training.regularisers import penalties_of, probability_of


def load(*overrides: str) -> config.Config:
    return config.load(config.DEFAULT_RECIPE, list(overrides))


@pytest.mark.parametrize(("objective", "boundary"), [("non_saturating", 0), ("least_squares", 0.5)])
def test_adaptive_augmentation_can_move_by_one_in_so_many_images(objective, boundary):
    """64 images a step and a move every 4 steps: 25 moves in 6,400 images (Karras et al. 2020, appendix E)."""
    words = ["augment.name=ada", "augment.images=6400", "augment.every=4", "train.batch_size=64", "augment.target=0.7"]
    found = probability_of(load(*words, f"game.objective={objective}"))
    assert isinstance(found, Adaptive)
    assert (found.stride, found.every, found.target, found.boundary) == (1 / 25, 4, 0.7, boundary)


def test_scheduled_augmentation_follows_the_config():
    found = probability_of(load("augment.name=scheduled", "augment.p=0.6", "augment.warmup=100"))
    assert isinstance(found, Scheduled)
    assert (found.p(0), found.p(24), found.p(99), found.p(150)) == pytest.approx((0.006, 0.15, 0.6, 0.6))


@pytest.mark.parametrize("name", ["none", "diffaugment"])
def test_other_augmentations_have_no_probability(name):
    assert probability_of(load(f"augment.name={name}")) is None


def test_penalties_with_a_weight():
    found = penalties_of(load("penalty.r1=1", "penalty.lecam=0.1", "penalty.gp=0"))
    assert {name: type(penalty) for name, penalty in found.items()} == {"r1": R1, "lecam": LeCam}


def test_options_of_a_penalty_come_from_the_config():
    (found,) = penalties_of(load("penalty.r1=0", "penalty.dragan=1", "penalty.dragan_noise=0.5")).values()
    assert isinstance(found, Dragan)
    assert found.noise == 0.5


def test_every_penalty_of_the_registry_can_be_asked_for():
    for name in PENALTIES:
        assert name in penalties_of(load(f"penalty.{name}=1"))
