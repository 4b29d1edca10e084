"""Checkpoints whose files are whole by their sums, and hold what no run has written: made from the schema of the state
and from the tensors of a real one. The run must go on, from an older one or as it was, or stop with one sentence.
"""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_type_hints

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import train
from tests.faults.outcome import ends_or_says_why
from tests.runs import arguments, run
from utils.training.state import BestRecord, RunState

REMOVED = object()
VALUES = (None, True, -1, 0, 2**63, 1.5, float("nan"), float("inf"), "", "x", [], [[]], [None], {}, {"x": 1}, REMOVED)
WORDS = ["train.steps=6", "checkpoint.every=2", "sample.every=0", "evaluate.every=2", "optimizer.schedule=constant"]
RECIPE = "configs/ring.yaml"


def cases(folder: Path, seed: int) -> dict[str, Callable[[Path], None]]:
    """Every key of the state with every value, and every file of tensors with every change."""
    if not (folder / "ring/metrics.jsonl").is_file():
        assert run(folder, *WORDS, "train.steps=4", recipe=RECIPE) == 0
    found = {}
    for key in keys(RunState):
        for value in VALUES:
            shown = "removed" if value is REMOVED else json.dumps(value)
            found[f"state.json: {'.'.join(key)} {shown}"] = lambda own, key=key, value=value: goes_on(
                folder, own, lambda path: change_state(path, key, value)
            )
    for file in sorted((folder / "ring/checkpoints/step-00000004").glob("*.safetensors")):
        for name, change in CHANGES.items():
            found[f"{file.name}: {name}"] = lambda own, file=file, change=change: goes_on(
                folder, own, lambda path: change_tensors(path / file.name, change)
            )
    return found


def keys(kind: Any) -> Iterator[tuple[str, ...]]:
    """The keys of a dataclass and of the dataclasses in it; and one of each that it does not have."""
    for name, hint in get_type_hints(kind).items():
        yield (name,)
        inner = {"sizes": hint, "best": BestRecord}.get(name)
        if inner is not None:
            yield from ((name, *more) for more in keys(inner))
    yield ("another",)


def goes_on(whole: Path, folder: Path, spoil: Callable[[Path], None]) -> None:
    """Raise AssertionError unless a copy of the run with a spoilt checkpoint comes to its end or says why not."""
    shutil.copytree(whole / "ring", folder / "ring")
    spoil(folder / "ring/checkpoints/step-00000004")
    ends_or_says_why(lambda: train.main(arguments(folder, *WORDS, recipe=RECIPE)))


def change_state(path: Path, key: tuple[str, ...], value: Any) -> None:
    """Give a key of the state another value."""
    content = json.loads((path / "state.json").read_text())
    content["best"] = dataclasses.asdict(BestRecord("modes", 1.0, 4, True))
    *sections, name = key
    inside = content
    for section in sections:
        inside = inside[section]
    if value is REMOVED:
        inside.pop(name, None)
    else:
        inside[name] = value
    rewrite(path / "state.json", json.dumps(content).encode())


CHANGES: dict[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {
    "no tensors": lambda tensors: {},
    "one tensor less": lambda tensors: dict(list(tensors.items())[1:]),
    "one tensor more": lambda tensors: {**tensors, "another": torch.zeros(2)},
    "longer tensors": lambda tensors: {k: torch.cat([x.reshape(-1), torch.zeros(1)]) for k, x in tensors.items()},
    "no elements": lambda tensors: {k: x.reshape(-1)[:0] for k, x in tensors.items()},
    "float64": lambda tensors: {k: x.double() for k, x in tensors.items()},
    "whole numbers": lambda tensors: {k: x.long() for k, x in tensors.items()},
    "complex numbers": lambda tensors: {k: x.to(torch.complex64) for k, x in tensors.items()},
    "NaN": lambda tensors: {k: x * torch.nan if x.is_floating_point() else x for k, x in tensors.items()},
}  # fmt: skip


def change_tensors(path: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    """Give a file other tensors."""
    save_file({name: x.contiguous() for name, x in change(load_file(path)).items()}, path)
    rewrite(path, path.read_bytes())


def rewrite(path: Path, data: bytes) -> None:
    """Write a file of a checkpoint, and its size and sum into the manifest."""
    path.write_bytes(data)
    manifest = json.loads((path.parent / "manifest.json").read_text())
    manifest[path.name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (path.parent / "manifest.json").write_text(json.dumps(manifest))
