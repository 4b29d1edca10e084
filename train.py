"""Train a recipe: ``python train.py configs/ring.yaml update.rule=alternating``. The same command again resumes.

``loop`` is the algorithm and ``train`` what it is built from; the rest lies where the folder names say.
"""

import argparse
import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from adversarial.games import Game
from adversarial.objectives import OBJECTIVES, Auxiliary, Objective
from adversarial.penalties import Gamma
from adversarial.schedules import ema_decay, scheduled
from adversarial.updates import RULES, Weights
from utils import checkpoint, config, ema, errors, players, processes
from utils.batches import Round, rounds
from utils.checkpoint import Checkpoint
from utils.config import Config
from utils.errors import UserError
from utils.journal import Journal, due, is_finished
from utils.kinds import kind_of
from utils.logs import say
from utils.memory import remember
from utils.players import Players, set_learning_rate
from utils.processes import seed_layers
from utils.run import RunFolder
from utils.signals import STOPPED, StopSignals


def loop(
    cfg: Config, game: Game, team: Players, feed: Iterator[list[Round]], journal: Journal, stop: StopSignals
) -> int:
    """The training loop. Returns the number of steps done when it ends or a signal stops it."""
    objective, rule = objective_of(cfg), RULES[cfg.update.rule]
    if cfg.update.reuse_fakes:
        rule = partial(rule, reuse_fakes=True)

    for step in journal.steps():
        seed_layers(cfg, step)
        adapt_learning_rates(cfg, team, step)
        weights = weights_at(cfg, step)

        for turn in rule(game, objective, next(feed), weights):
            journal.note(step, turn)
            for player in turn.players:
                team.optimizers[player].step()
                team.optimizers[player].zero_grad()
            remember(cfg, team.memory, step, turn)
        ema.update(team.average, team.generator, ema_decay_at(cfg, step))

        done, stopped = step + 1, stop.received(step)
        if due(cfg.log.every, done):
            journal.tell(done, weights.coefficient)
        if due(cfg.checkpoint.every, done) or stopped or done == cfg.train.steps:
            journal.save(done)
        if stopped or done == cfg.train.steps:  # the end is drawn and evaluated by finish
            return done
        if due(cfg.sample.every, done):
            journal.draw(done)
        if due(cfg.evaluate.every, done):
            journal.evaluate(done)
    return journal.begin  # no step was left to do


def adapt_learning_rates(cfg: Config, team: Players, step: int) -> None:
    """Give both optimisers their learning rate at ``step``."""
    base = {"generator": cfg.optimizer.generator_lr, "critic": cfg.optimizer.critic_lr}
    for name, optimizer in team.optimizers.items():
        lr = scheduled(base[name], cfg.optimizer.schedule, step, cfg.train.steps, cfg.optimizer.warmup)
        set_learning_rate(optimizer, lr)


def objective_of(cfg: Config) -> Objective | Auxiliary:
    """What the players minimise."""
    objective = OBJECTIVES[cfg.game.objective]
    return Auxiliary(objective, cfg.game.auxiliary) if cfg.game.auxiliary else objective


def weights_at(cfg: Config, step: int) -> Weights:
    """γ of the penalties that are due, and λ, at ``step``."""
    penalty, update = cfg.penalty, cfg.update

    def gamma(name: str, every: int) -> float:
        # Applied in every k-th step, k times as strong (Karras et al. 2020, StyleGAN2, appendix B). Learning rate and
        # betas stay as they are: the paper corrects them because its penalties have optimiser steps of their own.
        if step % every:
            return 0.0
        return every * scheduled(getattr(penalty, name), penalty.schedule, step, cfg.train.steps)

    return Weights(
        Gamma(
            **{name: gamma(name, penalty.every) for name in ("r1", "r2", "gp", "dragan", "lecam", "consistency")},
            path=gamma("path", penalty.path_every),
            clip=penalty.clip,
            noise=penalty.dragan_noise,
        ),
        scheduled(update.coefficient, update.schedule, step, cfg.train.steps, update.warmup),
    )


def ema_decay_at(cfg: Config, step: int) -> float:
    """β of the generator's average at ``step``."""
    return ema_decay(step, cfg.train.batch_size, cfg.ema.half_life, cfg.ema.ramp_up)


def train(cfg: Config) -> int:
    """Run or resume a recipe. Returns the exit code: 0 when it is finished, 75 when a signal stopped it."""
    kind = kind_of(cfg)
    accelerator = processes.start(cfg)
    folder, first = RunFolder.of(cfg), accelerator.is_main_process
    tell = partial(say, folder) if first else lambda text: None
    with folder.locked() if first else contextlib.nullcontext(), StopSignals(accelerator) as stop:
        saved = checkpoint.newest(folder.checkpoints, warn=tell)
        begin = resumable_step(cfg, saved)
        if is_finished(folder, begin, cfg.train.steps):
            tell(farewell(cfg, folder, begin))
            return 0
        with accelerator.main_process_first():  # where a download is asked for, one process does it
            data = kind.load(cfg)
        generator, critic = kind.networks(cfg, kind.sizes(data))
        if saved is None:
            with accelerator.main_process_first():  # where weights are fetched
                kind.start(cfg, generator)
        team = players.build(cfg, generator, critic, accelerator.device)
        if saved is not None:
            check_data(saved, data)
            team.restore(saved)
            tell(f"Resumed from {saved.path}.")
        game = kind.game(cfg, team, data, accelerator)
        rows = processes.own_rows(cfg, accelerator)
        feed = rounds(cfg, data.train, begin, rows, accelerator.device, data.target)
        if first:
            folder.record(cfg)
        with Journal(cfg, kind, folder, data, team, begin, writes=first) as journal:
            done = loop(cfg, game, team, feed, journal, stop)
            journal.finish(done, stop.name)
    accelerator.end_training()
    return STOPPED if cfg.train.steps is None or done < cfg.train.steps else 0


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
    schedules = {getattr(cfg, key).schedule for key in config.SCHEDULED} - {"constant"}
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
    kind_of(cfg)
    if options.print_config:
        print(config.to_yaml(cfg), end="")
        return 0
    return train(cfg)


if __name__ == "__main__":
    errors.run(main)
