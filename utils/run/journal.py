"""What happens every so often in a run: logs, pictures, evaluations, checkpoints."""

import contextlib
import sys
from collections import deque
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from tqdm import tqdm

from adversarial.updates import Turn
from utils import pictures
from utils.config.identity import identity
from utils.config.sections import Config
from utils.config.text import to_yaml
from utils.errors import UserError
from utils.evaluation import generation as evaluation
from utils.run.folder import RunFolder
from utils.run.log import Log, Meter, gradient_norm, records
from utils.run.signals import Interrupted, StopSignals
from utils.tasks.registry import Task
from utils.training import checkpoint
from utils.training.checkpoint import Tensors
from utils.training.players import Players, first_not_finite

FINISHED = "finished"  # kind of the record that ends a run
_REMEDY = "Lower optimizer.*_lr, add penalty.r1, or try another seed"


class NotFiniteError(UserError):
    """A loss, a score or a gradient became NaN or infinite, first in step index ``step``."""

    def __init__(self, text: str, step: int):
        super().__init__(text)
        self.step = step


class Journal:
    """Reports of one run from step ``begin`` on. ``writes`` is True in one process only."""

    def __init__(
        self,
        config: Config,
        task: Task,
        folder: RunFolder,
        data: Any,
        players: Players,
        begin: int,
        writes: bool,
        stop: StopSignals,
        skipped: frozenset[int] = frozenset(),
    ):
        self.config, self.task, self.folder, self.data, self.players = config, task, folder, data, players
        self.begin, self.writes, self.stop, self.skipped = begin, writes, stop, skipped
        self.meter = Meter(stop.group)
        self.writer = checkpoint.Writer()
        self.logged = self.begin
        self.saved: int | None = None
        self.bar: tqdm | None = None
        self.log = Log(folder, self.begin) if writes else None
        self.recent: deque[dict[str, float]] = deque(maxlen=config.guard.patience)

    def __enter__(self) -> "Journal":
        if self.log:
            checkpoint.remove(self.folder.best, lambda step: step > self.begin)  # these steps are done anew
            self.log.config(to_yaml(self.config))
            self.recent.extend(record for record in records(self.folder) if record["kind"] == "train")
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if self.bar is not None:
            self.bar.close()
        try:
            self.writer.wait()
        except UserError as lost:
            error = error or lost
            raise
        finally:
            if self.log:
                with contextlib.suppress(UserError) if error else contextlib.nullcontext():  # one error is enough
                    if isinstance(error, UserError) and not self._may_roll_back(error):
                        self.log.say(f"Stopped: {error}", quiet=True)
                    self.log.close()

    def _may_roll_back(self, error: BaseException) -> bool:
        return isinstance(error, NotFiniteError) and len(self.skipped) < self.config.guard.rollbacks

    def steps(self) -> Iterator[int]:
        """The steps that are left, under a progress bar (none in a pipe)."""
        end = self.config.train.steps
        steps = count(self.begin) if end is None else range(self.begin, end)
        if not self._catch_up():
            return
        self.bar = tqdm(
            steps, desc=self.config.run.name, initial=self.begin, total=end, unit="step",
            disable=None if self.writes else True,
        )  # fmt: skip
        yield from self.bar

    def _catch_up(self) -> bool:
        """A process that ended right after a checkpoint did not come to that step's picture and evaluation, or did not
        keep it as the best. Whether the run may go on.
        """
        step = self.begin
        if not step or step == self.config.train.steps:
            return True
        if self.log and best_step(self.folder, self.best) == step and step not in checkpoint.steps(self.folder.best):
            self._save_best(step)
        drawn = self._picture(step).is_file()
        evaluated = any(record["kind"] == "metric" and record["step"] == step for record in records(self.folder))
        return self.show(step, drawn, evaluated)

    def note(self, step: int, turn: Turn) -> None:
        """Take in a turn before its players move. Nothing here waits for the device."""
        norms = {f"{player}_gradient_norm": gradient_norm(getattr(self.players, player)) for player in turn.players}
        self.meter.add(step, {**turn.report, **norms})
        self.writer.check()

    def say(self, text: str) -> None:
        """A line for people, from one process."""
        if self.log:
            self.log.say(text)

    def tell(self, step: int, coefficient: float) -> None:
        """Curves, score distributions, λ and a line of numbers. Raises NotFiniteError."""
        self._refuse_not_finite()
        values = self.meter.read(images=(step - self.logged) * self.config.train.batch_size)
        self.logged = step
        if not self.log:
            return
        for player, optimizer in self.players.optimizers.items():
            values[f"{player}_learning_rate"] = optimizer.param_groups[0]["lr"]
        values["coefficient"] = coefficient
        values = {self._named(name): value for name, value in values.items()}
        self.log.record("train", step, values)
        self.log.scores(step, {self._named(name): scores for name, scores in self.meter.scores.items()})
        line = "  ".join(f"{short} {values[name]:.3f}" for short, name in self.task.shown.items() if name in values)
        self.bar.set_postfix_str(line)
        speed = f"{values['images_per_second']:.0f} images/s"
        self.log.say(f"step {step}/{self.config.train.steps or '...'}  {line}  {speed}", quiet=sys.stderr.isatty())
        self._warn_of_collapse(step, values)

    def _named(self, statistic: str) -> str:
        """A statistic with the sides' names in this game: critic_accuracy_real is critic_accuracy_source."""
        for side, name in zip(("real", "fake"), self.task.sides, strict=True):
            statistic = "_".join(name if word == side else word for word in statistic.split("_"))
        return statistic

    def _refuse_not_finite(self) -> None:
        """Raise NotFiniteError, in all processes, if in one of them something has been NaN or infinite.

        Waits for the device.
        """
        broken = self.meter.first_not_finite()
        if not broken:
            return
        first = min(broken.values())
        names = ", ".join(name for name, step in broken.items() if step == first)
        raise NotFiniteError(
            f"{names} became NaN or infinite in step {first + 1}; no checkpoint holds it. {_REMEDY}; "
            "guard.rollbacks=3 goes back to the last checkpoint and leaves such a step out, up to three times.",
            first,
        )

    def show(self, step: int, drawn: bool = False, evaluated: bool = False) -> bool:
        """Draw and evaluate what is due after ``step``, unless it is there already.

        False if a signal, in any process, asks the run to end: all ask, whatever each of them found done.
        """
        draw, evaluate = due(self.config.sample.every, step), due(self.config.evaluate.every, step)
        with contextlib.suppress(Interrupted):
            if draw and not drawn:
                self.draw(step)
            if evaluate and not evaluated:
                self.evaluate(step)
        return not self.stop.received_by_now() if draw or evaluate else True

    def draw(self, step: int) -> None:
        """The game's picture, of the average generator side. Raises Interrupted on a signal."""
        if not self.log:
            return
        with self.meter.paused(), self.stop.interruptible():
            image = self.task.picture(self.config, self.players, self.data)
        with self.meter.paused():
            pictures.save(image, self._picture(step))
            self.log.picture(step, self.task.picture_name, image)

    def _picture(self, step: int) -> Path:
        return self.folder.samples / f"step-{step:08d}.png"

    def evaluate(self, step: int) -> None:
        """Metrics of the average generator side: records in metrics.jsonl and lines for people; keeps the best.

        Raises Interrupted on a signal, before anything is written.
        """
        if not self.log:
            return
        with self.meter.paused():
            with self.stop.interruptible():
                records = self.task.evaluate(self.config, self.players, self.data, self.folder.path)
            for record, line in zip(records, evaluation.describe(records), strict=True):
                self.log.metric(step, {**record, "weights": "ema"})
                self.log.say(f"step {step}  {line}")
            if best_step(self.folder, self.best) == step:
                self._save_best(step)
        if not records:
            self.log.say(f"step {step}  Nothing is measured: '{self.data.name}' has no labelled held-out split.")

    def _save_best(self, step: int) -> None:
        networks, state = checkpoint.snapshot(self.players.networks()), self._state()
        self.writer.submit(lambda: checkpoint.save(self.folder.best, step, networks, state))

    def save(self, step: int) -> None:
        """Have a checkpoint of ``step`` written behind the training, once.

        Raises NotFiniteError; an error of the writing is raised as UserError by a later ``note``, ``save``, ``finish``.
        """
        if step == self.saved:
            return
        self._refuse_not_finite()
        self.saved = step
        if not self.log:
            return
        with self.meter.paused():
            tensors, state = checkpoint.snapshot(self.players.tensors()), self._state()
            self.writer.submit(lambda: self._commit(step, tensors, state))

    def _commit(self, step: int, tensors: Tensors, state: dict[str, Any]) -> None:
        """Runs in the writer's thread."""
        if broken := first_not_finite(tensors):
            raise UserError(
                f"NaN or Inf in {broken} at step {step}: this is not saved, a checkpoint is from before. {_REMEDY}."
            )
        checkpoint.save(self.folder.checkpoints, step, tensors, state, self.config.checkpoint.keep)
        self._prune_best()

    def _prune_best(self) -> None:
        """Former best models go once a checkpoint lies behind the present one: until then a resumed run needs them."""
        best = best_step(self.folder, self.best)
        if best in checkpoint.steps(self.folder.best):  # not so where checkpoint.best was changed on the way
            checkpoint.remove(self.folder.best, lambda step: step != best)

    def _state(self) -> dict[str, Any]:
        sizes = self.task.sizes(self.data)
        target = None if self.data.target is None else len(self.data.target)
        counts = {"train_samples": len(self.data.train), "target_samples": target}
        return {"config": identity(self.config), "skipped": sorted(self.skipped), **sizes, **counts}

    @property
    def best(self) -> str:
        """The metric by which the best model is chosen; "" for none."""
        chosen = self.config.checkpoint.best
        return {"auto": self.task.best, "none": ""}.get(chosen, chosen)

    def finish(self, step: int) -> bool:
        """Draw and measure what came out and say where it lies, or say that a signal stopped the run. Whether it is
        finished.
        """
        self.writer.wait()
        if self.config.train.steps is None or step < self.config.train.steps:
            self.say(f"Stopped after step {step} by {self._signal()}; the same command resumes.")
            return False
        try:
            self.draw(step)
            self.evaluate(step)
        except Interrupted:
            self.say(f"Stopped before the last evaluation by {self._signal()}; the same command makes up for it.")
            return False
        if not self.log:
            return True
        self.writer.wait()
        self._prune_best()
        if self.config.evaluate.every:
            measured = best_metrics(self.folder)
            for metric in (name for name in self.task.metrics if name in measured):
                best = measured[metric]
                self.log.say(f"best {metric}: {evaluation.readable(best['value'])} at step {best['step']}")
            self._tell_chosen()
        self.log.record(FINISHED, step, {})
        self.log.say(
            f"Finished at step {step}. Pictures: {self.folder.samples}/  log: {self.folder.log}  "
            f"checkpoint: {self.folder.checkpoints}/step-{step:08d}/"
        )
        return True

    def _signal(self) -> str:
        return self.stop.name or "another process"

    def _tell_chosen(self) -> None:
        """Last, chosen without target labels, and what an oracle would have chosen, side by side."""
        oracle = {r["step"]: r["value"] for r in records(self.folder) if r["kind"] == "metric" and r.get("oracle")}
        chosen = best_step(self.folder, self.best)
        if chosen in oracle and chosen in checkpoint.steps(self.folder.best):
            top = max(oracle, key=oracle.get)
            self.log.say(
                f"Chosen by {self.best}: step {chosen}, which an oracle finds to be right on {oracle[chosen]:.2f} % of "
                f"the target; the last step on {oracle[max(oracle)]:.2f} %; the oracle's own choice, step {top}, on "
                f"{oracle[top]:.2f} %."
            )

    def _warn_of_collapse(self, step: int, values: dict[str, float]) -> None:
        """Never silent about a critic that has won or a generator that no longer moves."""
        guard, sides = self.config.guard, self.task.sides
        self.recent.append(values)
        gaps = [abs(v.get(f"{sides[0]}_score", 0.0) - v.get(f"{sides[1]}_score", 0.0)) for v in self.recent]
        if len(gaps) == guard.patience and min(gaps) > guard.score_gap and f"{sides[1]}_score" in values:
            self.log.say(
                f"step {step}  warning: the critic's scores of {' and '.join(sides)} are {gaps[-1]:.0f} apart, over "
                f"guard.score_gap={guard.score_gap:g} in each of the last {guard.patience} log lines: it has won. "
                f"{self.task.advice}"
            )
        norm = values.get("generator_gradient_norm", 1.0)
        if norm < guard.vanished:
            self.log.say(
                f"step {step}  warning: the generator's gradient has vanished (norm {norm:.1e}, under "
                f"guard.vanished={guard.vanished:g}). Try game.objective=non_saturating or penalty.r1."
            )


def best_metrics(folder: RunFolder) -> dict[str, dict[str, Any]]:
    """The best record of every metric so far, the latest among equals."""
    best: dict[str, dict[str, Any]] = {}
    for record in records(folder):
        if record["kind"] == "metric" and record["value"] is not None:
            former, sign = best.get(record["metric"]), 1 if record["higher_is_better"] else -1
            if former is None or sign * record["value"] >= sign * former["value"]:
                best[record["metric"]] = record
    return best


def best_step(folder: RunFolder, metric: str) -> int | None:
    """The step at which ``metric`` was best so far; None before it was measured."""
    best = best_metrics(folder).get(metric)
    return best["step"] if best else None


def is_finished(folder: RunFolder, step: int, steps: int | None) -> bool:
    """Whether a run that stands at ``step`` has all its ``steps`` and its last evaluation behind it."""
    if steps is None or step < steps:
        return False
    return any(record["kind"] == FINISHED for record in records(folder) if record["step"] == step)


def due(every: int, step: int) -> bool:
    """Whether something that happens every so many steps happens after ``step`` steps; 0 is never."""
    return every > 0 and step % every == 0
