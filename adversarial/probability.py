"""The probability p with which an augmentation changes an image: given by a schedule, or adaptive."""

from collections.abc import Callable

import torch
from torch import Tensor

from .penalties import CRITIC, GENERATOR, widened


class Scheduled:
    """p as a function of the step (R3GAN: Huang et al. 2024, appendix)."""

    def __init__(self, p: Callable[[int], float]):
        self.p = p
        self.state = {"augment_p": torch.tensor(float(p(0)))}

    def update(self, step: int, players: tuple[str, ...], report: dict[str, Tensor], mean: Callable) -> None:
        if GENERATOR in players:  # the step's last turn
            self.state["augment_p"].fill_(self.p(step + 1))


class Adaptive:
    """p follows the critic's overfitting (ADA: Karras et al. 2020, section 3.1).

    The statistic is r_t = E[sign(D(real))]; a critic that is sure of all training images has 1. Every ``every`` steps
    p moves by ``stride`` towards more augmentation where r_t is above ``target``, towards less where it is below.
    ``boundary`` is the score at which the critic is undecided. p stays in [0, 1].
    """

    def __init__(self, stride: float, target: float = 0.6, every: int = 4, boundary: float = 0.0):
        self.stride, self.target, self.every, self.boundary = stride, target, every, boundary
        self.state = {name: torch.tensor(0.0) for name in ("augment_p", "augment_signs", "augment_turns")}

    def update(self, step: int, players: tuple[str, ...], report: dict[str, Tensor], mean: Callable) -> None:
        p, signs, turns = self.state.values()
        if CRITIC in players:
            signs += mean((widened(report["real_score"]) - self.boundary).sign().mean())
            turns += 1
        if GENERATOR in players and (step + 1) % self.every == 0:
            p.add_(self.stride * (signs / turns - self.target).sign()).clamp_(0, 1)
            signs.zero_()
            turns.zero_()
