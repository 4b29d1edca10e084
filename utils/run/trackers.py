"""Other places that follow a run: wandb, mlflow and what else Accelerate has a tracker for.

They are sent what a checkpoint has committed, and only that: a run that is killed does later steps again, and most
trackers cannot take back what they have. A note in the run's folder counts what has been sent, so that a resumed run
goes on there.
"""

import json
import uuid
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from utils import pictures
from utils.config.identity import flat
from utils.config.sections import Config
from utils.errors import UserError
from utils.evaluation.records import Record
from utils.run.folder import RunFolder
from utils.run.points import points_of
from utils.training import checkpoint

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

NOTE = ".trackers.json"
ORDER = {"train": 0, "picture": 1, "metric": 2}  # in which the events of a step come

# What a tracker is told besides the project, so that a run that is resumed here is resumed there: the run's name, a key
# of 32 letters and digits of its own, and the id that the tracker gave it when it began (None: it begins).
OPTIONS: dict[str, Callable[[str, str, str | None], dict[str, Any]]] = {
    "comet_ml": lambda name, key, known: {"experiment_key": key},
    "mlflow": lambda name, key, known: {"run_name": name, "run_id": known},
    "swanlab": lambda name, key, known: {"experiment_name": name, "id": key[:21], "resume": "allow"},
    "trackio": lambda name, key, known: {"name": name, "resume": "allow"},
    "wandb": lambda name, key, known: {"name": name, "id": key, "resume": "allow"},
}


class Event(NamedTuple):
    """Something that happened at a step: ``values`` by name, or the file of a picture."""

    step: int
    kind: str
    values: dict[str, float]
    picture: Path | None = None


class Trackers:
    """The trackers that ``log.trackers`` names, for the process that writes. ``tell`` is told of one that fails."""

    def __init__(self, config: Config, folder: RunFolder, tell: Callable[[str], None]):
        self.folder, self.tell = folder, tell
        self.note = _read(folder.path / NOTE)
        self.started: dict[str, GeneralTracker] = {}
        self.committed: int | None = None  # the step up to which events were sent
        for name in config.log.trackers:
            self.note.setdefault(name, {"key": uuid.uuid4().hex, "id": None, "sent": 0})
            self._attempt(name, lambda name=name: self._start(name, config))

    def newly_committed(self) -> bool:
        """Whether there is a checkpoint whose events have not been sent."""
        return bool(self.started) and checkpoint.steps(self.folder.checkpoints)[-1:] not in ([], [self.committed])

    def send(self, records: list[Record]) -> None:
        """Send what has been committed and has not been sent of a run that has these ``records``."""
        self.committed = max(checkpoint.steps(self.folder.checkpoints), default=-1)
        events = [event for event in self._events(records) if event.step <= self.committed]
        for name in list(self.started):
            self._attempt(name, lambda name=name: self._send(name, events))

    def close(self) -> None:
        """End the runs there."""
        for name in list(self.started):
            self._attempt(name, self.started[name].finish)
        self.started = {}

    def _start(self, name: str, config: Config) -> None:
        note = self.note[name]
        tracker = tracker_of(name, config, note)
        tracker.start()
        if note["id"] is None:  # mlflow refuses another config for the same run, and names its runs itself
            note["id"] = tracker.tracker.info.run_id if name == "mlflow" else note["key"]
            tracker.store_init_configuration({key: _plain(value) for key, value in flat(config).items()})
        self.started[name] = tracker
        self._write()

    def _send(self, name: str, events: list[Event]) -> None:
        tracker, note = self.started[name], self.note[name]
        for event in events[note["sent"] :]:
            if event.picture is not None:
                _send_picture(tracker, event.picture, event.step)
            elif event.values:  # a metric may have no value
                tracker.log(event.values, step=event.step)
            note["sent"] += 1
            self._write()

    def _attempt(self, name: str, what: Callable[[], None]) -> None:
        """Do it; a tracker that raises an error, as without a network, is told and left alone until the next start."""
        try:
            what()
        except UserError:
            raise
        except Exception as error:
            self.started.pop(name, None)
            self._write()
            self.tell(
                f"warning: {name} cannot be reached ({' '.join(str(error).split()) or type(error).__name__}); the run "
                "goes on without it, and the next start of this run sends what is missing there."
            )

    def _events(self, records: list[Record]) -> list[Event]:
        """All that has happened, in an order in which only the later steps are still to come."""
        found = [Event(r["step"], r["kind"], points_of(r)) for r in records if r["kind"] in ORDER]
        for path in self.folder.samples.glob("step-????????.png"):
            found.append(Event(int(path.stem.removeprefix("step-")), "picture", {}, path))
        return sorted(found, key=lambda event: (event.step, ORDER[event.kind]))

    def _write(self) -> None:
        partial = self.folder.path / f"{NOTE}.partial"
        partial.write_text(json.dumps(self.note), encoding="utf-8")
        partial.replace(self.folder.path / NOTE)


def tracker_of(name: str, config: Config, note: dict[str, Any]) -> "GeneralTracker":
    """Accelerate's tracker of that name, not yet started. Raises UserError where its package is not installed."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    if find_spec(name) is None:
        raise UserError(
            f"log.trackers names '{name}', which is not installed: pip install {name.replace('_', '-')}, or leave it "
            "out."
        )
    kind = LOGGER_TYPE_TO_CLASS[name]
    where = [str(RunFolder.of(config).path)] if kind.requires_logging_directory else []
    options = OPTIONS.get(name, lambda *_: {})(config.run.name, note["key"], note["id"])
    return kind(config.log.project, *where, **options)


def _send_picture(tracker: "GeneralTracker", path: Path, step: int) -> None:
    """Send a picture if the tracker takes images, or, as mlflow does, files."""
    if hasattr(tracker, "log_artifact"):
        tracker.log_artifact(str(path), "samples")
    elif hasattr(tracker, "log_images") and (image := pictures.load(path)) is not None:
        tracker.log_images({"samples": [image.permute(1, 2, 0).numpy()]}, step=step)


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool) else json.dumps(value)


def _read(path: Path) -> dict[str, Any]:
    """The note as it was left; an empty one where there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
