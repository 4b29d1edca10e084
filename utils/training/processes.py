"""Devices and processes, by Accelerate; and communication between the processes of a run."""

import ctypes
import hashlib
import os
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.utils import DistributedType
from torch import Tensor, distributed

from adversarial.draws import seed_of
from utils.config.sections import Config
from utils.data.files import reason
from utils.errors import LostProcessError, UserError, end, sentence

SUPPORTED = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
AGAIN = "then run the same command again: it goes on from the last checkpoint."
GRACE = 5  # seconds after run.timeout in which PyTorch itself may say that processes did not come


def start(config: Config) -> Accelerator:
    """The accelerator of this process. Raises UserError where the launcher and the config do not fit together."""
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    torch.set_default_dtype(torch.float64 if config.train.precision == "float64" else torch.float32)
    if config.run.deterministic:
        make_deterministic()
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated")  # Accelerate has no other option for it yet
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")  # channels_last: costs one copy
    check_environment()
    accelerator = _met(config)
    if accelerator.device.type == "cpu":
        keep_memory()
    if accelerator.distributed_type not in SUPPORTED:
        raise UserError(
            f"{accelerator.distributed_type.value} is not supported: it serves one network, and a game has two; "
            "launch with plain data parallelism (MULTI_GPU or MULTI_CPU)."
        )
    check_world(accelerator.num_processes, config.run.processes)
    parts = accelerator.num_processes * config.train.accumulate
    if config.train.batch_size % parts:
        raise UserError(
            f"train.batch_size is {config.train.batch_size}, the global batch, and must be a multiple of {parts}: "
            f"{accelerator.num_processes} processes times train.accumulate={config.train.accumulate}."
        )
    return accelerator


def keep_memory() -> None:
    """Have glibc keep blocks below 1 GiB when they are freed, for the next step, which needs blocks of the same sizes.

    Else it hands large ones back to the system and is given new, empty pages in every step: a tenth of the time of some
    networks (benchmarks/steps.md). Variables MALLOC_... in the environment are left in charge.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt") and not any(name.startswith("MALLOC_") for name in os.environ):
        trim_threshold, mmap_threshold = -1, -3  # their numbers in malloc.h
        libc.mallopt(mmap_threshold, 2**30)
        libc.mallopt(trim_threshold, 2**31 - 1)


def _met(config: Config) -> Accelerator:
    """The accelerator, once all processes have met.

    Raises UserError where they do not. What answers at MASTER_PORT may be no process of the run, and PyTorch then waits
    for ever: after run.timeout this process ends.
    """
    given = {name: os.environ.get(name, "not set") for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")}
    advice = (
        f"{', '.join(f'{name}={value}' for name, value in given.items())}: start WORLD_SIZE processes within "
        f"run.timeout={config.run.timeout} seconds, all with the address of the one whose RANK is 0 and the same free "
        "MASTER_PORT."
    )
    late = threading.Timer(config.run.timeout + GRACE, end, [f"The processes did not find each other; {advice}"])
    late.daemon = True
    if environment_number("WORLD_SIZE") > 1:
        late.start()
    try:
        return Accelerator(
            cpu=config.run.device == "cpu",
            mixed_precision="bf16" if config.train.precision == "bf16" else "no",
            kwargs_handlers=[
                # Broadcasting buffers breaks a critic's second forward. Spectral norm's are equal anyway; BatchNorm's
                # running statistics are each process's own, and the first one's are saved.
                DistributedDataParallelKwargs(broadcast_buffers=False),
                # The microsecond: Accelerate drops its own default of 600 seconds, and gloo's is 1800.
                InitProcessGroupKwargs(timeout=timedelta(seconds=config.run.timeout, microseconds=1)),
            ],
        )
    except distributed.DistError as error:
        raise UserError(f"The processes did not find each other ({reason(error)}); {advice}") from error
    except ValueError as error:
        raise UserError(
            f"The processes could not be started ({reason(error)}): mend the environment's ACCELERATE_... variables "
            "(true or false), RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT."
        ) from error
    finally:
        late.cancel()


def check_world(processes: int, wanted: int) -> None:
    """Raise UserError unless Accelerate's number of ``processes`` is the launcher's (torchrun, SLURM) and the one
    ``wanted`` (0: any).
    """
    launched = environment_number("WORLD_SIZE")
    if launched != processes:
        raise UserError(
            f"The launcher started {launched} processes, but each believes it is one of {processes}; "
            "without GPUs, set ACCELERATE_USE_CPU=1."
        )
    if wanted and wanted != processes:
        raise UserError(
            f"run.processes={wanted} was asked for and the launcher started {processes}; on CPUs use "
            f"ACCELERATE_USE_CPU=1 torchrun --nproc_per_node {wanted}."
        )
    tasks = environment_number("SLURM_STEP_NUM_TASKS")
    if tasks > 1 and processes == 1:
        raise UserError(
            f"srun started {tasks} tasks that do not know of each other: set RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR "
            "and MASTER_PORT as scripts/slurm.sh does, or start one task a node."
        )


def check_environment() -> None:
    """Raise UserError for variables of a launcher that are no numbers, or a rank that does not exist."""
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_PORT", "SLURM_STEP_NUM_TASKS"):
        environment_number(name)
    if {"RANK", "WORLD_SIZE"} <= os.environ.keys() and environment_number("RANK") >= environment_number("WORLD_SIZE"):
        raise UserError(
            f"RANK={os.environ['RANK']} must be below WORLD_SIZE={os.environ['WORLD_SIZE']}: ranks begin at 0."
        )


def environment_number(name: str) -> int:
    """The environment variable ``name`` of a launcher, 1 if it is not set. Raises UserError if it is no number."""
    text = os.environ.get(name, "1")
    if not text.strip().removeprefix("-").isdecimal():  # Accelerate's launcher may set a rank of -1
        raise UserError(f"The environment variable {name} is {text!r} and must be a whole number: mend or unset it.")
    return int(text)


def make_deterministic() -> None:
    """Make every operation give the same bits every time, on GPUs too; one that cannot raises an error.

    Costs speed on GPUs: no search for the fastest convolution, slower scatter and interpolation, and full float32
    instead of TF32. On CPUs the operations used here are deterministic anyway.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts, so before any GPU work
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def lost_somewhere(error: Exception) -> str:
    """The sentence for an error of a connection of which it is not known which process is behind it."""
    return (
        f"Another process has ended, or did not answer in time ({sentence(error)}): mend what it says, if it says "
        f"anything, {AGAIN}"
    )


class ProcessGroup:
    """Lets the processes of a run agree on what concerns all of them. A single process agrees with itself at once.

    They communicate on the CPU, over gloo and in a separate group: no GPU waits, and the group's timeout is long enough
    for one process to draw and evaluate while the others wait. ``utils/run/watch.py`` ends a wait for one that is lost.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.size, self.rank = accelerator.num_processes, accelerator.process_index
        self.device = accelerator.device
        try:
            self._group = distributed.new_group(backend="gloo", timeout=timedelta(days=7)) if self.size > 1 else None
        except distributed.DistError as error:
            raise LostProcessError(lost_somewhere(error)) from error
        self._asked: tuple[Tensor, distributed.Work] | None = None

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """The first process goes through the block while the others wait, however long a download takes."""
        if self.rank:
            self.any(False)
        try:
            yield
        finally:
            if self.rank == 0:
                self.any(False)

    def any(self, mine: bool) -> bool:
        """Whether ``mine`` is true in any process; waits for all of them."""
        if self.size == 1:
            return mine
        return bool(self._reduced(torch.tensor([int(mine)]), distributed.ReduceOp.MAX))

    def any_before(self, mine: bool) -> bool:
        """Whether ``mine`` was true in any process in the call *before* this one; the same answer in all of them.

        No process waits for another that is less than a call behind. A single process gets its present answer.
        """
        if self.size == 1:
            return mine
        before, flag = self._asked, torch.tensor([int(mine)])
        work = distributed.all_reduce(flag, distributed.ReduceOp.MAX, group=self._group, async_op=True)
        self._asked = flag, work
        if before is None:
            return False
        before[1].wait()
        return bool(before[0])

    def means(self, values: list[float]) -> list[float]:
        """The mean of each value over all processes."""
        if self.size == 1 or not values:
            return values
        total = self._reduced(torch.tensor(values, dtype=torch.float64), distributed.ReduceOp.SUM)
        return (total / self.size).tolist()

    def least(self, values: list[int]) -> list[int]:
        """The least of each value among all processes."""
        if self.size == 1 or not values:
            return values
        return self._reduced(torch.tensor(values), distributed.ReduceOp.MIN).tolist()

    def gathered(self, mine: Tensor | None) -> list[Tensor]:
        """The tensors ``[n, ...]`` of the processes, in their order, in the first process; nothing in the others.

        They are on the CPU, and differ in ``n`` alone. Where the first process has none, no other may have one.
        """
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        distributed.all_gather(lengths, torch.tensor([0 if mine is None else len(mine)]), group=self._group)
        if self.rank:
            if mine is not None:
                distributed.send(mine.contiguous(), 0, group=self._group)
            return []
        others = []
        for rank, length in enumerate(map(int, lengths)):
            if rank and length:
                others.append(mine.new_empty(length, *mine.shape[1:]))
                distributed.recv(others[-1], rank, group=self._group)
        return [] if mine is None else [mine, *others]

    def copy_of_first(self, tensors: Iterable[Tensor]) -> None:
        """Give ``tensors`` of every process the values that they have in the first."""
        for tensor in tensors if self.size > 1 else ():
            values = tensor.cpu().contiguous()
            distributed.broadcast(values, 0, group=self._group)
            tensor.copy_(values)

    def same(self, text: str) -> bool:
        """Whether ``text`` is the same in all processes."""
        number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
        low, negative_high = self.least([number, -number])
        return low == -negative_high

    def _reduced(self, values: Tensor, operation: distributed.ReduceOp) -> Tensor:
        distributed.all_reduce(values, operation, group=self._group)
        return values


def described(config: Config, accelerator: Accelerator) -> str:
    """A phrase for people: "2 processes (cuda), 32 of 64 samples each"."""
    n, size = accelerator.num_processes, config.train.batch_size
    who = f"{n} process{'es' if n > 1 else ''} ({accelerator.device.type})"
    parts = f", in {config.train.accumulate} micro-batches" if config.train.accumulate > 1 else ""
    return f"{who}, {size // n} of {size} samples each{parts}"


def own_rows(config: Config, accelerator: Accelerator) -> slice:
    """This process's rows of a global batch."""
    share = config.train.batch_size // accelerator.num_processes
    return slice(accelerator.process_index * share, (accelerator.process_index + 1) * share)


def seed_layers(config: Config, step: int, group: ProcessGroup) -> None:
    """Make what layers draw in training mode, such as dropout, a function of the step (and of the process)."""
    seed = seed_of(config.seed, "layers", step, group.rank)
    # Not torch.manual_seed, which seeds every kind of device there might be and takes a hundred times as long.
    torch.default_generator.manual_seed(seed)
    if group.device.type == "cuda":
        torch.cuda.default_generators[torch.cuda.current_device()].manual_seed(seed)
    elif group.device.type != "cpu":
        torch.get_device_module(group.device).manual_seed(seed)


def memory_format(config: Config) -> torch.memory_format:
    """The memory layout of images and convolutions."""
    return torch.channels_last if config.train.channels_last else torch.contiguous_format
