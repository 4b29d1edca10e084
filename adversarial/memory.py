"""What a game knows of former steps apart from its networks: a few scalars on the device, saved in checkpoints.

They are a function of themselves, the step and a turn's report. Nothing here waits for the device.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from adversarial.games import Memory
from adversarial.updates import CRITIC, GENERATOR, Turn

Mean = Callable[[Tensor], Tensor]  # of a tensor over all processes


class Keeper(Protocol):
    """Keeps a few of the scalars."""

    def start(self) -> dict[str, float]:
        """The scalars before the first step, by name."""
        ...

    def update(self, memory: Memory, step: int, turn: Turn, mean: Mean) -> None:
        """Change them in place by what a turn of ``step`` reported."""
        ...


def start(keepers: Sequence[Keeper], device: torch.device) -> Memory:
    """The memory before the first step."""
    values = {name: value for keeper in keepers for name, value in keeper.start().items()}
    return {name: torch.tensor(value, device=device) for name, value in values.items()}


class Scheduled:
    """A probability of augmentation that is a function of the step (R3GAN: Huang et al. 2024, appendix)."""

    def __init__(self, p: Callable[[int], float]):
        self.p = p

    def start(self) -> dict[str, float]:
        return {"augment_p": self.p(0)}

    def update(self, memory: Memory, step: int, turn: Turn, mean: Mean) -> None:
        if GENERATOR in turn.players:  # the step's last turn
            memory["augment_p"].fill_(self.p(step + 1))


class Adaptive:
    """A probability of augmentation that follows the critic's overfitting (ADA: Karras et al. 2020, section 3.1).

    The statistic is r_t = E[sign(D(real))], a critic that is sure of all training images has 1. Every ``every`` steps
    p moves by ``stride`` towards more augmentation where r_t is above ``target``, towards less where it is below.
    ``boundary`` is the score at which the critic is undecided. p stays in [0, 1].
    """

    def __init__(self, stride: float, target: float = 0.6, every: int = 4, boundary: float = 0.0):
        self.stride, self.target, self.every, self.boundary = stride, target, every, boundary

    def start(self) -> dict[str, float]:
        return {"augment_p": 0.0, "augment_signs": 0.0, "augment_turns": 0.0}

    def update(self, memory: Memory, step: int, turn: Turn, mean: Mean) -> None:
        if CRITIC in turn.players:
            memory["augment_signs"] += mean((_widened(turn.report["real_score"]) - self.boundary).sign().mean())
            memory["augment_turns"] += 1
        if GENERATOR in turn.players and (step + 1) % self.every == 0:
            overfitting = memory["augment_signs"] / memory["augment_turns"]
            memory["augment_p"].add_(self.stride * (overfitting - self.target).sign()).clamp_(0, 1)
            memory["augment_signs"].zero_()
            memory["augment_turns"].zero_()


class ScoreAverages:
    """Moving averages of both sides' scores, which LeCam holds the other side's to (``penalties.lecam``).

    They begin at 0 with no weight; divided by ``lecam_weight`` they are averages from the first step on.
    """

    def __init__(self, decay: float = 0.99):
        self.decay = decay

    def start(self) -> dict[str, float]:
        return {"lecam_real": 0.0, "lecam_fake": 0.0, "lecam_weight": 0.0}

    def update(self, memory: Memory, step: int, turn: Turn, mean: Mean) -> None:
        if CRITIC in turn.players:
            seen = {side: mean(_widened(turn.report[f"{side}_score"]).mean()) for side in ("real", "fake")}
            for name, value in {**seen, "weight": torch.ones_like(seen["real"])}.items():
                _move(memory[f"lecam_{name}"], value, 1 - self.decay)


class PathMean:
    """The moving average a of path lengths, which the path length penalty holds each of them to (Karras et al. 2020,
    StyleGAN2, appendix B). A step is held to the average before it.
    """

    def __init__(self, decay: float = 0.99):
        self.decay = decay

    def start(self) -> dict[str, float]:
        return {"path_mean": 0.0}

    def update(self, memory: Memory, step: int, turn: Turn, mean: Mean) -> None:
        if "path_length" in turn.report:
            _move(memory["path_mean"], mean(turn.report["path_length"]), 1 - self.decay)


def _widened(score: Tensor) -> Tensor:
    """Scores of half precision as float32: a sum of them would round too much."""
    return score.float() if score.dtype in (torch.bfloat16, torch.float16) else score


def _move(average: Tensor, value: Tensor, share: float) -> None:
    average.lerp_(value.to(average.dtype), share)
