"""Train a recipe: ``python train.py configs/ring.yaml update.rule=alternating``. The same command again resumes.

``loop`` and ``train_step`` are the algorithm; ``train`` and ``attempt`` build what they need.
"""

import os
import signal

if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports, which take seconds, shows no trace
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # a broken connection is a sentence, without stack traces

import argparse
import contextlib
import shutil
import sys
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any

from accelerate import Accelerator

from adversarial.accumulation import accumulated
from adversarial.games import Game
from adversarial.objectives import OBJECTIVES, Auxiliary, Objective
from adversarial.passes import Strengths, Turn
from adversarial.penalties import CRITIC, clip_weights
from adversarial.rules import RULES
from utils import errors, pictures
from utils.config import loading, recipes
from utils.config.identity import identity
from utils.config.reading import is_override
from utils.config.sections import Config
from utils.config.text import to_yaml
from utils.errors import NotFiniteError, UserError
from utils.paths import path_of
from utils.run import rehearsal, warm
from utils.run.beginning import agreed_checkpoint, agreed_digest, check_data, check_records
from utils.run.ending import farewell, finish, is_finished
from utils.run.evaluator import Evaluator, due
from utils.run.folder import RunFolder
from utils.run.log import Log, say
from utils.run.meter import peak_memory
from utils.run.recorder import Recorder
from utils.run.saver import Saver, best_metric
from utils.run.signals import STOPPED, StopSignals
from utils.run.sources import agreed_source
from utils.run.stopwatch import DATA, NETWORKS
from utils.run.trackers import Trackers
from utils.run.watch import watched
from utils.tasks.registry import Task, check_sizes, task_of
from utils.training import checkpoint, processes, values
from utils.training.batches import Round, rounds
from utils.training.players import Players
from utils.training.processes import ProcessGroup, seed_layers
from utils.training.state import RunState


def loop(
    cfg: Config, game: Game, players: Players, feed: Iterator[list[Round]],
    recorder: Recorder, saver: Saver, evaluator: Evaluator, stop: StopSignals, skipped: Collection[int] = (),
) -> int:  # fmt: skip
    """The training loop, which leaves out the steps of indices ``skipped``.

    Returns the number of steps done when it ends or a signal stops it.
    """
    feed = recorder.timed(feed, DATA)
    for step in recorder.steps():
        batches = next(feed)
        if step not in skipped:
            train_step(cfg, game, players, batches, recorder, step)

        done, last, stopped = step + 1, step + 1 == cfg.train.steps, stop.received()
        if due(cfg.log.every, done):
            recorder.write(done)
        with recorder.paused():  # saving and showing do not count as training time
            saves = due(cfg.checkpoint.every, done) or stopped or last
            if saves or any(due(every, done) for every in (cfg.sample.every, cfg.evaluate.every, cfg.explain.every)):
                recorder.check_finite()
            if saves:
                saver.save(done)
            saver.check()
            if stopped or last:  # the end is drawn and evaluated by finish
                return done
            if not evaluator.show(done):
                saver.save(done)
                return done
    return recorder.begin  # no step was left to do


def train_step(cfg: Config, game: Game, players: Players, batches: list[Round], recorder: Recorder, step: int) -> None:
    """One step of both players and of the generator's average. Nothing here waits for the device."""
    strengths = values.strengths_at(cfg, players.penalties, step)
    seed_layers(cfg, step, recorder.group)
    players.adapt(values.learning_rates_at(cfg, step), values.betas_at(cfg, step))
    passes = recorder.timed(turns(cfg, game, batches, strengths), NETWORKS)
    for turn in players.lookahead.around(passes, len(batches) - 1, values.lookaheads_at(cfg, step)):
        recorder.add(step, turn)
        for player in turn.players:
            players.optimizers[player].step()
            players.optimizers[player].zero_grad()
        if CRITIC in turn.players:
            clip_weights(players.critic, cfg.penalty.clip)
        players.update_state(step, turn)
    players.update_average(values.ema_decay_at(cfg, step))


def turns(cfg: Config, game: Game, batches: list[Round], strengths: Strengths) -> Iterator[Turn]:
    """One step as the config's update rule plays it; each turn yields with the gradients of its players in place."""
    rule = RULES[cfg.update.rule]
    if cfg.update.reuse_fakes:
        rule = partial(rule, reuse_fakes=True)
    if cfg.train.accumulate == 1:
        return rule(game, objective_of(cfg), batches, strengths)
    return accumulated(rule, game, objective_of(cfg), batches, strengths, cfg.train.accumulate)


def objective_of(cfg: Config) -> Objective | Auxiliary:
    """What the players minimise."""
    objective = OBJECTIVES[cfg.game.objective]
    weight = getattr(cfg.game, "auxiliary", 0)  # games of domains have no such key
    return Auxiliary(objective, weight) if weight else objective


def train(cfg: Config) -> int:
    """Run or resume a recipe. Returns the exit code: 0 when it is finished, 75 when a signal stopped it."""
    task = task_of(cfg)
    accelerator = processes.start(cfg)
    group = ProcessGroup(accelerator)
    folder, first = RunFolder.of(cfg), accelerator.is_main_process
    tell = partial(say, folder) if first else lambda text, quiet=False: None
    with (
        folder.locked() if first else contextlib.nullcontext(),
        noted(tell),
        watched(folder, group, cfg.run.timeout),
        StopSignals(group) as stop,
    ):
        saved = agreed_checkpoint(cfg, folder, stop.group, tell)
        if saved and stop.group.any(is_finished(folder, saved.state.step, cfg.train.steps)):
            tell(farewell(cfg, folder, saved.state.step))
            return 0
        with stop.group.first_alone():  # where a download is asked for, one process does it
            data = task.load(cfg)
        for note in data.notes:
            tell(note)
        digest = agreed_digest(data, stop.group)
        with stop.group.first_alone():  # where a feature network is fetched
            task.check_evaluation(cfg, data, folder.features, accelerator.device)
        generator, critic = task.networks(cfg, task.sizes(data))
        source = agreed_source(cfg, folder, stop.group, tell) if cfg.init.run and saved is None else None
        if saved is None and not (source and "generator" in cfg.init.parts):
            with stop.group.first_alone():  # where weights are fetched
                task.start(cfg, generator)
        players = Players.build(cfg, generator, critic, accelerator.device)
        history = saved.state.history if saved else ()
        if source:
            saved, told = warm.begin(cfg, task, players, source)
            history = (*source.state.history, *told)
            for line in told:
                tell(line)
        game = task.game(cfg, players, data, accelerator)
        if first:
            folder.record(cfg, history)
        tell(f"Begins: {processes.described(cfg, accelerator)}.")
        if accelerator.num_processes > 1:
            warm_up(cfg, game, players, next(feed_of(cfg, data, accelerator, 0)))

        skipped = saved.state.skipped if saved else ()
        while True:
            if saved:
                check_sizes(cfg, saved.state.sizes, data)
                check_data(saved, data, digest)
                players.restore(saved)
                tell(f"Resumed from {saved.path}.")
                if first:
                    check_records(saved, folder, tell)
            state = state_of(cfg, task, data, digest, saved.state.step if saved else 0, skipped, history)
            try:
                finished = attempt(cfg, task, data, players, game, accelerator, folder, state, stop)
                break
            except NotFiniteError as error:
                if len(skipped) >= cfg.guard.rollbacks:
                    raise
                skipped = tuple(sorted({*skipped, error.step}))
                # Where an evaluation found it, a checkpoint has been saved that holds the step.
                if first and checkpoint.steps(folder.checkpoints)[0] <= error.step:
                    checkpoint.remove(folder.checkpoints, lambda number, bad=error.step: number > bad)
                saved = agreed_checkpoint(cfg, folder, stop.group, tell)
                tell(f"Rolling back to step {saved.state.step}, to leave out step {error.step + 1}: {error}")
        # All together, and when all is written: where one process has ended, launchers soon kill the others.
        finished = not stop.group.any(not finished)
    accelerator.end_training()
    return 0 if finished else STOPPED


def rehearse(cfg: Config) -> int:
    """Say what the data are, draw a sheet of them, and tell from a few steps what a run needs; no run begins."""
    task, accelerator = task_of(cfg), processes.start(cfg)
    first, device, group = accelerator.is_main_process, accelerator.device, ProcessGroup(accelerator)
    with group.first_alone():
        data = task.load(cfg)
    if first:
        for note in data.notes:
            print(note)
        if (sheet := rehearsal.contact_sheet(data)) is not None:
            print(f"Images as they are trained on: {pictures.save(sheet, RunFolder.of(cfg).path / 'data.png')}")
    players = Players.build(cfg, *task.networks(cfg, task.sizes(data)), device)
    game, feed = task.game(cfg, players, data, accelerator), feed_of(cfg, data, accelerator, 0)
    recorder = Recorder(cfg, task, players, None, group, 0)
    seconds = rehearsal.seconds_a_step(
        cfg, lambda step: train_step(cfg, game, players, next(feed), recorder, step), device
    )
    if first:
        print(rehearsal.estimate(cfg, seconds, peak_memory(), device))
    return 0


@contextlib.contextmanager
def noted(tell: Callable[..., None]) -> Iterator[None]:
    """An error that ends the run is said in its log, too."""
    try:
        yield
    except Exception as error:
        with contextlib.suppress(UserError):  # the error may be that logs cannot be written
            tell(f"Stopped: {errors.sentence(error)}", quiet=True)
        raise


def attempt(
    cfg: Config, task: Task, data: Any, players: Players, game: Game, accelerator: Accelerator, folder: RunFolder,
    state: RunState, stop: StopSignals,
) -> bool:  # fmt: skip
    """Train from ``state`` to the end, a signal or an error. Returns whether the run is finished."""
    first, begin = accelerator.is_main_process, state.step
    with (
        Log(folder, begin, Trackers(cfg, folder, partial(say, folder))) if first else contextlib.nullcontext() as log,
        Saver(cfg, folder, players, state, best_metric(cfg, task, data), first) as saver,
        Recorder(cfg, task, players, log, stop.group, begin) as recorder,
    ):
        if log:
            log.config(to_yaml(cfg))
        if not checkpoint.steps(folder.checkpoints) and (cfg.guard.rollbacks or cfg.init.run):
            saver.save(begin)  # a NaN in the first steps has something to go back to, and init.run may go away
            saver.finish()
        evaluator = Evaluator(cfg, task, data, players, log, saver, stop)
        done, feed = begin, feed_of(cfg, data, accelerator, begin)
        if evaluator.catch_up(begin):
            done = loop(cfg, game, players, feed, recorder, saver, evaluator, stop, state.skipped)
        return finish(cfg, done, saver, evaluator, stop)


def state_of(
    cfg: Config, task: Task, data: Any, digest: str, step: int, skipped: tuple[int, ...], history: tuple[str, ...]
) -> RunState:  # fmt: skip
    """The state of a run at ``step``, as its checkpoints hold it."""
    target_samples = None if data.target is None else len(data.target)
    sizes, samples = task.sizes(data), len(data.train)
    return RunState(step, identity(cfg), skipped, sizes, samples, target_samples, data=digest, history=history)


def feed_of(cfg: Config, data: Any, accelerator: Accelerator, begin: int) -> Iterator[list[Round]]:
    """This process's share of the batches of step ``begin`` and all that follow."""
    return rounds(cfg, data.train, begin, processes.own_rows(cfg, accelerator), accelerator.device, data.target)


def warm_up(cfg: Config, game: Game, players: Players, batches: list[Round]) -> None:
    """Play a step in which nobody moves, where several processes play.

    DistributedDataParallel rearranges its buckets after its first backward pass, and with them the order in which three
    or more processes add up a gradient. Without this the first step after a resumption would differ in its last bits
    from the same step of a run that was never interrupted.
    """
    before = checkpoint.snapshot(players.networks())
    for turn in turns(cfg, game, batches, values.strengths_at(cfg, players.penalties, 0)):
        for player in turn.players:
            players.optimizers[player].zero_grad()
    players.load_tensors(before)  # BatchNorm's statistics have moved


def main(arguments: list[str]) -> int:
    """Parse ``[recipe.yaml] [key=value ...] [--print-config | --check-data | --list]`` and train."""
    parser = argparse.ArgumentParser(
        description="Train a recipe; the same command again resumes.",
        epilog="Every key and its meaning: python train.py --print-config",
    )
    parser.add_argument("words", nargs="*", metavar="recipe.yaml | key=value", help="default: configs/mnist_5k.yaml")
    parser.add_argument("--print-config", action="store_true", help="show the resolved config and exit")
    parser.add_argument("--check-data", action="store_true", help="show the data, estimate time and memory, and exit")
    parser.add_argument("--list", action="store_true", help="show the recipes of configs/ and exit")
    options = parser.parse_intermixed_args(arguments)
    if options.list:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        print(recipes.table(loading.DEFAULT_RECIPE.parent, width))
        return 0
    files = [word for word in options.words if not is_override(word)]
    if len(files) > 1:
        raise UserError(f"One recipe at a time: {' and '.join(files)} were given.")
    recipe = path_of(files[0]) if files else loading.DEFAULT_RECIPE
    cfg = loading.load(recipe, [word for word in options.words if is_override(word)])
    if options.print_config:
        print(to_yaml(cfg), end="")
        return 0
    return rehearse(cfg) if options.check_data else train(cfg)


if __name__ == "__main__":
    errors.run(main)
