"""Train a recipe: ``python train.py configs/ring.yaml update.rule=alternating``. The same command again resumes.

``loop`` is the algorithm and ``train`` what it is built from; the rest lies where the folder names say.
"""

import argparse
import contextlib
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from adversarial.games import Game
from adversarial.objectives import OBJECTIVES, Auxiliary, Objective
from adversarial.updates import RULES, Turn, Weights, accumulated
from utils import errors
from utils.config import loading, recipes
from utils.config.identity import check_same_run, identity
from utils.config.sections import Config, schedules
from utils.config.text import to_yaml
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
from utils.training.memory import remember
from utils.training.players import Players
from utils.training.processes import ProcessGroup, seed_layers


def loop(
    cfg: Config, game: Game, team: Players, feed: Iterator[list[Round]], journal: Journal, stop: StopSignals
) -> int:
    """The training loop. Returns the number of steps done when it ends or a signal stops it."""
    for step in journal.steps():
        batches, weights = next(feed), course.weights_at(cfg, step)
        seed_layers(cfg, step)
        team.adapt(course.learning_rates_at(cfg, step), course.betas_at(cfg, step))

        if step not in journal.skipped:
            for turn in turns(cfg, game, batches, weights):
                journal.note(step, turn)
                for player in turn.players:
                    team.optimizers[player].step()
                    team.optimizers[player].zero_grad()
                remember(cfg, team.memory, step, turn)
            ema.update(team.average, team.generator, course.ema_decay_at(cfg, step))

        done, last, stopped = step + 1, step + 1 == cfg.train.steps, stop.received()
        if due(cfg.log.every, done):
            journal.tell(done, weights.coefficient)
        if due(cfg.checkpoint.every, done) or stopped or last:
            journal.save(done)
        if stopped or last:  # the end is drawn and evaluated by finish
            return done
        if not journal.show(done):
            journal.save(done)
            return done
    return journal.begin  # no step was left to do, or none was begun


def turns(cfg: Config, game: Game, batches: list[Round], weights: Weights) -> Iterator[Turn]:
    """One step as the config's update rule plays it."""
    rule = RULES[cfg.update.rule]
    if cfg.update.reuse_fakes:
        rule = partial(rule, reuse_fakes=True)
    return accumulated(rule, game, objective_of(cfg), batches, weights, cfg.train.accumulate)


def objective_of(cfg: Config) -> Objective | Auxiliary:
    """What the players minimise."""
    objective = OBJECTIVES[cfg.game.objective]
    names_class = cfg.game.name == "generation" and cfg.game.auxiliary
    return Auxiliary(objective, cfg.game.auxiliary) if names_class else objective


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
    for turn in turns(cfg, game, batches, course.weights_at(cfg, 0)):
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
    if not group.same(repr(sorted(identity(cfg).items()))):
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
    check_same_run(saved.state["config"], cfg, saved.path)
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
    stretching = set(schedules(cfg).values()) - {"constant"}
    return text + (f" ({', '.join(sorted(stretching))} will stretch over the new number.)" if stretching else "")


def main(arguments: list[str]) -> int:
    """Parse ``[recipe.yaml] [key=value ...] [--print-config | --list]`` and train."""
    parser = argparse.ArgumentParser(
        description="Train a recipe; the same command again resumes.",
        epilog="Every key and its meaning: python train.py --print-config",
    )
    parser.add_argument("words", nargs="*", metavar="recipe.yaml | key=value", help="default: configs/digits.yaml")
    parser.add_argument("--print-config", action="store_true", help="show the resolved config and exit")
    parser.add_argument("--list", action="store_true", help="show the recipes of configs/ and exit")
    options = parser.parse_intermixed_args(arguments)
    if options.list:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        print(recipes.table(loading.DEFAULT_RECIPE.parent, width))
        return 0
    files = [word for word in options.words if not loading.is_override(word)]
    if len(files) > 1:
        raise UserError(f"One recipe at a time: {' and '.join(files)} were given.")
    recipe = Path(files[0]) if files else loading.DEFAULT_RECIPE
    cfg = loading.load(recipe, [word for word in options.words if loading.is_override(word)])
    if options.print_config:
        print(to_yaml(cfg), end="")
        return 0
    return train(cfg)


if __name__ == "__main__":
    errors.run(main)
