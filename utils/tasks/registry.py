"""The kinds of games that a config can name: what each loads, builds, draws, measures. The loop knows none of them."""

from argparse import Namespace
from pathlib import Path
from typing import Any, Protocol

from accelerate import Accelerator
from torch import Tensor, nn

from adversarial.games import Game
from utils.config.sections import Config
from utils.errors import UserError
from utils.evaluation.generation import Record
from utils.tasks.generation import Generation, Pictures
from utils.tasks.recognition import Adaptation, Invariance
from utils.training.players import Players


class Task(Protocol):
    """What a game needs around the loop."""

    sides: tuple[str, str]  # what "real" and "fake" are called in logs
    shown: dict[str, str]  # statistics on the progress bar, by their short names
    picture_name: str  # what TensorBoard calls the picture
    metrics: tuple[str, ...]  # by which the best model may be chosen
    best: str  # the metric by which it is chosen unless the config says another; "": none
    advice: str  # what to try where the critic has won

    def load(self, config: Config) -> Any:
        """The data: what has ``train``, ``target``, ``shape``, ``classes``, ``name``."""
        ...

    def sizes(self, data: Any) -> dict[str, Any]:
        """What the networks must know of the data; it lies in every checkpoint."""
        ...

    def networks(self, config: Config, sizes: dict[str, Any]) -> tuple[nn.Module, nn.Module]:
        """Generator side and critic, a function of the config. Raises UserError if the family does not offer them."""
        ...

    def start(self, config: Config, generator: nn.Module) -> None:
        """Weights that a fresh run begins with, where they are not random."""
        ...

    def game(self, config: Config, players: Players, data: Any, accelerator: Accelerator) -> Game:
        """The game of wrapped networks. Raises UserError if the update rule does not suit the critic."""
        ...

    def picture(self, config: Config, players: Players, data: Any) -> Tensor:
        """What people look at: uint8 ``[3, H, W]``."""
        ...

    def gallery(self, config: Config, players: Players, state: dict[str, Any], options: Namespace) -> Pictures:
        """What ``sample.py`` writes: pictures by the first part of their names, as its options ask."""
        ...

    def evaluate(self, config: Config, players: Players, data: Any, folder: Path) -> list[Record]:
        """Records of the averaged generator side; empty where nothing can be measured."""
        ...


def check_sizes(config: Config, state: dict[str, Any], data: Any) -> None:
    """Raise UserError if the networks of a checkpoint with this ``state`` are for other data than ``data``."""
    for name, now in TASKS[config.game.name].sizes(data).items():
        ignored = name == "classes" and config.game.name == "generation" and not config.game.conditional
        before = state[name]
        if not ignored and before != (list(now) if isinstance(now, tuple) else now):
            raise UserError(
                f"The run's networks are for data with {name} {before}, and data set '{data.name}' has {name} {now}: "
                "name the run's own data, or train on these with another run.name."
            )


TASKS: dict[str, Task] = {"generation": Generation(), "adaptation": Adaptation(), "invariance": Invariance()}


def task_of(config: Config) -> Task:
    """The task of the game that ``config`` names."""
    return TASKS[config.game.name]
