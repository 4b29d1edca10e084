"""Several processes on the CPU (gloo), as a launcher would start them."""

import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.conftest import forget_accelerator
from utils import errors


class Launch:
    """A function in several processes that find each other as those of ``scripts/slurm.sh`` do.

    They are forked, which spares each the seconds of importing PyTorch.
    """

    def __init__(self, folder: Path, count: int, main: Callable[..., int | None], *arguments):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "1"}
        folder.mkdir(parents=True, exist_ok=True)
        self.output = folder / "output.txt"
        self.output.unlink(missing_ok=True)
        fork = multiprocessing.get_context("fork")
        self.processes = []
        for rank in map(str, range(count)):
            environment = {**shared, "RANK": rank, "LOCAL_RANK": rank}
            self.processes.append(fork.Process(target=_begin, args=(environment, self.output, main, arguments)))
            self.processes[-1].start()

    def wait_for(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 200
        while not ready():
            assert not any(process.exitcode for process in self.processes), self.output.read_text()[-3000:]
            assert time.monotonic() < deadline, "it did not come to that"
            time.sleep(0.01)

    def end(self) -> list[int]:
        """Exit codes; when one process has failed the others are given a moment and killed, as launchers do."""
        while all(process.exitcode in (None, 0, 75) for process in self.processes):
            if all(process.exitcode is not None for process in self.processes):
                break
            time.sleep(0.02)
        for process in self.processes:
            process.join(timeout=10)
            if process.exitcode is None:
                process.kill()
                process.join()
        return [process.exitcode for process in self.processes]


def _begin(environment: dict[str, str], output: Path, main: Callable[..., int | None], arguments: tuple) -> None:
    handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(handle, stream)
    sys.stdout, sys.stderr = open(1, "w", buffering=1), open(2, "w", buffering=1)  # noqa: SIM115  (pytest's are not ours)
    os.environ.update(environment)
    forget_accelerator()
    errors.run(lambda _: main(*arguments))


def launched(folder: Path, count: int, main: Callable[..., int | None], *arguments, code: int = 0) -> str:
    """The output of processes that all end with ``code``."""
    launch = Launch(folder, count, main, *arguments)
    assert launch.end() == [code] * count, launch.output.read_text()[-3000:]
    return launch.output.read_text()
