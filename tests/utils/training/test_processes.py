"""The launcher and the config fit together, or it is said that they do not."""

import ctypes
import os
import socket
import threading
from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType

from adversarial.draws import seed_of
from tests.conftest import forget_accelerator
from utils.config.sections import Config
from utils.errors import LostProcessError, UserError
from utils.training import processes

LAUNCHER = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No launcher, whoever runs the tests."""
    for name in LAUNCHER:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def config() -> Config:
    config = Config()
    config.run.device = "cpu"
    return config


@pytest.fixture
def pretend(monkeypatch):
    """Stand in for an Accelerator of several processes, which would need several processes."""

    def pretend(processes_: int, launched: int | None = None, kind: DistributedType = DistributedType.MULTI_CPU):
        monkeypatch.setenv("WORLD_SIZE", str(processes_ if launched is None else launched))
        accelerator = SimpleNamespace(
            distributed_type=kind, num_processes=processes_, process_index=0, device=torch.device("cpu")
        )
        monkeypatch.setattr(processes, "Accelerator", lambda **options: accelerator)
        return accelerator

    return pretend


def refusal(config: Config) -> str:
    with pytest.raises(UserError) as caught:
        processes.start(config)
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


def test_one_process_without_a_launcher(config):
    accelerator = processes.start(config)
    assert accelerator.num_processes == 1
    assert accelerator.is_main_process
    assert accelerator.device == torch.device("cpu")
    assert processes.own_rows(config, accelerator) == slice(0, 64)


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_the_precision_is_that_of_the_config(config, precision):
    config.train.precision = precision
    assert processes.start(config).mixed_precision == precision


def test_a_launcher_that_accelerate_does_not_see_is_refused(config, monkeypatch):
    """Every one of its processes would train a separate run, all into one folder."""
    config.run.device = "auto"
    monkeypatch.setenv("WORLD_SIZE", "2")  # but no LOCAL_RANK, by which accelerate knows a launcher
    text = refusal(config)
    assert "2 processes" in text
    assert "1" in text


def test_a_launcher_of_one_is_fine(config, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert processes.start(config).num_processes == 1


def test_fewer_launched_than_believed(config, pretend):
    pretend(4, launched=2)
    assert "4" in refusal(config)


@pytest.mark.parametrize(("size", "world"), [(64, 3), (7, 2), (2, 4)])
def test_a_batch_that_cannot_be_shared_is_refused(config, pretend, size, world):
    config.train.batch_size = size
    pretend(world)
    text = refusal(config)
    assert "train.batch_size" in text
    assert str(size) in text
    assert str(world) in text


@pytest.mark.parametrize(("size", "world"), [(64, 4), (2, 2), (6, 3)])
def test_a_batch_that_can_be_shared(config, pretend, size, world):
    config.train.batch_size = size
    accelerator = pretend(world)
    assert processes.start(config) is accelerator
    rows = []
    for accelerator.process_index in range(world):
        rows += range(size)[processes.own_rows(config, accelerator)]
    assert rows == list(range(size))


@pytest.mark.parametrize("kind", [DistributedType.DEEPSPEED, DistributedType.FSDP], ids=lambda kind: kind.value)
def test_launchers_for_one_network_are_refused(config, pretend, kind):
    pretend(2, kind=kind)
    text = refusal(config)
    assert kind.value in text
    assert "MULTI_GPU" in text


@pytest.mark.parametrize("channels_last", [True, False])
def test_the_memory_format(config, channels_last):
    config.train.channels_last = channels_last
    assert processes.memory_format(config) is (torch.channels_last if channels_last else torch.contiguous_format)


def test_another_number_than_was_asked_for_is_refused(config, pretend):
    """``accelerate launch --cpu --num_processes 2`` starts one process, and nothing tells it that two were meant."""
    config.run.processes = 2
    assert "torchrun --nproc_per_node 2" in refusal(config)
    pretend(2)
    processes.start(config)


def test_tasks_of_srun_that_do_not_know_of_each_other_are_refused(config, monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    assert "scripts/slurm.sh" in refusal(config)


@pytest.mark.parametrize(("world", "parts", "fits"), [(2, 8, True), (2, 16, True), (2, 64, False), (4, 3, False)])
def test_micro_batches_must_share_the_batch_evenly(config, pretend, world, parts, fits):
    config.train.accumulate = parts
    pretend(world)
    if fits:
        processes.start(config)
    else:
        assert "train.accumulate" in refusal(config)


def test_who_plays_is_said(config, pretend):
    accelerator = pretend(2)
    accelerator.device = torch.device("cpu")
    assert processes.described(config, accelerator) == "2 processes (cpu), 32 of 64 samples each"
    config.train.accumulate = 4
    assert processes.described(config, accelerator).endswith("each, in 4 micro-batches")


def test_deterministic_settings(config):
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    config.run.deterministic = True
    try:
        processes.start(config)
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.backends.cudnn.benchmark
        assert not torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.parametrize("name", ["WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_PORT", "SLURM_STEP_NUM_TASKS"])
@pytest.mark.parametrize("text", ["x", "", "1.5", "0x1"])
def test_an_environment_that_is_no_number(config, monkeypatch, name, text):
    monkeypatch.setenv(name, text)
    assert refusal(config).startswith(f"The environment variable {name} is '{text}' and must be a whole number")


@pytest.mark.parametrize("name", ["ACCELERATE_USE_CPU", "ACCELERATE_DEBUG_MODE"])
def test_an_environment_that_is_no_truth_value(config, monkeypatch, name):
    forget_accelerator()
    monkeypatch.setenv(name, "maybe")
    assert "maybe" in refusal(config)
    forget_accelerator()


def test_a_busy_port(config, monkeypatch):
    def busy(**options):
        raise torch.distributed.DistNetworkError("The server socket has failed to listen. More.")

    monkeypatch.setattr(processes, "Accelerator", busy)
    text = refusal(config)
    assert "failed to listen)" in text
    assert "free MASTER_PORT" in text


@pytest.mark.parametrize(("rank", "size"), [("2", "2"), ("1", "1")])
def test_a_rank_that_does_not_exist(config, monkeypatch, rank, size):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    assert refusal(config).startswith(f"RANK={rank} must be below WORLD_SIZE={size}")


@pytest.mark.parametrize("rank", ["0", "1"])
def test_processes_that_do_not_come_in_time(config, monkeypatch, rank):
    """The first one waits for a second, and the second one for a first, which is not where MASTER_ADDR says."""
    forget_accelerator()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    given = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    config.run.timeout = 1
    text = refusal(config)
    assert text.startswith("The processes did not find each other (")
    assert f"RANK={rank}, WORLD_SIZE=2, MASTER_ADDR=127.0.0.1, MASTER_PORT={port}: start" in text
    assert "run.timeout=1 seconds" in text


def test_another_server_at_the_port(config, monkeypatch):
    """It takes the connection and says nothing, and PyTorch waits for ever."""
    said, ended = [], threading.Event()
    monkeypatch.setattr(processes, "end", lambda sentence: said.append(sentence) or ended.set())
    monkeypatch.setattr(processes, "GRACE", 0)
    monkeypatch.setattr(processes, "Accelerator", lambda **options: ended.wait(30))
    monkeypatch.setenv("WORLD_SIZE", "2")
    config.run.timeout = 1
    processes._met(config)
    assert said[0].startswith("The processes did not find each other; RANK=not set, WORLD_SIZE=2")


def test_layers_draw_what_a_seed_of_the_step_gives(config):
    """As PyTorch's own way of seeding would have it, which takes a hundred times as long."""
    drawn = []
    for step, rank in ((3, 0), (4, 0), (3, 0), (3, 1)):
        processes.seed_layers(config, step, SimpleNamespace(rank=rank, device=torch.device("cpu")))
        drawn.append(torch.rand(4))
    for numbers, rank in ((drawn[0], 0), (drawn[3], 1)):
        torch.manual_seed(seed_of(config.seed, "layers", 3, rank))
        assert torch.equal(numbers, torch.rand(4))
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])


class Mallinfo(ctypes.Structure):
    """What glibc's mallinfo2 returns."""

    names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    _fields_ = [(name, ctypes.c_size_t) for name in names]


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="glibc from 2.33 on tells")
@pytest.mark.parametrize("variables", [{}, {"MALLOC_MMAP_THRESHOLD_": "65536"}])
def test_freed_memory_is_kept_unless_the_environment_says_otherwise(monkeypatch, variables):
    """A block of its own from the system goes back to it when it is freed; one from the heap is kept."""
    libc = ctypes.CDLL(None)
    libc.mallinfo2.restype, libc.malloc.restype, libc.free.argtypes = Mallinfo, ctypes.c_void_p, [ctypes.c_void_p]
    for name in [name for name in os.environ if name.startswith("MALLOC_")]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    libc.malloc_trim(0)  # what earlier tests left
    libc.mallopt(-3, 65536)  # as the variable would at the start of the process
    processes.keep_memory()

    before = libc.mallinfo2().hblks
    block = libc.malloc(2**29)  # more than is free in the heap; never written, so no memory is used
    own = libc.mallinfo2().hblks - before
    libc.free(block)

    monkeypatch.undo()
    processes.keep_memory()  # for the tests that follow
    assert own == (1 if variables else 0)


def test_a_process_that_ends_while_the_group_is_made_is_told(monkeypatch):
    """As where the first one finds the run's folder in use."""

    def reset(**options):
        raise torch.distributed.DistNetworkError("Connection reset by peer\n#0 a stack of C++")

    monkeypatch.setattr(torch.distributed, "new_group", reset)
    with pytest.raises(LostProcessError, match=r"^Another process has ended, .*reset by peer.*run the same command"):
        processes.ProcessGroup(SimpleNamespace(num_processes=2, process_index=1, device=torch.device("cpu")))
