"""Warm starts: a run that begins with another run's networks, or forks it, going on from one of its checkpoints."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from utils.config.identity import differences, identity
from utils.config.sections import Config
from utils.errors import UserError
from utils.run.sources import described, is_whole
from utils.tasks.task import Task
from utils.training.checkpoint import Checkpoint, Tensors
from utils.training.players import Players

# Networks and optimisers have the same tensors only where these agree.
FORKS_SHARE = (
    "model", "game.name", "game.method", "game.conditional", "game.auxiliary", "game.pack", "optimizer.name",
    "optimizer.momentum", "train.precision", "init.freeze",
)  # fmt: skip
NAMED = 20  # tensors that a line names


def begin(cfg: Config, task: Task, players: Players, source: Checkpoint) -> tuple[Checkpoint | None, tuple[str, ...]]:
    """Start ``players`` from another run's checkpoint, or fork that run. Returns the checkpoint that a fork resumes
    from (None for a start), and lines that say what was done.
    """
    return fork(cfg, players, source) if cfg.init.fork else (None, start(cfg, task, players, source))


def start(cfg: Config, task: Task, players: Players, source: Checkpoint) -> tuple[str, ...]:
    """Load the networks of ``source`` as far as they fit, layer by layer. Returns lines that say what was done.

    Raises UserError where nothing of a player fits.
    """
    theirs = task.adopt(cfg, source)
    raw, average = {
        "same": ("generator", "generator_ema"),
        "ema": ("generator_ema", "generator_ema"),
        "raw": ("generator", "generator"),
        "best": ("generator_ema", "generator_ema"),
    }[cfg.init.weights]
    if is_whole(source):
        parts, how = cfg.init.parts, f"{', '.join(cfg.init.parts)} (init.weights={cfg.init.weights})."
    else:
        parts, how = ["generator"], "generator and average. An export holds no critic, which starts at random."
    told = [f"Starts from {described(source)}: {how}"]
    if "generator" in parts:
        take_over(players.average, theirs[average], "generator", source)
        told += take_over(players.generator, theirs[raw], "generator", source)  # last: they may share their tensors
    if "critic" in parts:
        told += take_over(players.critic, theirs["critic"], "critic", source)
    players.lookahead.forget()
    return tuple(told)


@torch.no_grad()
def take_over(network: nn.Module, theirs: dict[str, Tensor], player: str, source: Checkpoint) -> list[str]:
    """Copy the tensors ``theirs`` into the layers that have all theirs in the same shapes; the others stay as they are.

    Returns lines that name the tensors that stay, and those that have no place here, if there are any. Raises UserError
    where nothing fits.
    """
    ours = network.state_dict()
    unfit = {_layer(name) for name, x in ours.items() if name not in theirs or theirs[name].shape != x.shape}
    left = [name for name in ours if _layer(name) in unfit]
    if len(left) == len(ours):
        raise UserError(
            f"Nothing of the {player} in {source.path} fits this run's: give model.* the sizes that it has there, or "
            "leave that player out of init.parts."
        )
    for name in ours.keys() - left:
        ours[name].copy_(theirs[name])
    told, unused = [], [name for name in theirs if name not in ours]
    if left:
        told.append(
            f"Of the {player} {len(left)} of {len(ours)} tensors do not fit and start at random: {_named(left)}."
        )
    if unused:
        told.append(f"Of the other {player} {len(unused)} tensors have no place here: {_named(unused)}.")
    return told


def _named(tensors: list[str]) -> str:
    return ", ".join(tensors[:NAMED]) + (f" and {len(tensors) - NAMED} more" if len(tensors) > NAMED else "")


def _layer(name: str) -> str:
    """The layer of a tensor: what is computed from a parameter (spectral norm) belongs to the same one."""
    layer, parametrised, _ = name.partition(".parametrizations.")
    return layer if parametrised else name.rpartition(".")[0]


def fork(cfg: Config, players: Players, source: Checkpoint) -> tuple[Checkpoint, tuple[str, ...]]:
    """``source`` as a checkpoint that this run resumes from, and a line that says what is different from here on.

    Raises UserError where networks or optimisers are not the same.
    """
    changed = differences(source.state.config, identity(cfg))
    for key, change in changed.items():
        if key in FORKS_SHARE or key.partition(".")[0] in FORKS_SHARE:
            raise UserError(
                f"init.fork=true goes on with the networks and optimisers of {source.path}, and {change} needs others: "
                "leave that as it was, or start at step 0 with init.fork=false."
            )
    step = source.state.step
    if cfg.train.steps is not None and cfg.train.steps <= step:
        raise UserError(
            f"init.fork=true goes on from step {step}, and train.steps={cfg.train.steps}: raise train.steps, or "
            "choose an earlier init.step."
        )
    state = replace(
        source.state, config=identity(cfg), train_samples=None, target_samples=None, data=None, best=None, lines=None,
        skipped=tuple(index for index in source.state.skipped if index < step),
    )  # fmt: skip
    different = "; ".join(change for key, change in changed.items() if not key.startswith("init.")) or "nothing"
    told = f"Forks {described(source)}. Different from there on: {different}."
    return source._replace(state=state, tensors=_completed(source.tensors, players)), (told,)


def _completed(theirs: Tensors, players: Players) -> Tensors:
    """A checkpoint's tensors with what only this run keeps from step to step, as it is where that begins."""
    found = dict(theirs)
    for name, before in players.weights_before().items():
        weights = theirs[name.removesuffix("_before")]
        found.setdefault(name, {key: weights[key] for key in before})
    scalars = theirs.get("scalars", {})
    found["scalars"] = {name: scalars.get(name, value.cpu()) for name, value in players.state.items()}
    return found
