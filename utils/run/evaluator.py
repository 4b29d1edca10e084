"""Pictures and metrics of the average generator while it trains."""

import contextlib
from pathlib import Path
from typing import Any

from utils import pictures
from utils.config.sections import Config
from utils.evaluation.records import describe
from utils.run.log import Log, records
from utils.run.saver import Saver
from utils.run.signals import Interrupted, StopSignals
from utils.tasks.registry import Task
from utils.training.players import Players


def due(every: int, step: int) -> bool:
    """Whether what happens every so many steps (0: never) happens after ``step`` steps."""
    return every > 0 and step % every == 0


class Evaluator:
    """Draws and evaluates in the process that has a ``log``; the others only wait for it."""

    def __init__(
        self, config: Config, task: Task, data: Any, players: Players, log: Log | None, saver: Saver, stop: StopSignals
    ) -> None:
        self.config, self.task, self.data, self.players = config, task, data, players
        self.log, self.saver, self.stop = log, saver, stop

    def show(self, step: int) -> bool:
        """Draw and evaluate what is due after ``step``. False if a signal, in any process, asks the run to end."""
        draw, evaluate = due(self.config.sample.every, step), due(self.config.evaluate.every, step)
        if not draw and not evaluate:
            return True
        return self._show(step, draw, evaluate)

    def catch_up(self, step: int) -> bool:
        """Redo what was due after ``step``, from which the run resumes, and was interrupted. False on a signal.

        The last step's is drawn and evaluated at the end of the run anyway.
        """
        draw = evaluate = False
        if self.log and 0 < step != self.config.train.steps:
            draw = due(self.config.sample.every, step) and not self._picture(step).is_file()
            measured = [r for r in records(self.log.folder) if r["kind"] == "metric" and r["step"] == step]
            evaluate = due(self.config.evaluate.every, step) and not measured
            self.saver.keep_if_best(step, measured)  # a kill may have come between the records and the model
        return self._show(step, draw, evaluate)

    def _show(self, step: int, draw: bool, evaluate: bool) -> bool:
        with contextlib.suppress(Interrupted):
            if draw:
                self.draw(step)
            if evaluate:
                self.evaluate(step)
        return not self.stop.received_by_now()  # asked by all processes, whatever each of them did

    def draw(self, step: int) -> None:
        """Save the game's picture of the average generator. Raises Interrupted on a signal."""
        if not self.log:
            return
        with self.stop.interruptible():
            image = self.task.picture(self.config, self.players, self.data)
        pictures.save(image, self._picture(step))
        self.log.picture(step, self.task.picture_tag, image)

    def evaluate(self, step: int) -> None:
        """Measure the average generator: records in metrics.jsonl and lines for people; keeps the model if it is best.

        Raises Interrupted on a signal, before anything is written.
        """
        if not self.log:
            return
        with self.stop.interruptible():
            measured = self.task.evaluate(self.config, self.players, self.data, self.log.folder.path)
        self.log.metrics(step, [{**record, "weights": "ema"} for record in measured])
        for line in describe(measured):
            self.log.say(f"step {step}  {line}")
        self.saver.keep_if_best(step, measured)
        if not measured:
            self.log.say(f"step {step}  Nothing is measured: '{self.data.name}' has no labelled held-out split.")

    def _picture(self, step: int) -> Path:
        return self.log.folder.samples / f"step-{step:08d}.png"
