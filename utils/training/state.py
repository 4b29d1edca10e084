"""What a checkpoint says besides its tensors (``state.json``), described, written and read in one place."""

import dataclasses
import json
import math
import types
from dataclasses import dataclass, field
from typing import Any, get_args, get_origin, get_type_hints

from utils.errors import UserError

# Of state.json. 4 had no history, 3 no aspect of stretched images, 2 no digest of the data; files of format 1 do not
# say theirs.
FORMAT = 5


@dataclass(frozen=True)
class Sizes:
    """What networks must know of the data: shape of a sample, classes (0: no labels), outputs of a critic; and what
    pictures must: the width of stretched images before that, in units of their height (None: they were not stretched).
    """

    shape: tuple[int, ...]
    classes: int
    outputs: int = 1
    aspect: float | None = None


@dataclass(frozen=True)
class BestRecord:
    """The measurement by which a model was chosen as the best so far."""

    metric: str
    value: float
    step: int
    higher_is_better: bool

    @classmethod
    def of(cls, step: int, record: dict[str, Any]) -> "BestRecord | None":
        """A metric's record as it is; None if its value is not a finite number, which is never the best."""
        if record["value"] is None or not math.isfinite(record["value"]):
            return None
        return cls(record["metric"], record["value"], step, record["higher_is_better"])

    def beats(self, other: "BestRecord | None") -> bool:
        """Whether this is at least as good: among equals the model that trained longest is preferred."""
        if other is None:
            return True
        return self.value >= other.value if self.higher_is_better else self.value <= other.value


@dataclass(frozen=True)
class RunState:
    """The state of a run after ``step`` steps."""

    step: int
    config: dict[str, Any] = field(default_factory=dict)  # what identifies the run, by "section.key"
    skipped: tuple[int, ...] = ()  # indices of steps that are left out, because they gave NaN or Inf
    sizes: Sizes = Sizes((), 0)
    train_samples: int | None = None  # None: not known
    target_samples: int | None = None  # None: no target domain, or not known
    best: BestRecord | None = None  # set in checkpoints of best models alone
    lines: int | None = None  # of the training in metrics.jsonl up to this step; None: not known
    format: int = FORMAT
    data: str | None = None  # digest of the training and target samples; None: not known
    history: tuple[str, ...] = ()  # lines on the runs that this one started from or forked, the earliest first

    def to_json(self) -> bytes:
        """The text of ``state.json``."""
        return json.dumps(dataclasses.asdict(self), indent=1).encode()

    @classmethod
    def from_json(cls, text: bytes) -> "RunState":
        """Read ``state.json`` of this format or an earlier one; keys that are absent get their defaults.

        Raises ValueError or TypeError, naming the key, for an unknown key or a value of a wrong type, and UserError for
        a later format.
        """
        try:
            content = json.loads(text)
        except RecursionError:
            raise ValueError("state.json is nested too deeply") from None
        if isinstance(content, dict):
            content = _upgraded(content)
        state = _parsed(cls, content, "state.json")
        if state.best and not math.isfinite(state.best.value):  # no other would ever be as good
            raise ValueError(f"state.json: best.value is {state.best.value}")
        return state


def _upgraded(content: dict[str, Any]) -> dict[str, Any]:
    """The content of a state of any known format, in the format of today."""
    number = content.get("format", 1)
    if isinstance(number, int) and number > FORMAT:
        raise UserError(
            f"The checkpoint of step {content.get('step')} has format {number}, and this version of Flipside reads "
            f"formats up to {FORMAT}: use the version that wrote it, or a later one."
        )
    if number == 1:
        flat = ("shape", "classes", "outputs")
        sizes = {key: content[key] for key in flat if key in content}
        content = {key: value for key, value in content.items() if key not in flat}
        content |= {"sizes": sizes} if sizes else {}
    return content | {"format": FORMAT} if type(number) is int else content  # type: True is an int to isinstance


def _parsed(kind: Any, content: Any, name: str) -> Any:
    """JSON ``content`` as a value of type ``kind``: a dataclass, ``T | None``, ``tuple[T, ...]`` or a plain type."""
    if dataclasses.is_dataclass(kind) and isinstance(content, dict):
        hints = get_type_hints(kind)
        if unknown := content.keys() - hints.keys():
            raise ValueError(f"{name} has an unknown key '{min(unknown)}'")
        return kind(**{key: _parsed(hints[key], value, f"{name}: {key}") for key, value in content.items()})
    if isinstance(kind, types.UnionType):
        return None if content is None else _parsed(get_args(kind)[0], content, name)
    if get_origin(kind) is tuple and isinstance(content, list):
        return tuple(_parsed(get_args(kind)[0], item, name) for item in content)
    plain = get_origin(kind) or kind
    valid = isinstance(content, int | float) if plain is float else isinstance(content, plain)
    if not valid or isinstance(content, bool) != (plain is bool):  # Python's bool is an int, too
        raise ValueError(f"{name} is {content!r} and must be of type {plain.__name__}")
    return content
