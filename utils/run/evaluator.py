"""Pictures and metrics of the average generator, and what its critic looks at, while it trains."""

import contextlib
from pathlib import Path
from typing import Any

import torch

from utils import pictures
from utils.config.sections import Config
from utils.errors import NotFiniteError, UserError
from utils.evaluation.features import Features
from utils.evaluation.generation import Share
from utils.evaluation.records import describe
from utils.run.folder import RunFolder
from utils.run.log import Log, records
from utils.run.saver import Saver
from utils.run.signals import Interrupted, StopSignals
from utils.tasks.registry import Task
from utils.training.players import Players
from utils.training.processes import ProcessGroup


def due(every: int, step: int) -> bool:
    """Whether what happens every so many steps (0: never) happens after ``step`` steps."""
    return every > 0 and step % every == 0


def uncompiled(config: Config) -> contextlib.AbstractContextManager:
    """A block in which compiled networks run as they are written: they were compiled for training alone."""
    return torch.compiler.set_stance("force_eager") if config.train.compile else contextlib.nullcontext()


def together(group: ProcessGroup, share: Share | None) -> Features | None:
    """The features of all shares, in the first process. None in the others, and where it has no share.

    Raises UserError where the processes computed them by different networks.
    """
    networks = group.gathered(torch.tensor([list(share.sha256.encode())]) if share else None)
    mine = share.features if share else [None] * len(Features._fields)
    fields = [group.gathered(values) for values in mine]
    if not networks:
        return None
    if len(torch.cat(networks).unique(dim=0)) > 1:
        raise UserError(
            "The processes measure with different feature networks: give all of them the same evaluate.features_file, "
            "put run.dir on a file system that they share, and run the same command again."
        )
    return Features(*(torch.cat(parts) if parts else None for parts in fields))


class Evaluator:
    """Draws and evaluates in the process that has a ``log``; the others compute their shares, and wait for it."""

    def __init__(
        self, config: Config, task: Task, data: Any, players: Players, log: Log | None, saver: Saver, stop: StopSignals
    ) -> None:
        self.config, self.task, self.data, self.players = config, task, data, players
        self.log, self.saver, self.stop = log, saver, stop
        self.drawn: int | None = None  # the step of the last picture
        self.evaluated: int | None = None  # the step of the last records
        self.explained: int | None = None  # the step of the last explanation

    def show(self, step: int) -> bool:
        """Draw, evaluate and explain what is due after ``step``. False if a signal, in any process, asks the run to
        end.
        """
        what = self._due(step)
        return not any(what) or self._show(step, *what)

    def _due(self, step: int) -> tuple[bool, bool, bool]:
        """Whether to draw, to evaluate and to explain after ``step``."""
        cfg = self.config
        return tuple(due(every, step) for every in (cfg.sample.every, cfg.evaluate.every, cfg.explain.every))

    def catch_up(self, step: int) -> bool:
        """Redo what was due after ``step``, from which the run resumes, and was interrupted. False on a signal.

        What is there is not done again, neither here nor at the end of the run.
        """
        draw = evaluate = explain = False
        if self.log and step > 0:
            if (image := pictures.load(self._picture(step))) is not None:
                self.log.picture(step, self.task.picture_tag, image)
                self.drawn = step
            if measured := [r for r in records(self.log.folder) if r["kind"] == "metric" and r["step"] == step]:
                self.saver.keep_if_best(step, measured)  # a kill may have come between the records and the model
                self.evaluated = step
            if step != self.config.train.steps:  # the last step's are drawn and evaluated at the end anyway
                draw, evaluate, explain = self._due(step)
        return self._show(step, draw, evaluate, explain)

    def end(self, step: int) -> bool:
        """Draw, evaluate and, where ``explain.every`` asks for it at all, explain after the last step.

        False if a signal interrupted it, in this process.
        """
        return self._done(step, True, True, self.config.explain.every > 0)

    def _show(self, step: int, draw: bool, evaluate: bool, explain: bool) -> bool:
        self._done(step, draw, evaluate, explain)
        return not self.stop.received_by_now()  # asked by all processes, whatever each of them did

    def _done(self, step: int, draw: bool, evaluate: bool, explain: bool) -> bool:
        """Whether it was not interrupted. Raises NotFiniteError in all processes, so that they roll back together."""
        interrupted, broken = False, None
        try:
            # First, for only here do processes wait for each other: what comes then may end anywhere in each of them.
            made = self._made(evaluate and self.log is not None and step != self.evaluated)
            if draw:
                self.draw(step)
            if evaluate:
                self.evaluate(step, made)
            if explain:
                self.explain(step)
        except Interrupted:
            interrupted = True
        except NotFiniteError as error:
            broken = error
        if self.stop.group.any(broken is not None):
            raise NotFiniteError(str(broken or "Another process has met NaN in its evaluation."), step - 1)
        return not interrupted

    def _made(self, wanted: bool) -> Features | None:
        """Where the first process wants to evaluate: features that each process has computed a share of, in the first.

        None where it computes them all. Raises what stops any of the processes in all of them: Interrupted or, where it
        was found, NotFiniteError.
        """
        group, share, error = self.stop.group, None, None
        if group.size == 1 or not group.any(wanted):
            return None
        # BatchNorm's statistics are each process's own, and those of the first are the run's.
        group.copy_of_first(self.players.average.buffers())
        folder = RunFolder.of(self.config).features
        try:
            with self.stop.interruptible():
                share = self.task.share(self.config, self.players, self.data, folder, group.rank, group.size)
        except (Interrupted, NotFiniteError) as raised:
            error = raised
        if group.any(error is not None):
            raise error or Interrupted
        return together(group, share)

    def draw(self, step: int) -> None:
        """Save the game's picture of the average generator, once a step. Raises Interrupted on a signal."""
        if not self.log or step == self.drawn:
            return
        with self.stop.interruptible():
            image = self.task.picture(self.config, self.players, self.data)
        pictures.save(image, self._picture(step))
        self.log.picture(step, self.task.picture_tag, image)
        self.drawn = step

    def evaluate(self, step: int, made: Features | None = None) -> None:
        """Measure the average generator, once a step: records in metrics.jsonl, and lines for people.

        ``made`` are features of its samples where they are known. Keeps the model if it is the best. Raises Interrupted
        on a signal, before anything is written.
        """
        if not self.log or step == self.evaluated:
            return
        given = {} if made is None else {"made": made}
        with self.stop.interruptible():
            measured = self.task.evaluate(self.config, self.players, self.data, self.log.folder.features, **given)
        self.log.metrics(step, [{**record, "weights": "ema"} for record in measured])
        for line in describe(measured):
            self.log.say(f"step {step}  {line}")
        if verdict := self.task.verdict(self.config, [r for r in records(self.log.folder) if r["kind"] == "metric"]):
            self.log.say(f"step {step}  {verdict}")
        self.saver.keep_if_best(step, measured)
        self.evaluated = step
        if not measured:
            self.log.say(f"step {step}  Nothing is measured.")

    def explain(self, step: int) -> None:
        """Save pictures of what the networks look at, once a step. Raises Interrupted on a signal.

        Where a score is not differentiable it says so, and the run goes on.
        """
        if not self.log or step == self.explained:
            return
        config, seed = self.config, self.config.seed
        try:
            with self.stop.interruptible(), uncompiled(config):
                found = self.task.explain(config, self.players, self.data, config.explain.count, seed)
        except UserError as error:
            self.log.say(f"step {step}  Nothing is explained: {error}")
            return
        for name, image in found.pictures.items():
            pictures.save(image, self.log.folder.explanations / f"{name}-step-{step:08d}-ema.png")
            self.log.picture(step, f"explain/{name}", image)
        self.explained = step

    def _picture(self, step: int) -> Path:
        return self.log.folder.samples / f"step-{step:08d}.png"
