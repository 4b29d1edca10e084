"""Train a recipe: ``python train.py configs/ring.yaml update.rule=alternating``. The same command again resumes.

``loop`` is the algorithm and ``train`` what it is built from; the rest lies where the folder names say.
"""

import argparse
import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from adversarial.accumulation import accumulated
from adversarial.games import Game
from adversarial.objectives import OBJECTIVES, Auxiliary, Objective
from adversarial.passes import Strengths, Turn
from adversarial.rules import RULES
from utils import errors
from utils.config import loading as config
from utils.config.loading import Config
from utils.errors import UserError
from utils.run.folder import RunFolder
from utils.run.journal import Journal, NotFiniteError, due, is_finished
from utils.run.log import say
from utils.run.signals import STOPPED, StopSignals
from utils.tasks.registry import check_sizes, task_of
from utils.training import average as ema
from utils.training import checkpoint, players, processes
from utils.training import values as course
from utils.training.batches import Round, rounds
from utils.training.checkpoint import Checkpoint
from utils.training.players import Players
from utils.training.processes import ProcessGroup, seed_layers


def loop(
    cfg: Config, game: Game, team: Players, feed: Iterator[list[Round]], journal: Journal, stop: StopSignals
) -> int:
    """The training loop. Returns the number of steps done when it ends or a signal stops it."""
    for step in journal.steps():
        batches, strengths = next(feed), course.strengths_at(cfg, team.penalties, step)
        seed_layers(cfg, step)
        team.adapt(course.learning_rates_at(cfg, step), course.betas_at(cfg, step))

        if step not in journal.skipped:
            for turn in turns(cfg, game, batches, strengths):
                journal.note(step, turn)
                for player in turn.players:
                    team.optimizers[player].step()
                    team.optimizers[player].zero_grad()
                team.update_state(step, turn)
            ema.update(team.average, team.generator, course.ema_decay_at(cfg, step))

        done, last, stopped = step + 1, step + 1 == cfg.train.steps, stop.received()
        if due(cfg.log.every, done):
            journal.tell(done, strengths.coefficient)
        if due(cfg.checkpoint.every, done) or stopped or last:
            journal.save(done)
        if stopped or last:  # the end is drawn and evaluated by finish
            return done
        if not journal.show(done):
            journal.save(done)
            return done
    return journal.begin  # no step was left to do, or none was begun


def turns(cfg: Config, game: Game, batches: list[Round], strengths: Strengths) -> Iterator[Turn]:
    """One step as the config's update rule plays it."""
    rule = RULES[cfg.update.rule]
    if cfg.update.reuse_fakes:
        rule = partial(rule, reuse_fakes=True)
    return accumulated(rule, game, objective_of(cfg), batches, strengths, cfg.train.accumulate)


def objective_of(cfg: Config) -> Objective | Auxiliary:
    """What the players minimise."""
    objective = OBJECTIVES[cfg.game.objective]
    return Auxiliary(objective, cfg.game.auxiliary) if cfg.game.auxiliary else objective


def train(cfg: Config) -> int:
    """Run or resume a recipe. Returns the exit code: 0 when it is finished, 75 when a signal stopped it."""
    task = task_of(cfg)
    accelerator = processes.start(cfg)
    folder, first = RunFolder.of(cfg), accelerator.is_main_process
    tell = partial(say, folder) if first else lambda text: None
    with folder.locked() if first else contextlib.nullcontext(), StopSignals(ProcessGroup(accelerator)) as stop:
        saved, begin = agreed_checkpoint(cfg, folder, stop.group, tell)
        if is_finished(folder, begin, cfg.train.steps):
            tell(farewell(cfg, folder, begin))
            return 0
        with stop.group.first_alone():  # where a download is asked for, one process does it
            data = task.load(cfg)
        generator, critic = task.networks(cfg, task.sizes(data))
        if saved is None:
            with stop.group.first_alone():  # where weights are fetched
                task.start(cfg, generator)
        team = players.build(cfg, generator, critic, accelerator.device)
        game = task.game(cfg, team, data, accelerator)
        if first:
            folder.record(cfg)
        tell(f"Begins: {processes.described(cfg, accelerator)}.")
        feed_from = partial(feed_of, cfg, data, accelerator)
        if accelerator.num_processes > 1:
            warm_up(cfg, game, team, next(feed_from(0)))
        skipped = frozenset(saved.state["skipped"]) if saved else frozenset()
        while True:
            if saved is not None:
                check_sizes(cfg, saved.state, data)
                check_data(saved, data)
                team.restore(saved)
                tell(f"Resumed from {saved.path}.")
            try:
                with Journal(cfg, task, folder, data, team, begin, first, stop, skipped) as journal:
                    if begin == 0 and cfg.guard.rollbacks:
                        journal.save(0)
                    finished = journal.finish(loop(cfg, game, team, feed_from(begin), journal, stop))
                break
            except NotFiniteError as broken:
                if len(skipped) >= cfg.guard.rollbacks:
                    raise
                skipped |= {broken.step}
                saved, begin = agreed_checkpoint(cfg, folder, stop.group, tell)
                tell(f"Rolling back to step {begin}, to leave out step {broken.step + 1}: {broken}")
        # All together, and when all is written: where one process has ended, launchers soon kill the others.
        finished = not stop.group.any(not finished)
    accelerator.end_training()
    return 0 if finished else STOPPED


def feed_of(cfg: Config, data: Any, accelerator: Accelerator, begin: int) -> Iterator[list[Round]]:
    """This process's share of the batches of step ``begin`` and all that follow."""
    return rounds(cfg, data.train, begin, processes.own_rows(cfg, accelerator), accelerator.device, data.target)


def warm_up(cfg: Config, game: Game, team: Players, batches: list[Round]) -> None:
    """Play a step in which nobody moves, where several processes play.

    DistributedDataParallel arranges its buckets anew after its first backward pass, and with them the order in which
    three or more processes add up a gradient. Without this the first step after a resumption would differ in its last
    bits from the same step of a run that went on.
    """
    before = checkpoint.snapshot(team.networks())
    for turn in turns(cfg, game, batches, course.strengths_at(cfg, team.penalties, 0)):
        for player in turn.players:
            team.optimizers[player].zero_grad()
    team.load_tensors(before)


def agreed_checkpoint(
    cfg: Config, folder: RunFolder, group: ProcessGroup, tell: Callable[[str], None]
) -> tuple[Checkpoint | None, int]:
    """The newest good checkpoint, None for none, and the step to go on from: the same in all processes.

    Raises UserError, in all of them, unless all were given the same config and see the same checkpoint.
    """
    group.any(False)  # one of them may still be writing
    saved = checkpoint.newest(folder.checkpoints, warn=tell)
    if not group.same(repr(sorted(config.identity(cfg).items()))):
        raise UserError("The processes were started with different configs; give the same command on every node.")
    name = "none" if saved is None else saved.path.name
    if not group.same(name):
        raise UserError(
            f"The processes see different newest checkpoints in {folder.path} (this one: {name}); put run.dir on a "
            "file system that all nodes share."
        )
    return saved, resumable_step(cfg, saved)


def resumable_step(cfg: Config, saved: Checkpoint | None) -> int:
    """The step to go on from. Raises UserError if the checkpoint is of a run with another config."""
    if saved is None:
        return 0
    if different := config.differences(saved.state["config"], config.identity(cfg)):
        raise UserError(
            f"{saved.path} is of a run with another config ({'; '.join(different)}); choose another run.name, such as "
            f"run.name={cfg.run.name}-{cfg.update.rule}."
        )
    return saved.state["step"]


def check_data(saved: Checkpoint, data: Any) -> None:
    """Raise UserError if the data set has changed since: the order of samples would be another."""
    for name, samples in (("train_samples", data.train), ("target_samples", data.target)):
        before, now = saved.state[name], None if samples is None else len(samples)
        if before != now:
            raise UserError(
                f"{saved.path} was trained on {before} samples and data set '{data.name}' now has {now} ({name}): "
                "restore the data, or choose another run.name."
            )


def farewell(cfg: Config, folder: RunFolder, step: int) -> str:
    """What a finished run says when it is started again."""
    text = (
        f"{folder.path} is finished: {step} steps are done. To continue it, raise train.steps, such as "
        f"train.steps={2 * step}; to start over, choose another run.name."
    )
    schedules = set(config.schedules(cfg).values()) - {"constant"}
    return text + (f" ({', '.join(sorted(schedules))} will stretch over the new number.)" if schedules else "")


def main(arguments: list[str]) -> int:
    """Parse ``[recipe.yaml] [key=value ...] [--print-config]`` and train."""
    parser = argparse.ArgumentParser(
        description="Train a recipe; the same command again resumes.",
        epilog="Every key and its meaning: python train.py --print-config",
    )
    parser.add_argument("words", nargs="*", metavar="recipe.yaml | key=value", help="default: configs/digits.yaml")
    parser.add_argument("--print-config", action="store_true", help="show the resolved config and exit")
    options = parser.parse_intermixed_args(arguments)
    recipes = [word for word in options.words if not config.is_override(word)]
    if len(recipes) > 1:
        raise UserError(f"One recipe at a time: {' and '.join(recipes)} were given.")
    recipe = Path(recipes[0]) if recipes else config.DEFAULT_RECIPE
    cfg = config.load(recipe, [word for word in options.words if config.is_override(word)])
    task_of(cfg)
    if options.print_config:
        print(config.to_yaml(cfg), end="")
        return 0
    return train(cfg)


if __name__ == "__main__":
    errors.run(main)
