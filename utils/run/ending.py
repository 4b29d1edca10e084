"""The end of a run: what is done there, what is said, and how it is told later that it was reached."""

from typing import Any

from utils.config.sections import Config, schedules
from utils.evaluation.records import readable
from utils.run.evaluator import Evaluator
from utils.run.folder import RunFolder
from utils.run.log import records
from utils.run.saver import Saver
from utils.run.signals import StopSignals
from utils.training import checkpoint
from utils.training.state import BestRecord

FINISHED = "finished"  # kind of the record that ends a run


def finish(config: Config, step: int, saver: Saver, evaluator: Evaluator, stop: StopSignals) -> bool:
    """Draw and evaluate after the last step, and say what came out, or that a signal stopped the run after ``step``.

    Returns whether the run is finished.
    """
    log = evaluator.log
    saver.finish()
    if config.train.steps is None or step < config.train.steps:
        if log:
            log.say(f"Stopped after step {step} by {stop.name or 'another process'}; the same command resumes.")
        return False
    if not evaluator.end(step):
        if log:
            who = stop.name or "another process"
            log.say(f"Stopped before the last evaluation by {who}; the same command redoes it.")
        return False
    saver.finish()
    if log:
        if config.evaluate.every:
            for line in summary(log.folder, evaluator.task.metrics, saver.best):
                log.say(line)
        log.record(FINISHED, step, {})
        log.say(
            f"Finished at step {step}. Pictures: {log.folder.samples}/  log: {log.folder.log}  "
            f"checkpoint: {log.folder.checkpoints}/step-{step:08d}/"
        )
    return True


def is_finished(folder: RunFolder, step: int, steps: int | None) -> bool:
    """Whether a run whose newest checkpoint is of ``step`` has done all its ``steps`` and its last evaluation."""
    if steps is None or step < steps:
        return False
    return any(record["kind"] == FINISHED for record in records(folder) if record["step"] == step)


def farewell(config: Config, folder: RunFolder, step: int) -> str:
    """What a finished run says when it is started again."""
    text = (
        f"{folder.path} is finished: {step} steps are done. To continue it, raise train.steps, such as "
        f"train.steps={2 * step}; to start over, choose another run.name."
    )
    stretched = set(schedules(config).values()) - {"constant"}
    return text + (f" ({', '.join(sorted(stretched))} will stretch over the new number.)" if stretched else "")


def summary(folder: RunFolder, metrics: tuple[str, ...], chosen: BestRecord | None) -> list[str]:
    """The best and the last value of each of the ``metrics``; and, of games of domains, the ``chosen`` model beside the
    last and the oracle's choice.
    """
    measured = [record for record in records(folder) if record["kind"] == "metric"]
    best, last = best_records(measured), {record["metric"]: record for record in measured}
    known = [metric for metric in metrics if metric in best]
    ended_best = [metric for metric in known if best[metric].step == last[metric]["step"]]
    lines = [
        f"best {metric}: {readable(best[metric].value)} at step {best[metric].step}; last: "
        f"{readable(last[metric]['value'])} at step {last[metric]['step']}"
        for metric in known
        if metric not in ended_best
    ]
    if ended_best:
        lines.append(f"best at the last step: {', '.join(ended_best)}")
    oracle = {record["step"]: record["value"] for record in measured if record.get("oracle")}
    if chosen and chosen.step in oracle and chosen.step in checkpoint.steps(folder.best):
        top = max(oracle, key=oracle.get)
        lines.append(
            f"Chosen by {chosen.metric}: step {chosen.step}, which an oracle finds to be right on "
            f"{oracle[chosen.step]:.2f} % of the target; the last step on {oracle[max(oracle)]:.2f} %; the oracle's "
            f"own choice, step {top}, on {oracle[top]:.2f} %."
        )
    return lines


def best_records(measured: list[dict[str, Any]]) -> dict[str, BestRecord]:
    """The best of all records of every metric, the latest among equals; values that are not finite do not count."""
    best: dict[str, BestRecord] = {}
    for record in measured:
        found = BestRecord.of(record["step"], record)
        if found and found.beats(best.get(found.metric)):
            best[found.metric] = found
    return best
