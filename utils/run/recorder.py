"""Statistics of the training: taken in every turn, written down and watched at the log interval."""

import contextlib
import sys
import time
from collections import deque
from collections.abc import Iterator
from itertools import count

from tqdm import tqdm

from adversarial.passes import Turn
from utils.config.sections import Config
from utils.errors import NotFiniteError
from utils.run.log import Log, records
from utils.run.meter import Meter, gradient_norms
from utils.run.stopwatch import Item
from utils.run.vital_signs import VitalSigns
from utils.tasks.registry import Task
from utils.training import values
from utils.training.players import Players, first_not_finite
from utils.training.processes import ProcessGroup


def not_finite(names: str, step: int) -> NotFiniteError:
    """The error that ``names`` are not finite since step index ``step``."""
    return NotFiniteError(
        f"{names} became NaN or infinite in step {step + 1}; no checkpoint holds it. Lower optimizer.*_lr, add "
        "penalty.r1, or try another seed; guard.rollbacks=3 goes back to the last checkpoint and leaves such a step "
        "out, up to three times.",
        step,
    )


def spent(log: Log | None, step: int) -> tuple[float, float]:
    """The seconds and CPU seconds of training until ``step``, from which a run goes on, as its records have them.

    The steps between the last line and the checkpoint count as much as the average step.
    """
    lines = [record for record in records(log.folder) if "cpu_seconds" in record] if log and step else []
    if not lines:
        return 0.0, 0.0
    share = step / lines[-1]["step"]
    return share * lines[-1]["seconds"], share * lines[-1]["cpu_seconds"]


class Recorder:
    """Records a run from step ``begin`` on. ``log`` is None in processes that write nothing."""

    def __init__(
        self, config: Config, task: Task, players: Players, log: Log | None, group: ProcessGroup, begin: int
    ) -> None:
        self.config, self.task, self.players, self.log, self.begin = config, task, players, log, begin
        self.group, self.meter = group, Meter(group, *spent(log, begin))
        self.signs = VitalSigns(players)
        self.written = self.done = begin  # the step of the last line, and the last step that was taken in
        self.bar: tqdm | None = None
        self.started = time.perf_counter()
        self.recent: deque[dict[str, float]] = deque(maxlen=config.guard.patience)  # values of the last lines
        if log:
            self.recent.extend(record for record in records(log.folder) if record["kind"] == "train")

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *exception: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def steps(self) -> Iterator[int]:
        """The indices of the steps to do, under a progress bar (none in a pipe)."""
        end = self.config.train.steps
        self.bar = tqdm(
            count(self.begin) if end is None else range(self.begin, end), desc=self.config.run.name,
            initial=self.begin, total=end, unit="step", disable=None if self.log else True,
            smoothing=0,  # a mean since the start: after an evaluation the last steps alone would promise hours
        )  # fmt: skip
        self.started = time.perf_counter()
        yield from self.bar

    def add(self, step: int, turn: Turn) -> None:
        """Take in a turn of step index ``step`` before its players move. Nothing here waits for the device."""
        norms = {f"{player}_gradient_norm": gradient_norms(self.players.optimizers[player]) for player in turn.players}
        self.meter.add(step, turn.report, norms)
        self.done = step + 1
        if self.log and self.done % self.config.log.every == 0:
            self.signs.see(turn)

    def timed(self, items: Iterator[Item], what: str) -> Iterator[Item]:
        """The same items; the log says which share of the time was spent on making them, as ``what``."""
        return self.meter.stopwatch.timed(items, what)

    def paused(self) -> contextlib.AbstractContextManager[None]:
        """A block that does not count as training time."""
        return self.meter.paused()

    def check_finite(self) -> None:
        """Raise NotFiniteError, in all processes, if in one of them something has been or is NaN or infinite.

        That is a statistic of the steps since the last line, or a tensor that a checkpoint would hold. Waits for the
        device.
        """
        self._check_statistics()
        broken = first_not_finite(self.players.tensors())  # finite gradients may still give infinite weights
        if self.group.any(broken is not None):
            raise not_finite(broken or "a tensor of another process", self.done - 1)

    def _check_statistics(self) -> None:
        broken = self.meter.first_not_finite()
        if broken:
            first = min(broken.values())
            raise not_finite(", ".join(name for name, step in broken.items() if step == first), first)

    def write(self, step: int) -> None:
        """Write means since the last call: a line, curves, distributions of scores, and warnings of a lost game.

        Raises NotFiniteError. Waits for the device.
        """
        self._check_statistics()
        found = self.meter.read(images=(step - self.written) * self.config.train.batch_size)
        self.written = step
        if not self.log:
            return
        for player, lr in values.learning_rates_at(self.config, step - 1).items():
            found[f"{player}_learning_rate"] = lr
        found["coefficient"] = values.coefficient_at(self.config, step - 1)
        found |= self.signs.read()
        if {"real_score", "fake_score"} <= found.keys():
            found["score_margin"] = found["real_score"] - found["fake_score"]
        found = {self._named(name): value for name, value in found.items()}
        self.log.record("train", step, found)
        self.log.scores(step, {self._named(name): scores for name, scores in self.meter.scores.items()})
        self._write_line(step, found)
        self.recent.append(found)
        self._warn_if_the_critic_dominates(step)
        self._warn_if_the_gradient_vanishes(step)
        with self.paused():  # the network may be slow
            self.log.send()

    def _named(self, statistic: str) -> str:
        """A statistic with the sides' names in this game: critic_accuracy_real is critic_accuracy_source."""
        for side, name in zip(("real", "fake"), self.task.side_names, strict=True):
            statistic = "_".join(name if word == side else word for word in statistic.split("_"))
        return statistic

    def _write_line(self, step: int, found: dict[str, float]) -> None:
        """A line for people; on a terminal the progress bar shows it instead, with its own times."""
        numbers = "  ".join(
            f"{short} {found[name]:.3f}" for short, name in self.task.progress_statistics.items() if name in found
        )
        memory = f"{found['peak_memory_mib']} MiB"
        self.bar.set_postfix_str(f"{numbers}  {memory}")
        speed = found["images_per_second"]
        time_of_step = 1000 * self.config.train.batch_size / speed if speed else 0.0
        costs = f"{speed:.0f} samples/s  {time_of_step:.1f} ms/step  {memory}  {self._time_left(step)}"
        self.log.say(f"step {step}/{self.config.train.steps or '...'}  {numbers}  {costs}", quiet=sys.stderr.isatty())

    def _time_left(self, step: int) -> str:
        """How long the remaining steps take if they, and the pauses between them, are as those since the start."""
        if self.config.train.steps is None:
            return "no end"
        seconds = (time.perf_counter() - self.started) / (step - self.begin) * (self.config.train.steps - step)
        return f"{tqdm.format_interval(seconds)} left"

    def _warn_if_the_critic_dominates(self, step: int) -> None:
        """Where its mean scores of both sides have been far apart in each of the last lines."""
        guard, (real, fake) = self.config.guard, self.task.side_names
        gaps = [abs(line.get(f"{real}_score", 0.0) - line.get(f"{fake}_score", 0.0)) for line in self.recent]
        scored = f"{fake}_score" in self.recent[-1]
        if scored and len(gaps) == guard.patience and min(gaps) > guard.score_gap:
            self.log.say(
                f"step {step}  warning: the critic's scores of {real} and {fake} are {gaps[-1]:.0f} apart, over "
                f"guard.score_gap={guard.score_gap:g} in each of the last {guard.patience} log lines: it has won. "
                f"{self.task.critic_dominates_hint}"
            )

    def _warn_if_the_gradient_vanishes(self, step: int) -> None:
        norm, least = self.recent[-1].get("generator_gradient_norm"), self.config.guard.vanished
        if norm is not None and norm < least:
            self.log.say(
                f"step {step}  warning: the generator's gradient has vanished (norm {norm:.1e}, under "
                f"guard.vanished={least:g}). Try game.objective=non_saturating or penalty.r1."
            )
