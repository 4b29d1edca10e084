"""What happens every so often in a run: logs, pictures, evaluations, checkpoints."""

import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from tqdm import tqdm

from adversarial.updates import Turn
from utils import checkpoint, evaluation, pictures
from utils.config import Config, identity, to_yaml
from utils.errors import UserError
from utils.kinds import Kind
from utils.logs import Log, Meter, not_finite, records
from utils.players import Players, first_not_finite
from utils.run import RunFolder

FINISHED = "finished"  # kind of the record that ends a run
VANISHED = 1e-10  # norm of a generator gradient that moves nothing


class Journal:
    """Reports of one run from step ``begin`` on. ``writes`` is True in one process only."""

    def __init__(
        self, config: Config, kind: Kind, folder: RunFolder, data: Any, players: Players, begin: int, writes: bool
    ):
        self.config, self.kind, self.folder, self.data, self.players = config, kind, folder, data, players
        self.begin, self.writes = begin, writes
        self.meter = Meter()
        self.logged = self.begin
        self.bar: tqdm | None = None
        self.log = Log(folder, self.begin) if writes else None

    def __enter__(self) -> "Journal":
        if self.log:
            checkpoint.remove(self.folder.best, lambda step: step > self.begin)  # these steps are done anew
            self.log.config(to_yaml(self.config))
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if self.bar is not None:
            self.bar.close()
        if self.log:
            if isinstance(error, UserError):
                self.log.say(f"Stopped: {error}", quiet=True)
            self.log.close()

    def steps(self) -> Iterator[int]:
        """The steps that are left, under a progress bar (none in a pipe)."""
        end = self.config.train.steps
        steps = count(self.begin) if end is None else range(self.begin, end)
        self._catch_up()
        self.bar = tqdm(
            steps, desc=self.config.run.name, initial=self.begin, total=end, unit="step",
            disable=None if self.writes else True,
        )  # fmt: skip
        yield from self.bar

    def _catch_up(self) -> None:
        """A process that ended right after a checkpoint did not come to that step's picture and evaluation."""
        step, end = self.begin, self.config.train.steps
        if not step or step == end:
            return
        if due(self.config.sample.every, step) and not self._picture(step).is_file():
            self.draw(step)
        if due(self.config.evaluate.every, step) and not any(
            record["kind"] == "metric" and record["step"] == step for record in records(self.folder)
        ):
            self.evaluate(step)

    def note(self, step: int, turn: Turn) -> None:
        """Take in a turn before its players move. Nothing here waits for the device."""
        self.meter.add(turn.report)
        if due(self.config.log.every, step + 1):
            for player in turn.players:
                self.meter.add_gradient_norm(player, getattr(self.players, player))

    def say(self, text: str) -> None:
        """A line for people, from one process."""
        if self.log:
            self.log.say(text)

    def tell(self, step: int, coefficient: float) -> None:
        """Curves, score distributions, λ and a line of numbers. Raises UserError for NaN or Inf."""
        values = self.meter.read(images=(step - self.logged) * self.config.train.batch_size)
        if broken := not_finite(values):
            raise UserError(
                f"{', '.join(broken)} became NaN or infinite between steps {self.logged} and {step}; no "
                "checkpoint holds it. Lower optimizer.*_lr, add penalty.r1, or try another seed."
            )
        self.logged = step
        if not self.log:
            return
        for player, optimizer in self.players.optimizers.items():
            values[f"{player}_learning_rate"] = optimizer.param_groups[0]["lr"]
        values["coefficient"] = coefficient
        values = {self._named(name): value for name, value in values.items()}
        self.log.record("train", step, values)
        self.log.scores(step, {self._named(name): scores for name, scores in self.meter.scores.items()})
        line = "  ".join(f"{short} {values[name]:.3f}" for short, name in self.kind.shown.items() if name in values)
        self.bar.set_postfix_str(line)
        speed = f"{values['images_per_second']:.0f} images/s"
        self.log.say(f"step {step}/{self.config.train.steps or '...'}  {line}  {speed}", quiet=sys.stderr.isatty())
        self._warn_of_collapse(step, values)

    def _named(self, statistic: str) -> str:
        """A statistic with the sides' names in this game: critic_accuracy_real is critic_accuracy_source."""
        for side, name in zip(("real", "fake"), self.kind.sides, strict=True):
            statistic = "_".join(name if word == side else word for word in statistic.split("_"))
        return statistic

    def draw(self, step: int) -> None:
        """The game's picture, of the average generator side."""
        if not self.log:
            return
        with self.meter.paused():
            image = self.kind.picture(self.config, self.players, self.data)
            pictures.save(image, self._picture(step))
            self.log.picture(step, self.kind.picture_name, image)

    def _picture(self, step: int) -> Path:
        return self.folder.samples / f"step-{step:08d}.png"

    def evaluate(self, step: int) -> None:
        """Metrics of the average generator side: records in metrics.jsonl and lines for people; keeps the best."""
        if not self.log:
            return
        with self.meter.paused():
            records = self.kind.evaluate(self.config, self.players, self.data, self.folder.path)
            for record, line in zip(records, evaluation.describe(records), strict=True):
                self.log.metric(step, {**record, "weights": "ema"})
                self.log.say(f"step {step}  {line}")
            if best_step(self.folder, self.best) == step:
                checkpoint.save(self.folder.best, step, self.players.networks(), self._state())
        if not records:
            self.log.say(f"step {step}  Nothing is measured: '{self.data.name}' has no labelled held-out split.")

    def save(self, step: int) -> None:
        """Commit a checkpoint. Raises UserError if it cannot be written or would hold NaN or Inf."""
        if not self.log:
            return
        with self.meter.paused():
            tensors = self.players.tensors()
            if broken := first_not_finite(tensors):
                raise UserError(
                    f"NaN or Inf in {broken} at step {step}, after step {self.logged}: this is not saved, a checkpoint "
                    "is from before. Lower optimizer.*_lr, add penalty.r1, or try another seed."
                )
            checkpoint.save(self.folder.checkpoints, step, tensors, self._state(), self.config.checkpoint.keep)
            self._prune_best()

    def _prune_best(self) -> None:
        """Former best models go once a checkpoint lies behind the present one: until then a resumed run needs them."""
        best = best_step(self.folder, self.best)
        if best in checkpoint.steps(self.folder.best):  # not so where checkpoint.best was changed on the way
            checkpoint.remove(self.folder.best, lambda step: step != best)

    def _state(self) -> dict[str, Any]:
        sizes = self.kind.sizes(self.data)
        target = None if self.data.target is None else len(self.data.target)
        counts = {"train_samples": len(self.data.train), "target_samples": target}
        return {"config": identity(self.config), **sizes, **counts}

    @property
    def best(self) -> str:
        """The metric by which the best model is chosen; "" for none."""
        chosen = self.config.checkpoint.best
        return {"auto": self.kind.best, "none": ""}.get(chosen, chosen)

    def finish(self, step: int, signal: str | None) -> None:
        """Draw and measure what came out and say where it lies, or say that a signal stopped the run."""
        if self.config.train.steps is None or step < self.config.train.steps:
            self.say(f"Stopped after step {step} by {signal or 'another process'}; the same command resumes.")
            return
        self.draw(step)
        self.evaluate(step)
        if not self.log:
            return
        self._prune_best()
        if self.config.evaluate.every:
            measured = best_metrics(self.folder)
            for metric in (name for name in self.kind.metrics if name in measured):
                best = measured[metric]
                self.log.say(f"best {metric}: {evaluation.readable(best['value'])} at step {best['step']}")
            self._tell_chosen()
        self.log.record(FINISHED, step, {})
        self.log.say(
            f"Finished at step {step}. Pictures: {self.folder.samples}/  log: {self.folder.log}  "
            f"checkpoint: {self.folder.checkpoints}/step-{step:08d}/"
        )

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
        real, fake = (values.get(f"{side}_score") for side in self.kind.sides)
        gap = 0.0 if real is None or fake is None else abs(real - fake)
        if gap > self.config.log.score_gap:
            self.log.say(
                f"step {step}  warning: the critic's scores of {' and '.join(self.kind.sides)} are {gap:.0f} apart "
                f"(log.score_gap={self.config.log.score_gap:g}): it has won. {self.kind.advice}"
            )
        if values["generator_gradient_norm"] < VANISHED:
            self.log.say(
                f"step {step}  warning: the generator's gradient has vanished (norm "
                f"{values['generator_gradient_norm']:.1e}). Try game.objective=non_saturating or penalty.r1."
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
