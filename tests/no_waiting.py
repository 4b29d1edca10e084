"""A block in which nothing may make the host wait for the device."""

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._python_dispatch import TorchDispatchMode

READING = {
    "item", "tolist",
    "numpy", "__array__", "cpu", "nonzero", "argwhere", "masked_select", "equal", "allclose",
    "is_nonzero", "unique", "__float__", "__int__", "__bool__", "__index__", "__complex__", "__repr__", "__format__",
}  # fmt: skip

# Folders whose code calls ``to`` for tensors that go to the run's device, or are there: PyTorch's, and the data's.
PLACING = (str(Path(torch.__file__).parent), str(Path(__file__).parent.parent / "utils" / "data"))


class WaitedError(AssertionError):
    """Something read a tensor's values on the host."""


class _Calls(TorchFunctionMode):
    """Refuses calls by name. On a CPU most of them do nothing that operations below could be told by."""

    def __torch_function__(self, function: Callable, types: Any, arguments=(), options=None) -> Any:
        name = (getattr(function, "__name__", "") or resolve_name(function) or "").split(".")[-1]
        options = options or {}
        if name in READING:
            raise WaitedError(name)
        to_host = name == "to" and any(_is_host(value) for value in (*arguments[1:], *options.values()))
        # On a CPU the device is the host, too: what only places data on the run's device may pass.
        placing = options.get("non_blocking") or sys._getframe(1).f_code.co_filename.startswith(PLACING)
        if to_host and not placing:
            raise WaitedError("to the host")
        if name in ("__getitem__", "__setitem__") and _has_mask(arguments[1]):
            raise WaitedError("boolean mask")
        if name == "where" and len(arguments) + len(options) == 1:
            raise WaitedError("nonzero")
        return function(*arguments, **options)


class _Operations(TorchDispatchMode):
    """Refuses what operations do underneath, wherever the call comes from."""

    def __torch_dispatch__(self, function: Callable, types: Any, arguments=(), options=None) -> Any:
        name = function.overloadpacket.__name__
        if name in ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "_unique2"):
            raise WaitedError(name)
        if name == "index" and any(_has_mask(index) for index in arguments[1]):
            raise WaitedError("boolean mask")
        return function(*arguments, **(options or {}))


def _is_host(value: Any) -> bool:
    return value == "cpu" or (isinstance(value, torch.device) and value.type == "cpu")


def _has_mask(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, Tensor) and part.dtype in (torch.bool, torch.uint8) for part in parts)


class NoWaiting(contextlib.ExitStack):
    """Raises ``WaitedError`` where the host would wait for the device, had the tensors been on a GPU.

    On a GPU PyTorch's own watch is set as well.
    """

    def __enter__(self) -> "NoWaiting":
        super().__enter__()
        self.enter_context(_Calls())
        self.enter_context(_Operations())
        if torch.cuda.is_available():
            torch.cuda.set_sync_debug_mode("error")
            self.callback(torch.cuda.set_sync_debug_mode, "default")
        return self


def touch_mask(x: Tensor) -> Tensor:
    """Select by a mask: how many there are must be known on the host."""
    x = x.detach().reshape(-1)
    return x[x > 0]


# Every way to wait that the watch must see, by name.
WAITS: dict[str, Callable[[Tensor], object]] = {
    "item": lambda x: x.item(),
    "float": float,
    "int": lambda x: int(x),
    "bool": bool,
    "if": lambda x: 1 if x > 0 else 0,
    "tolist": lambda x: x.tolist(),
    "cpu": lambda x: x.cpu(),
    "to cpu": lambda x: x.to("cpu"),
    "to a device": lambda x: x.to(torch.device("cpu")),
    "to with an option": lambda x: x.to(device="cpu", dtype=torch.float64),
    "numpy": lambda x: x.detach().numpy(),
    "nonzero": lambda x: torch.nonzero(x),
    "where": lambda x: torch.where(x > 0),
    "mask": touch_mask,
    "masked select": lambda x: x.masked_select(x > 0),
    "equal": lambda x: torch.equal(x, x),
    "format": lambda x: f"{x:.3f}",
    "print": repr,
}
