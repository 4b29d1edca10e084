"""What a game keeps from step to step, as its config says."""

import pytest

from adversarial.memory import Adaptive, PathMean, Scheduled, ScoreAverages
from utils.config import loading as config
from utils.training.memory import keepers


@pytest.mark.parametrize(("objective", "boundary"), [("non_saturating", 0), ("least_squares", 0.5)])
def test_adaptive_augmentation_can_move_by_one_in_so_many_images(objective, boundary):
    """64 images a step and a move every 4 steps: 25 moves in 6,400 images (Karras et al. 2020, appendix E)."""
    words = ["augment.name=ada", "augment.images=6400", "augment.every=4", "train.batch_size=64", "augment.target=0.7"]
    (keeper,) = keepers(config.load(config.DEFAULT_RECIPE, [*words, f"game.objective={objective}"]))
    assert isinstance(keeper, Adaptive)
    assert (keeper.stride, keeper.every, keeper.target, keeper.boundary) == (1 / 25, 4, 0.7, boundary)


def test_scheduled_augmentation_follows_the_course():
    (keeper,) = keepers(
        config.load(config.DEFAULT_RECIPE, ["augment.name=scheduled", "augment.p=0.6", "augment.warmup=100"])
    )
    assert isinstance(keeper, Scheduled)
    assert (keeper.p(0), keeper.p(24), keeper.p(99), keeper.p(150)) == pytest.approx((0.006, 0.15, 0.6, 0.6))


def test_penalties_that_remember():
    assert keepers(config.load(config.DEFAULT_RECIPE, ["penalty.r1=1"])) == []
    found = keepers(config.load(config.DEFAULT_RECIPE, ["penalty.lecam=1", "penalty.path=1"]))
    assert [type(keeper) for keeper in found] == [ScoreAverages, PathMean]
