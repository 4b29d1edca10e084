"""Devices and processes, by Accelerate."""

import os

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState
from accelerate.utils import DistributedType

from utils.config import Config
from utils.errors import UserError
from utils.randomness import seed_of

SUPPORTED = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


def start(config: Config) -> Accelerator:
    """The accelerator of this process. Raises UserError where the launcher and the config do not fit together."""
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    accelerator = Accelerator(
        cpu=config.run.device == "cpu",
        mixed_precision=config.train.precision,
        # Broadcasting buffers breaks a critic's second forward. Spectral norm's are equal anyway; BatchNorm's running
        # statistics are each process's own, and the first one's are saved.
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )
    if accelerator.distributed_type not in SUPPORTED:
        raise UserError(
            f"{accelerator.distributed_type.value} is not supported: it serves one network, and a game has two; "
            "launch with plain data parallelism (MULTI_GPU or MULTI_CPU)."
        )
    launched = int(os.environ.get("WORLD_SIZE", 1))
    if launched != accelerator.num_processes:
        raise UserError(
            f"The launcher started {launched} processes, but each believes it is one of {accelerator.num_processes}; "
            "without GPUs, set ACCELERATE_USE_CPU=1."
        )
    if config.train.batch_size % launched:
        raise UserError(
            f"train.batch_size is {config.train.batch_size}, the global batch, and must be a multiple of the "
            f"{launched} processes."
        )
    return accelerator


def own_rows(config: Config, accelerator: Accelerator) -> slice:
    """This process's rows of a global batch."""
    share = config.train.batch_size // accelerator.num_processes
    return slice(accelerator.process_index * share, (accelerator.process_index + 1) * share)


def seed_layers(config: Config, step: int) -> None:
    """Make what layers draw in training mode, such as dropout, a function of the step (and of the process)."""
    torch.manual_seed(seed_of(config.seed, "layers", step, PartialState().process_index))


def memory_format(config: Config) -> torch.memory_format:
    """The memory layout of images and convolutions."""
    return torch.channels_last if config.train.channels_last else torch.contiguous_format
