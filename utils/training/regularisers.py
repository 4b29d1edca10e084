"""The penalties and the augmentation probability that a config asks for, with their state."""

import dataclasses
from functools import partial

from adversarial.augmentation import ADAPTIVE, SCHEDULED
from adversarial.games import Stateful
from adversarial.objectives import OBJECTIVES
from adversarial.penalties import PENALTIES, Penalty
from adversarial.probability import Adaptive, Scheduled
from utils.config.sections import Config
from utils.training.values import augment_p_at


def penalties_of(cfg: Config) -> dict[str, Penalty]:
    """The penalties with a weight above 0, by name, each with its options from ``penalty.*``."""
    given = dataclasses.asdict(cfg.penalty)
    found = {}
    for name, penalty in PENALTIES.items():
        if given[name]:
            options = {option.name: given[f"{name}_{option.name}"] for option in dataclasses.fields(penalty)}
            found[name] = penalty(**options)
    return found


def probability_of(cfg: Config) -> Stateful | None:
    """What moves the probability of augmentation; None where it is 1, or nothing is augmented."""
    augment = cfg.augment
    if augment.name == SCHEDULED:
        return Scheduled(partial(augment_p_at, cfg))
    if augment.name == ADAPTIVE:
        stride = cfg.train.batch_size * augment.every / augment.images
        return Adaptive(stride, augment.target, augment.every, OBJECTIVES[cfg.game.objective].boundary)
    return None
