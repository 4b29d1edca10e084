"""What a task is: everything around the loop that depends on the kind of game. The loop itself knows none of it."""

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from adversarial.games import Game
from utils.config.sections import Config
from utils.evaluation.features import Features
from utils.evaluation.generation import Share
from utils.evaluation.records import Record
from utils.training.checkpoint import Checkpoint, Tensors
from utils.training.players import Players
from utils.training.state import RunState, Sizes

Pictures = dict[str, Tensor]  # uint8 [3, H, W], or the frames [T, 3, H, W] of a film, by name
ImageBatch = tuple[Tensor, Tensor | None]  # uint8 [n, C, H, W] and labels [n]
COUNT, COLUMNS = 64, 8  # what sample.py draws unless its options say otherwise


class Explanation(NamedTuple):
    """What was found out about networks, to look at and in numbers."""

    pictures: Pictures
    records: list[Record]


class Task(Protocol):
    """What a kind of game loads, builds, draws and measures."""

    side_names: tuple[str, str]  # what "real" and "fake" are called in logs
    progress_statistics: dict[str, str]  # statistics on the progress bar, by their short names
    picture_tag: str  # the picture's name in TensorBoard
    metrics: tuple[str, ...]  # metrics that may choose the best model
    best_metric: str  # the one that does so unless the config names another; "" for none
    critic_dominates_hint: str  # a sentence: what to try where the critic dominates

    def load(self, config: Config) -> Any:
        """The data. It has ``train`` and ``target`` samples (``target`` may be None), ``shape``, ``classes``, ``name``.

        Raises UserError where it cannot be read or does not fit the task.
        """
        ...

    def sizes(self, data: Any) -> Sizes:
        """What the networks must know of the data. Every checkpoint holds it."""
        ...

    def networks(self, config: Config, sizes: Sizes) -> tuple[nn.Module, nn.Module]:
        """Generator side and critic, on the CPU; their weights are a function of the config.

        Raises UserError if the model family does not fit.
        """
        ...

    def start(self, config: Config, generator: nn.Module) -> None:
        """Load the weights that a fresh run starts from, where they are not random."""
        ...

    def adopt(self, config: Config, source: Checkpoint) -> Tensors:
        """The networks of another run's checkpoint, or of an export, by the names of this run's.

        Both are of the same game and family. Raises UserError where they must have more in common and have not.
        """
        ...

    def game(self, config: Config, players: Players, data: Any, accelerator: Accelerator) -> Game:
        """The game, with networks wrapped for this process.

        Raises UserError if the update rule does not suit the critic.
        """
        ...

    def picture(self, config: Config, players: Players, data: Any) -> Tensor:
        """A picture of what the averaged generator side does: uint8 ``[3, H, W]``."""
        ...

    def gallery(self, config: Config, players: Players, state: RunState, options: Namespace) -> Pictures:
        """The pictures that ``sample.py`` writes, as its ``options`` ask; those that were not given are None.

        ``state`` is the checkpoint's.

        Raises UserError for options that do not fit the run.
        """
        ...

    def explain(
        self, config: Config, players: Players, data: Any, count: int, seed: int, layer: str = ""
    ) -> Explanation:
        """Which pixels or features the scores of the run's networks hang on, at ``count`` samples of either side, and
        where a ``layer`` such as "critic.features.0" sees what moves them.

        Raises UserError where a score is not differentiable, and for a layer that gives no maps.
        """
        ...

    def batches(self, config: Config, players: Players, state: RunState, options: Namespace) -> Iterator[ImageBatch]:
        """The samples that ``sample.py --each`` writes as files, with their labels where there are any.

        Raises UserError as ``gallery`` does, and where the run makes no images.
        """
        ...

    def offered(self, config: Config, data: Any) -> tuple[str, ...]:
        """Those of ``metrics`` that can be measured on the data."""
        ...

    def check_evaluation(self, config: Config, data: Any, folder: Path, device: torch.device) -> None:
        """Raise UserError before the training for what would stop an evaluation after it."""
        ...

    def evaluate(
        self, config: Config, players: Players, data: Any, folder: Path, made: Features | None = None
    ) -> list[Record]:
        """Records of the averaged generator side.

        What does not depend on the run is read from ``folder``, or computed and kept there. ``made``, which is given
        only where the task has shares, are those of all processes together.
        """
        ...

    def share(self, config: Config, players: Players, data: Any, folder: Path, rank: int, size: int) -> Share | None:
        """What the process ``rank`` of ``size`` computes of an evaluation; None where the first does it all alone."""
        ...

    def illustrate(self, config: Config, players: Players, data: Any, records: list[Record]) -> Pictures:
        """Pictures of what the records say, by name."""
        ...

    def verdict(self, config: Config, measured: list[Record]) -> str:
        """What the metrics of a run so far, each with its ``step``, say about its critic; "" for nothing."""
        ...
