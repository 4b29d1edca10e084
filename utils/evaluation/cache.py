"""What is computed once for all runs: tensors in files that are named by what they were computed from."""

import hashlib
import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from utils.errors import warn


def kept(path: Path, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors in ``path``; where it is absent or damaged, those that ``compute`` returns, which are kept there.

    Two processes may want them at once: both compute, and both return what the faster one has kept. Each file is whole,
    for it is written under another name.
    """
    if (found := _read(path)) is not None:
        return found
    tensors = {name: value.detach().cpu().contiguous() for name, value in compute().items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{platform.node()}-{os.getpid()}")
        # Not by save_file: that would hide the file from other users.
        partial.write_bytes(save(tensors, {"sha256": digest_of_tensors(tensors)}))
        if (found := _read(path)) is not None:
            partial.unlink()
            return found
        partial.replace(path)
    except OSError as error:
        warn(f"{path} could not be kept ({error.strerror}): what it should hold is computed anew the next time.")
    return tensors


def _read(path: Path) -> dict[str, Tensor] | None:
    """The tensors in a file; None where it is absent or damaged."""
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no dict)
            return tensors if (file.metadata() or {}).get("sha256") == digest_of_tensors(tensors) else None
    except (OSError, SafetensorError):  # absent, or cut short
        return None


def digest_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """The sha256 of tensors, by name."""
    found = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        found.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
