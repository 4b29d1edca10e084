"""Running the rows of a sweep: each is ``train.py`` in a process of its own."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import torch
from tqdm import tqdm

from utils.run.signals import STOPPED, StopSignals
from utils.sweeps.rows import Row

ROOT = Path(__file__).parents[2]
PAUSE = 0.1  # seconds between two looks at the children


class Child(NamedTuple):
    """A running row: its place among those that run at a time, its process, its stderr, and when it began."""

    row: Row
    place: int
    process: subprocess.Popen
    errors: IO[str]
    began: float


def perform(rows: list[Row], jobs: int) -> int:
    """Run ``rows``, ``jobs`` at a time, and tell how each ended. Those that are finished are passed over.

    Returns the exit code: 0 when all are finished, 1 when one has failed, 75 when a signal stopped them. The signal is
    passed on as SIGTERM, on which runs save and end; a second Ctrl-C kills them.
    """
    waiting = [row for row in rows if not row.is_finished()]
    failed, stopped, running = 0, 0, []
    jobs = min(jobs, len(waiting))
    with StopSignals(None) as stop, killed_at_the_end(running), bar_of(rows, waiting) as bar:
        while running or (waiting and not stop.name):
            while waiting and len(running) < jobs and not stop.name:
                place = min(set(range(jobs)) - {child.place for child in running})
                running.append(start(waiting.pop(0), place, environment_of(jobs, place)))
            time.sleep(PAUSE)
            for child in [child for child in running if child.process.poll() is not None]:
                running.remove(child)
                failed += tell(child, bool(stop.name)) == "failed"
                stopped += child.process.returncode == STOPPED
                bar.update()
            if running:
                bar.set_postfix_str(position(running[0]))
            if stop.name:
                for child in running:
                    child.process.terminate()  # again and again: the first may have come before it listened
    if stop.name or stopped:
        print(f"Stopped by {stop.name or 'a signal to a run'}; the same command does the rest.")
        return STOPPED
    print(f"{len(rows) - failed} of {len(rows)} runs are finished" + (f", {failed} failed." if failed else "."))
    return 1 if failed else 0


def environment_of(jobs: int, place: int) -> dict[str, str]:
    """The environment of the child at a ``place`` from 0 to ``jobs`` - 1.

    Children share out the cores, unless OMP_NUM_THREADS is given, and take GPUs in turns where there are several.
    """
    own = {} if jobs < 2 else {"OMP_NUM_THREADS": str(max((os.cpu_count() or 1) // jobs, 1))}
    environment = {**own, **os.environ}
    if jobs > 1 and (count := torch.cuda.device_count()) > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(count)))).split(",")
        environment["CUDA_VISIBLE_DEVICES"] = visible[place % count]
    return environment


def start(row: Row, place: int, environment: dict[str, str]) -> Child:
    """Start a row. It is in a process group of its own, so that a terminal's Ctrl-C reaches it through this one."""
    errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115  (the child's)
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *row.words], env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=errors, process_group=0,
    )  # fmt: skip
    return Child(row, place, process, errors, time.monotonic())


def tell(child: Child, stopping: bool) -> str:
    """Say how a child ended, with its last sentence if it failed, and return that: finished, stopped or failed."""
    with child.errors:
        child.errors.seek(0)
        said = [line for line in child.errors.read().splitlines() if line.strip()]
    code = child.process.returncode
    if code == 0:
        end = "finished"
    elif code == STOPPED or (stopping and code < 0):  # the signal came before it listened: it had done nothing
        end = "stopped"
    else:
        end = "failed"
    why = f": {said[-1] if said else f'exit code {code}'}" if end == "failed" else ""
    tqdm.write(f"{end:8}  {child.row.folder.path}  {time.monotonic() - child.began:.0f} s{why}", file=sys.stdout)
    sys.stdout.flush()
    return end


def position(child: Child) -> str:
    """Where a run is: its name, and the step in the last line of its log."""
    log, name = child.row.folder.log, child.row.config.run.name
    if not log.is_file():
        return name
    with open(log, "rb") as file:
        file.seek(max(log.stat().st_size - 1000, 0))
        steps = [line for line in file.read().decode(errors="replace").splitlines() if "  step " in line]
    return f"{name} {steps[-1].partition('  step ')[2].partition(' ')[0]}" if steps else name


def bar_of(rows: list[Row], waiting: list[Row]) -> tqdm:
    """A progress bar over the runs, none in a pipe."""
    return tqdm(total=len(rows), initial=len(rows) - len(waiting), desc="sweep", unit="run", disable=None)


@contextmanager
def killed_at_the_end(running: list[Child]) -> Iterator[None]:
    """No child outlives the block, whatever ends it."""
    try:
        yield
    finally:
        for child in running:
            child.process.kill()
            child.process.wait()
