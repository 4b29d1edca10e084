"""What happens every so often in a run: logs, pictures, evaluations, checkpoints."""

import sys
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm

from adversarial.updates import Turn
from utils import checkpoint, evaluation, pictures
from utils.config import Config, identity, to_yaml
from utils.datasets import DataSet
from utils.errors import UserError
from utils.logs import Log, Meter, not_finite, records
from utils.players import Players, first_not_finite
from utils.run import RunFolder
from utils.sampling import every_class, latents, sample

POINTS = 2500  # points in a scatter plot
FINISHED = "finished"  # kind of the record that ends a run
VANISHED = 1e-10  # norm of a generator gradient that moves nothing


class Journal:
    """Reports of one run from step ``begin`` on. ``writes`` is True in one process only."""

    def __init__(self, config: Config, folder: RunFolder, data: DataSet, players: Players, begin: int, writes: bool):
        self.config, self.folder, self.data, self.players = config, folder, data, players
        self.begin, self.writes = begin, writes
        self.meter = Meter()
        self.logged = self.begin
        self.bar: tqdm | None = None
        self.log = Log(folder, self.begin) if writes else None

    def __enter__(self) -> "Journal":
        if self.log:
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
        steps = range(self.begin, self.config.train.steps)
        self.bar = tqdm(
            steps, desc=self.config.run.name, initial=self.begin, total=self.config.train.steps, unit="step",
            disable=None if self.writes else True,
        )  # fmt: skip
        yield from self.bar

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

    def tell(self, step: int) -> None:
        """Curves, score distributions and a line of numbers. Raises UserError for NaN or Inf."""
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
        self.log.record("train", step, values)
        self.log.scores(step, self.meter.scores["real_score"], self.meter.scores["fake_score"])
        shown = {"D": "critic_loss", "G": "generator_loss", "real": "real_score", "fake": "fake_score"}
        line = "  ".join(f"{short} {values[name]:.3f}" for short, name in shown.items())
        self.bar.set_postfix_str(line)
        speed = f"{values['images_per_second']:.0f} images/s"
        self.log.say(f"step {step}/{self.config.train.steps}  {line}  {speed}", quiet=sys.stderr.isatty())
        self._warn_of_collapse(step, values)

    def draw(self, step: int) -> None:
        """A picture of the average generator's samples, from the same latents at every step."""
        if not self.log:
            return
        with self.meter.paused():
            count = self.config.sample.count if len(self.data.shape) == 3 else POINTS
            z = latents(count, self.config.model.latent_dim, self.config.seed)
            label = every_class(count, self.data.classes if self.config.game.conditional else 0)
            samples = sample(self.players.average, z, label)
            image = pictures.picture(samples, columns=round(count**0.5), modes=self.data.modes)
            pictures.save(image, self.folder.samples / f"step-{step:08d}.png")
            self.log.picture(step, image)

    def evaluate(self, step: int) -> None:
        """Metrics of the average generator: records in metrics.jsonl and lines for people."""
        if not self.log:
            return
        with self.meter.paused():
            records = evaluation.evaluate(
                self.players.average, self.data, self.config.game.conditional, self.config.model.latent_dim,
                self.config.evaluate.samples, self.config.seed, self.folder.path,
            )  # fmt: skip
            for record, line in zip(records, evaluation.describe(records), strict=True):
                self.log.metric(step, {**record, "weights": "ema"})
                self.log.say(f"step {step}  {line}")
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
            data = {"shape": self.data.shape, "classes": self.data.classes, "train_samples": len(self.data.train)}
            state = {"config": identity(self.config), **data}
            checkpoint.save(self.folder.checkpoints, step, tensors, state, self.config.checkpoint.keep)

    def finish(self, step: int, signal: str | None) -> None:
        """Draw and measure what came out and say where it lies, or say that a signal stopped the run."""
        if step < self.config.train.steps:
            self.say(f"Stopped after step {step} by {signal or 'another process'}; the same command resumes.")
            return
        self.draw(step)
        self.evaluate(step)
        if not self.log:
            return
        if self.config.evaluate.every:
            for metric, best in best_metrics(self.folder).items():
                self.log.say(f"best {metric}: {evaluation.readable(best['value'])} at step {best['step']}")
        self.log.record(FINISHED, step, {})
        self.log.say(
            f"Finished at step {step}. Pictures: {self.folder.samples}/  log: {self.folder.log}  "
            f"checkpoint: {self.folder.checkpoints}/step-{step:08d}/"
        )

    def _warn_of_collapse(self, step: int, values: dict[str, float]) -> None:
        gap = abs(values["real_score"] - values["fake_score"])
        if gap > self.config.log.score_gap:
            self.log.say(
                f"step {step}  warning: the critic's scores of real and fake are {gap:.0f} apart (log.score_gap="
                f"{self.config.log.score_gap:g}): it has won. Try penalty.r1, a lower optimizer.critic_lr, or "
                "model.critic_norm=spectral."
            )
        if values["generator_gradient_norm"] < VANISHED:
            self.log.say(
                f"step {step}  warning: the generator's gradient has vanished (norm "
                f"{values['generator_gradient_norm']:.1e}). Try game.objective=non_saturating or penalty.r1."
            )


def best_metrics(folder: RunFolder) -> dict[str, dict[str, Any]]:
    """The best record of every metric so far."""
    best: dict[str, dict[str, Any]] = {}
    for record in records(folder):
        if record["kind"] == "metric" and record["value"] is not None:
            former, sign = best.get(record["metric"]), 1 if record["higher_is_better"] else -1
            if former is None or sign * record["value"] > sign * former["value"]:
                best[record["metric"]] = record
    return best


def is_finished(folder: RunFolder, step: int, steps: int) -> bool:
    """Whether a run that stands at ``step`` has all its ``steps`` and its last evaluation behind it."""
    return step >= steps and any(record["kind"] == FINISHED for record in records(folder) if record["step"] == step)


def due(every: int, step: int) -> bool:
    """Whether something that happens every so many steps happens after ``step`` steps; 0 is never."""
    return every > 0 and step % every == 0
