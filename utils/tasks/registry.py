"""The tasks that a config can name.

To add a task: write a class with what ``utils.tasks.task.Task`` lists, and one line in ``TASKS``.
"""

from typing import Any

from utils.config.sections import Config
from utils.errors import UserError
from utils.tasks.adaptation import Adaptation
from utils.tasks.generation import Generation
from utils.tasks.invariance import Invariance
from utils.tasks.task import Task
from utils.training.state import Sizes

TASKS: dict[str, Task] = {"generation": Generation(), "adaptation": Adaptation(), "invariance": Invariance()}


def task_of(config: Config) -> Task:
    """The task of the game that ``config`` names."""
    return TASKS[config.game.name]


def check_sizes(config: Config, before: Sizes, data: Any) -> None:
    """Raise UserError if ``data`` has other sizes than those that a checkpoint's networks were built for."""
    sizes = TASKS[config.game.name].sizes(data)
    for name in ("shape", "classes", "outputs"):
        # A generator without labels is built in the same way for any number of classes.
        unused = name == "classes" and not getattr(config.game, "conditional", True)
        then, now = getattr(before, name), getattr(sizes, name)
        if not unused and then != now:
            shown = list(then) if isinstance(then, tuple) else then
            raise UserError(
                f"The run's networks are for data with {name} {shown}, and data set '{data.name}' has {name} {now}: "
                "name the run's own data, or train on these with another run.name."
            )
