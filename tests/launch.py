"""Several processes on the CPU (gloo), as a launcher would start them."""

import importlib
import multiprocessing
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkProcess as Process
from pathlib import Path

from tqdm import tqdm

from tests.conftest import forget_accelerator
from utils import errors

LAZY = ("torch._dynamo", "torch.utils.tensorboard", "sklearn.datasets", "torchvision.transforms.v2")  # of every run


def forked(output: Path, main: Callable[..., int | None], *arguments, environment: Mapping[str, str] = {}) -> Process:
    """A process that calls ``main`` as a command does; what it prints is added to ``output``.

    It is forked, which spares it the seconds of imports.
    """
    for name in LAZY:
        importlib.import_module(name)
    process = multiprocessing.get_context("fork").Process(target=_begin, args=(environment, output, main, arguments))
    process.start()
    return process


class Launch:
    """A function in several processes that find each other as those of ``scripts/slurm.sh`` do."""

    def __init__(self, folder: Path, count: int, main: Callable[..., int | None], *arguments):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "1"}
        folder.mkdir(parents=True, exist_ok=True)
        self.output = folder / "output.txt"
        self.output.unlink(missing_ok=True)
        self.processes = [
            forked(self.output, main, *arguments, environment={**shared, "RANK": rank, "LOCAL_RANK": rank})
            for rank in map(str, range(count))
        ]

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


def _begin(environment: Mapping[str, str], output: Path, main: Callable[..., int | None], arguments: tuple) -> None:
    tqdm.set_lock(threading.RLock())  # its own is shared by processes: nobody would open it after a kill
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
