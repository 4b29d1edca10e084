"""Clocks and counts of the benchmarks: seconds of a step, its FLOPs, and how fast a square matmul runs."""

import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode


def seconds(step: Callable[[], object], steps: int, device: str) -> float:
    """Mean seconds of a step: of CPU time, or on a GPU of wall time."""
    clock, wait = (time.perf_counter, torch.cuda.synchronize) if device == "cuda" else (time.process_time, lambda: None)
    wait()
    begin = clock()
    for _ in range(steps):
        step()
    wait()
    return (clock() - begin) / steps


def flops(step: Callable[[], object]) -> int:
    """FLOPs of one step. Of compiled networks PyTorch cannot count them."""
    counter = FlopCounterMode(display=False)
    counter.mod_tracker.__enter__ = lambda: None  # it cannot follow a gradient taken at a module's very input
    counter.mod_tracker.__exit__ = lambda *_: None
    with counter:
        step()
    return counter.get_total_flops()


def matmul_rate(device: str, dtype: torch.dtype) -> float:
    """FLOPs a second of a large square matmul, the best of five: what a network's step can reach at most."""
    size = 8192 if device == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds(lambda: a @ b, 2, device)  # warm-up
    return 2 * size**3 / min(seconds(lambda: a @ b, 2, device) for _ in range(5))
