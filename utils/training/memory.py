"""What a run's game keeps from step to step, as the config says."""

from functools import partial

from accelerate.utils import reduce

from adversarial.augmentation import ADAPTIVE, SCHEDULED
from adversarial.games import Memory
from adversarial.memory import Adaptive, Keeper, PathMean, Scheduled, ScoreAverages
from adversarial.objectives import OBJECTIVES
from adversarial.updates import Turn
from utils.config.sections import Config
from utils.training.values import augment_p_at


def keepers(config: Config) -> list[Keeper]:
    """Who keeps what."""
    augment, found = config.augment, []
    if augment.name == SCHEDULED:
        found.append(Scheduled(partial(augment_p_at, config)))
    if augment.name == ADAPTIVE:
        stride = config.train.batch_size * augment.every / augment.images
        found.append(Adaptive(stride, augment.target, augment.every, OBJECTIVES[config.game.objective].boundary))
    if config.penalty.lecam:
        found.append(ScoreAverages())
    if config.penalty.path:
        found.append(PathMean())
    return found


def remember(config: Config, memory: Memory, step: int, turn: Turn) -> None:
    """Take in a turn whose players have moved; statistics are means over all processes."""
    for keeper in keepers(config):
        keeper.update(memory, step, turn, partial(reduce, reduction="mean"))
