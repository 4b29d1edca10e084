"""The start of a run: the checkpoint that it goes on from, and what its processes must have in common."""

from collections.abc import Callable
from typing import Any

from utils.config.identity import check_same_run, in_common
from utils.config.sections import Config
from utils.data.samples import digest
from utils.errors import UserError
from utils.run.ending import FINISHED
from utils.run.folder import RunFolder
from utils.run.log import records, training_lines
from utils.training import checkpoint
from utils.training.checkpoint import Checkpoint
from utils.training.processes import ProcessGroup


def agreed_checkpoint(
    cfg: Config, folder: RunFolder, group: ProcessGroup, tell: Callable[[str], None]
) -> Checkpoint | None:
    """The newest intact checkpoint, the same in all processes; None for none.

    Raises UserError, in all of them, unless all were given the same config, see the same checkpoint, and it is of a run
    with that config.
    """
    check_in_common(cfg, group)  # waits for all of them: one may still be writing
    saved, failure = None, None
    try:
        saved = checkpoint.newest(folder.checkpoints, warn=tell)
    except UserError as error:
        failure = error
    if group.any(failure is not None):  # or the others would wait for this one
        raise failure or UserError(f"Another process cannot read the checkpoints in {folder.path}: see its message.")
    name = "none" if saved is None else saved.path.name
    if not group.same(name):
        raise UserError(
            f"The processes see different newest checkpoints in {folder.path} (this one: {name}); put run.dir on a "
            "file system that all nodes share."
        )
    if saved:
        check_same_run(saved.state.config, cfg, saved.path)
    else:
        check_nothing_lost(cfg, folder)
    return saved


def check_in_common(cfg: Config, group: ProcessGroup) -> None:
    """Raise UserError, in all processes, unless all were given the same config but for ``PROCESS_KEYS``."""
    values = in_common(cfg)
    if group.same(repr(sorted(values.items()))):
        return
    # To ask about keys one by one, all must have the same keys.
    different = []
    if group.same(repr(sorted(values))):
        different = [key for key in sorted(values) if not group.same(repr(values[key]))]
    which = f" ({', '.join(different)})" if different else ""
    raise UserError(f"The processes were started with different configs{which}; give the same command on every node.")


def check_nothing_lost(cfg: Config, folder: RunFolder) -> None:
    """Raise UserError if the records or the best model of a folder without checkpoints are of steps that must have had
    one: to start over would delete them.

    Until the second checkpoint is due the first may still have been on its way to the disk when the run was killed.
    """
    done = records(folder)
    step = max([record["step"] for record in done] + checkpoint.steps(folder.best), default=0)
    if step > 2 * cfg.checkpoint.every or any(record["kind"] == FINISHED for record in done):
        raise UserError(
            f"{folder.path} holds results up to step {step} but {folder.checkpoints} holds no checkpoint: mount or "
            "restore that folder, or choose another run.name to start over."
        )


def agreed_digest(data: Any, group: ProcessGroup) -> str:
    """The digest of what is trained on. Raises UserError, in all processes, unless all of them have the same."""
    found = digest(data.train, data.target)
    if not group.same(found):
        raise UserError(
            f"The processes read different data as '{data.name}' ({len(data.train)} samples here): give each of them "
            "the same files."
        )
    return found


def check_data(saved: Checkpoint, data: Any, found: str) -> None:
    """Raise UserError if the data set, whose digest is ``found``, has changed since: the run would be another."""
    for name, samples in (("train_samples", data.train), ("target_samples", data.target)):
        before, now = getattr(saved.state, name), None if samples is None else len(samples)
        if before is not None and before != now:
            raise UserError(
                f"{saved.path} was trained on {before} samples and data set '{data.name}' now has {now} ({name}): "
                "restore the data, or choose another run.name."
            )
    if saved.state.data not in (None, found):
        raise UserError(
            f"{saved.path} was trained on other samples than data set '{data.name}' now has, though as many: restore "
            "the data, or choose another run.name."
        )


def check_records(saved: Checkpoint, folder: RunFolder, tell: Callable[[str], None]) -> None:
    """Tell of records that were there when the checkpoint was saved and are gone."""
    before, now = saved.state.lines or 0, training_lines(folder, saved.state.step)
    if now < before:
        tell(
            f"warning: {folder.metrics} holds {now} of {before} lines of the training up to step {saved.state.step}; "
            "the others are lost, as are evaluations between them: restore the file for whole curves."
        )
