"""A run's newest checkpoint, opened by a command that does not train."""

from collections.abc import Sequence
from typing import NamedTuple

from utils import errors
from utils.config import loading
from utils.config.sections import Config
from utils.paths import path_of
from utils.run.folder import RunFolder
from utils.tasks.registry import task_of
from utils.tasks.task import Task
from utils.training.players import Players
from utils.training.state import RunState


class OpenRun(NamedTuple):
    """A run as one of its checkpoints has it."""

    folder: RunFolder
    config: Config
    task: Task
    players: Players
    state: RunState


def open_run(folder: str, overrides: Sequence[str], weights: str) -> OpenRun:
    """The run in a folder, with those of ``players.WEIGHTS`` as the averaged ones.

    A run that is still being trained is opened with a warning that names the step. Raises UserError if there is no run
    in the folder, or no checkpoint of it.
    """
    found = RunFolder(path_of(folder))
    config = loading.load_run(found.path, list(overrides))
    task = task_of(config)
    players, state = Players.load(config, found.checkpoint_folder(weights), task.networks, errors.warn)
    if weights == "raw":
        players = players.with_raw_weights()
    if owner := found.owner():
        errors.warn(f"{folder} is being trained by {owner}; this is its step {state.step}, the last one it has saved.")
    return OpenRun(found, config, task, players, state)
