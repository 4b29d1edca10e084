"""Checkpoints of a run, and its best model so far, written while training goes on."""

import contextlib
from dataclasses import replace
from typing import Any

from utils.config.sections import Config, metric_named
from utils.errors import UserError
from utils.run.folder import RunFolder
from utils.run.log import records, say, sync_records, training_lines
from utils.tasks.registry import Task
from utils.training import checkpoint
from utils.training.checkpoint import Tensors
from utils.training.players import Players
from utils.training.state import BestRecord, RunState


def best_metric(config: Config, task: Task, data: Any) -> str:
    """The metric by which the best model is chosen; "" for none. Raises UserError if the data cannot give it."""
    offered = task.offered(config, data)
    chosen = metric_named(config.checkpoint.best, ("auto", "none", *task.metrics))
    if chosen == "auto":
        return task.best_metric if task.best_metric in offered else ""
    if chosen != "none" and chosen not in offered:
        raise UserError(
            f"checkpoint.best={chosen} cannot be measured on data set '{data.name}' with "
            f"evaluate.features={config.evaluate.features}; valid are: auto, none, {', '.join(offered)}."
        )
    return "" if chosen == "none" else chosen


class Saver:
    """Writes checkpoints of a run that starts from ``state``, and keeps the best model by ``metric`` ("": none).

    The best model's checkpoint in ``best/`` holds the record by which it was chosen. Both are committed by one rename,
    so after a kill at any moment they belong together; a separate file could name one step, and the folder hold
    another. With ``writes`` False, as in all processes but the first, nothing is written.

    Used in a ``with`` block. An error of the writing is raised as UserError by the next call of any method, or at the
    block's end.
    """

    def __init__(
        self, config: Config, folder: RunFolder, players: Players, state: RunState, metric: str, writes: bool
    ) -> None:
        self.config, self.folder, self.players, self.state = config, folder, players, state
        self.metric, self.writes = metric, writes
        self.writer = checkpoint.Writer()
        self.saved: int | None = None  # the step of the last checkpoint of this process
        self.best: BestRecord | None = None
        if writes:
            # A resumed run does later steps again, and its models may be others where a step is left out.
            checkpoint.remove(folder.best, lambda step: step > state.step)
            self.best = self._best_on_disk()

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if kind is KeyboardInterrupt:  # a second Ctrl-C: a disk that hangs must not hold the process
            with contextlib.suppress(TimeoutError):
                self.writer.wait(seconds=1)
        else:
            self.writer.wait()

    def save(self, step: int) -> None:
        """Have a checkpoint of ``step`` written, unless it was the last one. Training waits for the copy alone."""
        if not self.writes or step == self.saved:
            return
        self.folder.check_lock()
        self.saved = step
        tensors, state = checkpoint.snapshot(self.players.tensors()), replace(self.state, step=step)
        self.writer.submit(lambda: self._commit(tensors, state))

    def check(self) -> None:
        """Raise the error of a checkpoint that could not be written."""
        self.writer.check()

    def keep_if_best(self, step: int, measured: list[dict[str, Any]]) -> None:
        """Keep the networks of ``step`` if the records ``measured`` there are the best so far, or as good."""
        found = _record_of(self.metric, step, measured)
        if found is None or not found.beats(self.best) or (self.best and self.best.step == step):
            return
        self.folder.check_lock()
        self.best = found
        networks, state = checkpoint.snapshot(self.players.networks()), replace(self.state, step=step, best=found)
        self.writer.submit(lambda: checkpoint.save(self.folder.best, networks, state))

    def finish(self) -> None:
        """Wait until everything is written, and leave the best model alone in its folder."""
        self.writer.wait()
        if self.writes:
            self._prune_best()

    def _commit(self, tensors: Tensors, state: RunState) -> None:
        """Runs in the writer's thread."""
        state = replace(state, lines=training_lines(self.folder, state.step))
        sync_records(self.folder)  # a run that resumes from here relies on them
        checkpoint.save(self.folder.checkpoints, tensors, state, self.config.checkpoint.keep)
        self._prune_best()

    def _prune_best(self) -> None:
        """Remove former best models, once a checkpoint of a later step is committed.

        Until then, a run that is killed resumes from before the newest best model, and needs the former one.
        """
        best = self.best
        if best and best.step in checkpoint.steps(self.folder.best):  # or it is still to be written
            checkpoint.remove(self.folder.best, lambda step: step != best.step)

    def _best_on_disk(self) -> BestRecord | None:
        """The record of the newest intact model in ``best/`` that was chosen by this metric."""
        for found in checkpoint.intact(self.folder.best, warn=lambda text: say(self.folder, text)):
            step = found.state.step
            # Format 1 did not hold the record: it is among the run's metrics.
            record = found.state.best or _record_of(self.metric, step, records(self.folder))
            if record and record.metric == self.metric:
                return record
        return None


def _record_of(metric: str, step: int, measured: list[dict[str, Any]]) -> BestRecord | None:
    """The record of ``metric`` at ``step`` among those ``measured``, if it has a finite value."""
    for record in measured:
        if record.get("metric") == metric and record.get("step", step) == step:
            return BestRecord.of(step, record)
    return None
