"""What a run survives: kills, hostile checkpoints, every value of every key, processes that differ.

    python benchmarks/faults.py                 # all cases; the same command again resumes
    python benchmarks/faults.py --cases 2       # two cases of each kind: minutes

The kinds are in ``tests/faults/``, one file each, which says what must hold. Each case runs in a process of its own,
for at most five minutes. Results are kept in ``runs/faults/<seed>/results.jsonl``, and a case that has one is not tried
again: remove that folder to begin anew. Prints a Markdown table and the cases that failed; exit code 1 if there are
any. ``benchmarks/faults.md`` holds a committed one.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent.parent))
os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # a forked process cannot use CUDA after the parent has asked for it

from tests.faults import checkpoints, moments, processes, values, writes
from utils import errors

KINDS = {
    f"SIGKILL at random moments, {moments.KILLS} a run": moments.cases,
    "SIGKILL at the n-th write, for every n": writes.cases,
    "checkpoints of hostile content, whole by their sums": checkpoints.cases,
    "values of every key, trained for two steps": values.cases,
    "two processes with one difference": processes.cases,
}
SECONDS = 300  # that a case may take


def main(arguments: list[str]) -> int:
    """Parse the command line, try the cases, print the table."""
    options = parser().parse_args(arguments)
    folder = options.folder / str(options.seed)
    folder.mkdir(parents=True, exist_ok=True)
    results = read(folder / "results.jsonl")
    print("| kind | cases | tried | held | failed |\n|---|---:|---:|---:|---:|", flush=True)
    failed = []
    for number, (kind, cases_of) in enumerate(KINDS.items()):
        if options.only not in kind:
            continue
        shared = folder / f"shared-{number}"
        shared.mkdir(exist_ok=True)
        cases = quietly(lambda: cases_of(shared, options.seed))  # noqa: B023
        for name in tqdm(spread(cases, options.cases), desc=kind, disable=None):
            if (kind, name) not in results:
                results[kind, name] = failure(cases[name])
                write(folder / "results.jsonl", kind, name, results[kind, name])
        tried = {name: why for (of, name), why in results.items() if of == kind}
        bad = [(name, why) for name, why in tried.items() if why]
        print(f"| {kind} | {len(cases)} | {len(tried)} | {len(tried) - len(bad)} | {len(bad)} |", flush=True)
        failed += bad
    print(*(f"- `{name}`: {why}" for name, why in failed), sep="\n")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores"
    print(f"\n{device}, Python {platform.python_version()}, torch {torch.__version__}, seed {options.seed}.")
    return int(bool(failed))


def spread(names: Iterable[str], most: int) -> list[str]:
    """At most so many of the names, evenly spread over all of them."""
    names = list(names)
    count = min(most, len(names))
    return [names[i * len(names) // count] for i in range(count)]


def quietly(what: Callable[[], dict]) -> dict:
    """What a function returns; its output goes nowhere."""
    sys.stdout.flush()
    saved, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        return what()
    finally:
        sys.stdout.flush()
        os.dup2(saved, 1)


def failure(case: Callable[[Path], None]) -> str:
    """Why a case failed, in its last line; "" where it held. It runs in a process group of its own."""
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    child = os.fork()
    if child == 0:
        os.setsid()
        tqdm.set_lock(threading.RLock())  # its own is shared by processes: nobody would open it after a kill
        output = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(output, stream)
        code = 1
        try:
            case(folder)
            code = 0
        except BaseException:
            os.write(output, traceback.format_exc().encode())
        finally:
            os._exit(code)
    deadline, ended, status = time.monotonic() + SECONDS, 0, 0
    while not ended and time.monotonic() < deadline:
        time.sleep(0.01)
        ended, status = os.waitpid(child, os.WNOHANG)
    try:
        if ended and status == 0:
            return ""
        if not ended:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return f"not ended after {SECONDS} s"
        return ([f"signal {status}", *(folder / "output.txt").read_text().splitlines()])[-1][:300]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def read(path: Path) -> dict[tuple[str, str], str]:
    """The results so far: why each case of each kind failed, "" where it held."""
    lines = path.read_text().splitlines() if path.exists() else []
    found = [json.loads(line) for line in lines if line.endswith("}")]  # a kill may have cut the last one
    return {(result["kind"], result["case"]): result["failed"] for result in found}


def write(path: Path, kind: str, name: str, failed: str) -> None:
    """Add a result."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps({"kind": kind, "case": name, "failed": failed}) + "\n")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    words = argparse.ArgumentParser(description="Try what goes wrong, and count what holds.")
    words.add_argument("--cases", type=int, default=10**9, help="most cases of each kind (default: all)")
    words.add_argument("--only", default="", help="kinds whose names contain this")
    words.add_argument("--seed", type=int, default=0, help="of the moments and of the order (default: 0)")
    words.add_argument("--folder", type=Path, default=Path("runs/faults"), help="of the results")
    return words


if __name__ == "__main__":
    torch.set_num_threads(1)
    errors.run(main)
