"""What a run starts from: a checkpoint of another run, or a network that ``export.py`` has written."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load as parse

from models import loading
from models.loading import CONFIG, WEIGHTS
from utils.config.former import renewed
from utils.config.identity import identity
from utils.config.loading import name_a_run
from utils.config.sections import Config
from utils.errors import UserError
from utils.paths import path_of
from utils.run.folder import RunFolder
from utils.training import checkpoint
from utils.training.checkpoint import Checkpoint
from utils.training.processes import ProcessGroup
from utils.training.state import RunState


def agreed_source(cfg: Config, folder: RunFolder, group: ProcessGroup, tell: Callable[[str], None]) -> Checkpoint:
    """The checkpoint or the export that ``init.*`` names, the same in all processes.

    An export is a checkpoint without critic and optimisers, whose generator is its average. Raises UserError, in all
    processes, where there is nothing to start from.
    """
    source, failure = None, None
    try:
        source = _read(cfg, folder, tell)
    except UserError as error:
        failure = error
    if group.any(failure is not None):
        raise failure or UserError(f"Another process cannot read init.run={cfg.init.run}: see its message.")
    if not group.same(source.sha256):
        mend = "name one of them by init.step" if is_whole(source) else "give all machines the same export"
        raise UserError(
            f"The processes see different weights in init.run={cfg.init.run} (this one: {source.path.name}): {mend}."
        )
    return source


def is_whole(source: Checkpoint) -> bool:
    """Whether ``source`` has both players, as checkpoints have and exports have not."""
    return "critic" in source.tensors


def described(source: Checkpoint) -> str:
    """A source by its path and the sha256 of a checkpoint's manifest, which has those of all files, or of an export's
    weights.
    """
    what = "its manifest" if is_whole(source) else WEIGHTS
    return f"{source.path} (sha256 of {what} {source.sha256})"


def _read(cfg: Config, folder: RunFolder, tell: Callable[[str], None]) -> Checkpoint:
    path = path_of(cfg.init.run)
    if path.resolve() == folder.path.resolve():
        raise UserError(f"init.run={path} is this run itself: name another run, or choose another run.name.")
    run = RunFolder(path)
    if run.config.is_file() or checkpoint.steps(run.checkpoints):
        return of_run(cfg, run, tell)
    if (path / CONFIG).is_file():
        return of_export(cfg, path)
    raise UserError(f"init.run={path} holds neither a run nor an export: {name_a_run(path)}.")


def of_run(cfg: Config, run: RunFolder, tell: Callable[[str], None]) -> Checkpoint:
    step, place = cfg.init.step, run.best if cfg.init.weights == "best" else run.checkpoints
    known = checkpoint.steps(place)
    if not known:
        trained = (
            "train that run with evaluate.every, or choose init.weights=ema"
            if place == run.best
            else "wait for its first one (checkpoint.every), or name another run"
        )
        raise UserError(f"init.run={run.path} holds no checkpoint in {place.name}/: {trained}.")
    if step is not None and step not in known:
        raise UserError(
            f"init.step={step} is not among the checkpoints in {place}, which are of step "
            f"{', '.join(map(str, known))}: choose one of these (a run keeps more with a larger checkpoint.keep)."
        )
    source = checkpoint.newest(place, tell) if step is None else checkpoint.of_step(place, step)
    theirs, ours = renewed(source.state.config), identity(cfg)
    for key in ("game.name", "model.name"):
        if theirs.get(key) != ours[key]:
            raise UserError(
                f"init.run={run.path} has {key}={theirs.get(key)} and this run {key}={ours[key]}: start from a run of "
                "the same game and the same family of networks."
            )
    return source


def of_export(cfg: Config, folder: Path) -> Checkpoint:
    """The network in a folder that ``export.py`` has written, for the generator and for its average."""
    _check_asked_of_export(cfg, folder)
    try:
        about = loading.read(folder / CONFIG)
        content = (folder / WEIGHTS).read_bytes()
        tensors = parse(content)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(
            f"init.run={folder} is no export that can be read ({error}): name one as export.py writes it, with "
            f"{CONFIG} and {WEIGHTS}, or the folder of a run."
        ) from None
    needed = {"generator": "generator", "features": "recogniser"}[cfg.game.networks]
    if (about.network, about.family) != (needed, cfg.model.name):
        raise UserError(
            f"init.run={folder} is a {about.network} of model.name={about.family}, and this run needs a {needed} of "
            f"model.name={cfg.model.name}: start from an export of the same kind and the same family of networks."
        )
    config = {f"model.{key}": value for key, value in about.model.items()}
    networks = {"generator": tensors, "generator_ema": tensors}
    return Checkpoint(folder, networks, RunState(0, config), hashlib.sha256(content).hexdigest())


def _check_asked_of_export(cfg: Config, folder: Path) -> None:
    """Raise UserError for keys of ``init.*`` that ask for what no export holds."""
    init = cfg.init
    lacking = [
        (init.fork, "init.fork=true", "no optimisers to go on with"),
        (init.step is not None, f"init.step={init.step}", "the network of one step"),
        (init.weights in ("raw", "best"), f"init.weights={init.weights}", "one set of weights"),
        ("generator" not in init.parts, f"init.parts=[{','.join(init.parts)}]", "no critic"),
    ]
    for asked, words, holds in lacking:
        if asked:
            raise UserError(
                f"{words} is for the folder of a run, and init.run={folder} is an export, which holds {holds}: leave "
                "that out, or name the run that it came from."
            )
