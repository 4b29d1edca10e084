"""How much memory a step of each update rule needs: a DCGAN pair of 32 pixels with batch 128.

    python benchmarks/memory.py
    MALLOC_MMAP_THRESHOLD_=65536 MALLOC_TRIM_THRESHOLD_=65536 python benchmarks/memory.py    # freed memory is returned

Each rule plays in a process of its own. Measured is by how much live tensors outgrow the start of a step (the fourth),
as PyTorch's profiler counts them; and by how much the first three steps have the process grow, optimisers included.
Prints a Markdown table; ``benchmarks/update_rules.md`` holds the committed one, ``docs/rules.md`` says where it goes.
"""

import argparse
import multiprocessing
import platform
import sys
from functools import partial
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.update_rules import CONTESTANTS, Match
from utils.run.meter import peak_memory
from utils.training.processes import keep_memory

MIB = 2**20


def needed(name: str, options: argparse.Namespace) -> tuple[float, float]:
    """MiB of live tensors over the start of a step, and by which the process has grown, of a contestant."""
    torch.set_num_threads(1)
    if options.device == "cpu":
        keep_memory()  # as train.py does
    match = Match(options, options.resolution, options.batch, together=name != "simultaneous")
    step, before = partial(CONTESTANTS[name], match), peak_memory()
    for _ in range(3):
        step()
    grown = peak_memory() - before
    if options.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return (torch.cuda.max_memory_allocated() - before) / MIB, grown
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    # Each allocation is an event with so many bytes, each release one with so many less than none.
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        most = max(most, live)
    return most / MIB, grown


def main() -> None:
    """Measure and print."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    words.add_argument("--resolution", type=int, default=32)
    words.add_argument("--width", type=int, default=64, help="channels at half the image size")
    words.add_argument("--batch", type=int, default=128)
    options = words.parse_args()
    options.compile = options.nchw = False
    print(f"{platform.machine()}, {options.device}, torch {torch.__version__}: {' '.join(sys.argv)}\n")
    print("| step | MiB of tensors over its start | MiB that the process grows by |")
    print("|---|---:|---:|")
    for name in CONTESTANTS:
        with multiprocessing.get_context("spawn").Pool(1) as process:
            tensors, grown = process.apply(needed, (name, options))
        print(f"| {name} | {tensors:.1f} | {grown:.0f} |", flush=True)


if __name__ == "__main__":
    main()
