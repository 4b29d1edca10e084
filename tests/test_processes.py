"""Several processes on the CPU (gloo) play the same game as one, and survive what one survives."""

import errno
import hashlib
import json
import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed.run
from PIL import Image

import evaluate
import train
from tests import play_in_processes
from tests.launch import Launch, launched
from tests.runs import ROOT, arguments, assert_close, fingerprint, networks, run
from tests.test_lost_processes import train_watched
from utils.run.folder import RunFolder
from utils.run.log import records
from utils.tasks.generation import Generation
from utils.training import checkpoint
from utils.training.players import Players

# No layer sees across samples, so only rounding may differ from one process.
APART = ["model.generator_norm=none", "train.precision=float64", "optimizer.schedule=constant"]


def test_gradients_are_those_of_one_process(tmp_path):
    """Rules x penalties x objectives x micro-batches: in float64 the sums differ by their order only.

    The bound of 1e-12 is 1e4 times what a sum of 12 samples' gradients rounds, 2^-53 each (seen: 5e-16).
    """
    output = launched(tmp_path, 2, play_in_processes.main)
    errors = json.loads(next(line for line in output.splitlines() if line.startswith("{")))
    assert len(errors) > 50
    assert {case: error for case, error in errors.items() if not error <= 1e-12} == {}


def test_processes_have_the_same_parameters_after_twenty_steps(tmp_path):
    """Bit for bit, in bfloat16, with penalties, critic steps, micro-batches and BatchNorm over processes."""
    words = ["train.precision=bf16", "train.accumulate=2", "update.critic_steps=2", "train.sync_batchnorm=true"]
    run_words = arguments(tmp_path, "train.steps=20", "penalty.r1=1", "penalty.gp=1", *words)
    launched(tmp_path, 2, train_and_tell, tmp_path / "digests", run_words)
    first, second = (path.read_text() for path in sorted((tmp_path / "digests").glob("*.txt")))
    assert first == second


def train_and_tell(folder: Path, words: list[str]) -> int:
    """Train, and leave the digest of this process's parameters in a folder."""
    built, build = [], Players.build

    def noted(*given):
        built.append(build(*given))
        return built[-1]

    Players.build = noted
    code = train.main(words)
    digest = hashlib.sha256()
    for network in (built[0].generator, built[0].critic):
        for parameter in network.parameters():
            digest.update(parameter.detach().contiguous().numpy().tobytes())
    folder.mkdir(exist_ok=True)
    (folder / f"{os.environ['RANK']}.txt").write_text(digest.hexdigest())
    return code


ELASTIC = {  # the adaptive probability of augmentation moves, too
    "one": (
        1,
        [
            "update.lookahead=1",
            "update.generator_lookahead=1",
            "game.objective=relativistic",
            "penalty.r1=0.1",
            "penalty.r2=0.1",
        ],
    ),
    "four": (
        4,
        [
            "update.rule=alternating",
            "update.critic_steps=2",
            "penalty.gp=1",
            "game.conditional=true",
            "augment.name=ada",
            "augment.images=500",
            "augment.target=0.1",
        ],
    ),
}


@pytest.mark.parametrize("number", ELASTIC)
def test_a_run_of_two_processes_goes_on_in_another_number(tmp_path, number):
    """After 20 steps within 1e-9 of the undisturbed run: rounding in float64, of order 1e-16 a step, that 20 steps of
    a game may amplify, but not by seven orders of magnitude.
    """
    processes, game = ELASTIC[number]
    words = [*APART, *game, "train.batch_size=16", "train.steps=20", "checkpoint.every=8", "sample.every=0"]
    assert run(tmp_path / "whole", *words) == 0
    started = arguments(tmp_path / "parts", *words)
    launched(tmp_path, 2, train.main, [*started, "train.steps=8"])
    if processes == 1:
        assert run(tmp_path / "parts", *words, "train.accumulate=4") == 0
    else:
        launched(tmp_path, processes, train.main, started)
    assert_close(networks(tmp_path / "parts", 20), networks(tmp_path / "whole", 20), 1e-9)


def test_synchronised_batch_norm_is_elastic_too(tmp_path):
    """The generator's BatchNorm sees the whole batch at any number of processes."""
    words = ["train.precision=float64", "train.sync_batchnorm=true", "train.steps=20", "optimizer.schedule=constant"]
    assert run(tmp_path / "one", *words) == 0
    launched(tmp_path, 2, train.main, arguments(tmp_path / "two", *words))
    assert_close(networks(tmp_path / "two", 20), networks(tmp_path / "one", 20), 1e-9)


def test_two_processes_follow_one_in_a_game_of_domains(tmp_path):
    """Both domains' samples are shared out; MADA has a critic per class. Bound as above."""
    words = ["game.method=mada", "train.precision=float64", "train.steps=20", "evaluate.every=0"]
    launched(tmp_path, 2, train.main, arguments(tmp_path / "two", *words, recipe="configs/moons.yaml"))
    assert run(tmp_path / "one", *words, recipe="configs/moons.yaml") == 0
    assert_close(networks(tmp_path / "two", 20, "moons"), networks(tmp_path / "one", 20, "moons"), 1e-9)


def test_a_compiled_penalised_critic_is_not_cut_into_buckets(tmp_path, monkeypatch):
    """Of more than 1 MB, the first bucket's size. A backend without code generation spares the test a minute."""
    monkeypatch.setattr(Generation, "evaluate", lambda *_, **__: [])
    words = [*APART, "train.steps=3", "penalty.r1=1", "data.resolution=32", "data.fit=pad", "model.critic_width=40"]
    assert run(tmp_path / "plain", *words) == 0
    launched(tmp_path, 2, train_compiled, arguments(tmp_path / "compiled", *words, "train.compile=true"))
    assert_close(networks(tmp_path / "compiled", 3), networks(tmp_path / "plain", 3), 1e-9)


def train_compiled(words: list[str]) -> int:
    """Train with a critic compiled for its slope."""
    torch.compile = partial(torch.compile, backend="aot_eager")
    torch.nn.Module.compile = lambda module: None
    return train.main(words)


# --- Stopped and killed

LONG = ["train.steps=60", "checkpoint.every=3", "optimizer.schedule=constant", "sample.every=0", "log.every=10"]


def test_three_processes_killed_and_resumed_give_the_same_bits(tmp_path):
    """One of them is killed, then all. With three, the order of a sum matters: see ``train.warm_up``."""
    words = [*LONG, "train.batch_size=12"]
    launched(tmp_path, 3, train.main, arguments(tmp_path / "whole", *words))
    checkpoints = tmp_path / "killed/digits/checkpoints"
    for victims in (slice(1, 2), slice(0, 3)):
        launch = Launch(tmp_path, 3, train_watched, arguments(tmp_path / "killed", *words))
        before = set(checkpoints.glob("step-*"))
        launch.wait_for(lambda before=before: bool(set(checkpoints.glob("step-*")) - before))
        for victim in launch.processes[victims]:
            victim.kill()
        assert all(code != 0 for code in launch.end())
    launched(tmp_path, 3, train.main, arguments(tmp_path / "killed", *words))
    assert fingerprint(tmp_path / "killed") == fingerprint(tmp_path / "whole")


def test_a_signal_to_one_process_stops_all_of_them_together(tmp_path):
    """Each of them says 75; there is a checkpoint of the step at which they stopped; the rest gives the same bits."""
    words = [*LONG, "checkpoint.every=1000"]
    launch = Launch(tmp_path, 2, train.main, arguments(tmp_path / "parts", *words))
    launch.wait_for(lambda: "step 10/" in _text(tmp_path / "parts/digits/log.txt"))
    os.kill(launch.processes[1].pid, signal.SIGUSR1)
    assert launch.end() == [75, 75]
    assert len(list((tmp_path / "parts/digits/checkpoints").glob("step-*"))) == 1
    launched(tmp_path, 2, train.main, arguments(tmp_path / "parts", *words))
    launched(tmp_path, 2, train.main, arguments(tmp_path / "whole", *words))
    assert fingerprint(tmp_path / "parts") == fingerprint(tmp_path / "whole")


def test_processes_roll_back_together_while_a_save_is_being_written(tmp_path):
    """The first process writes slowly, a NaN comes meanwhile: all look for a checkpoint only once it is committed."""
    words = arguments(tmp_path, "guard.rollbacks=1", "checkpoint.every=6", "log.every=1", "optimizer.schedule=constant")
    output = launched(tmp_path, 2, train_poisoned, words)
    assert "Rolling back to step 6, to leave out step 8" in output


def train_poisoned(words: list[str]) -> int:
    """Train with a NaN in step 8 and with saves that take half a second longer."""
    save, rounds = checkpoint.save, train.rounds

    def slow(*given, **options):
        time.sleep(0.5)
        return save(*given, **options)

    def poisoned(cfg, samples, start, *more):
        for step, batches in enumerate(rounds(cfg, samples, start, *more), start):
            if step == 7:
                batches[0][0].x[0] = float("nan")
            yield batches

    checkpoint.save, train.rounds = slow, poisoned
    return train.main(words)


def test_the_last_evaluation_is_shared_and_a_signal_in_it_ends_all_with_the_same_code(tmp_path):
    """The numbers are those of one process, bit for bit, though each process has BatchNorm's statistics of its own:
    images are made and read in the same batches.
    """
    words = arguments(tmp_path, "evaluate.samples=250", "game.conditional=true")
    for rank, method in ((0, "evaluate"), (1, "share")):
        assert Launch(tmp_path, 2, train_and_signal, words, str(rank), method).end() == [75, 75]
    launched(tmp_path, 2, train_and_note_shares, tmp_path, [*words, "train.steps=24"])
    assert [_text(tmp_path / f"share-{rank}.txt") for rank in range(2)] == ["200", "50"]
    measured = {r["metric"]: r["value"] for r in records(RunFolder(tmp_path / "digits")) if r["kind"] == "metric"}
    assert evaluate.main([str(tmp_path / "digits")]) == 0
    alone = map(json.loads, _text(tmp_path / "digits/evaluations.jsonl").splitlines())
    assert measured == {record["metric"]: record["value"] for record in alone}


def train_and_signal(words: list[str], rank: str, method: str) -> int:
    """Train, with a signal to one process alone in its part of the last evaluation."""
    if os.environ["RANK"] == rank:
        setattr(Generation, method, lambda *_, **given: os.kill(os.getpid(), signal.SIGTERM))
    return train.main(words)


def train_and_note_shares(folder: Path, words: list[str]) -> int:
    """Train, and leave in a folder how many images this process has drawn of an evaluation."""
    share = Generation.share

    def noted(*given):
        found = share(*given)
        (folder / f"share-{os.environ['RANK']}.txt").write_text(str(len(found.features.x)))
        return found

    Generation.share = noted
    return train.main(words)


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_torchrun_restarts_what_was_killed(tmp_path):
    """Under the usual launcher, with --max_restarts: a killed process is replaced, and the run comes to its end."""
    launch = Launch(tmp_path, 1, torchrun, arguments(tmp_path, *LONG))
    (launcher,) = launch.processes
    checkpoints = tmp_path / "digits/checkpoints"
    launch.wait_for(lambda: bool(list(checkpoints.glob("step-*"))))
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    assert launch.end() == [0], launch.output.read_text()
    assert "Resumed from" in launch.output.read_text()
    assert (checkpoints / "step-00000060").is_dir()


def torchrun(words: list[str]) -> None:
    """Be torchrun, whose processes are forked, too.

    A shared store would still hold the addresses of the processes that were killed, and new ones may ask for them.
    """
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        del os.environ[name]
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    options = ["--nproc_per_node=2", "--max_restarts=1", "--standalone", "--start_method=fork", "--run_path"]
    torch.distributed.run.main([*options, str(ROOT / "train.py"), *words])


# --- Launched wrongly


def test_launcher_that_starts_lonely_processes_is_refused(tmp_path):
    """Without GPUs torchrun's processes each believe to be alone unless ACCELERATE_USE_CPU is set."""
    if torch.cuda.is_available():
        pytest.skip("with GPUs the processes find each other")
    output = launched(tmp_path, 1, train_lonely, arguments(tmp_path, "run.device=auto"), code=2)
    assert "ACCELERATE_USE_CPU=1" in output


def train_lonely(words: list[str]) -> int:
    """Train as torchrun starts the first of two processes."""
    os.environ["WORLD_SIZE"] = "2"
    del os.environ["ACCELERATE_USE_CPU"], os.environ["LOCAL_RANK"]
    return train.main(words)


def test_a_run_folder_that_nodes_do_not_share_is_refused(tmp_path):
    """Two processes with separate folders, as on two nodes without a common file system."""
    steady = ["optimizer.schedule=constant", "checkpoint.every=4"]
    for rank, step in enumerate((4, 8)):
        assert run(tmp_path / str(rank), f"train.steps={step}", *steady) == 0
    output = launched(tmp_path, 2, train_apart, tmp_path, steady, code=2)
    assert "put run.dir on a file system that all nodes share" in output


def test_a_process_that_cannot_read_the_checkpoint_ends_all(tmp_path):
    """Or the others would wait for it for days."""
    steady = ["optimizer.schedule=constant", "checkpoint.every=4"]
    assert run(tmp_path, "train.steps=4", *steady) == 0
    output = launched(tmp_path, 2, train_with_a_blind_second, arguments(tmp_path, *steady), code=2)
    assert output.count("cannot be read at present") == 1
    assert output.count("Another process cannot read") == 1
    assert run(tmp_path, *steady) == 0


def train_with_a_blind_second(words: list[str]) -> int:
    """Train, while the second process meets an error of the disk."""

    def fail(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    if os.environ["RANK"] == "1":
        checkpoint._read = fail
    return train.main(words)


@pytest.mark.parametrize(
    "word",
    [
        "seed={rank}", "train.steps=1{rank}", "log.every=1{rank}", "checkpoint.every=1{rank}", "evaluate.every={rank}",
        "sample.every={rank}", "guard.rollbacks={rank}", "train.accumulate=1{rank}", "run.name=r{rank}",
    ],
)  # fmt: skip
def test_another_config_on_another_node_is_refused(tmp_path, word):
    """Of runtime keys, too: they say when all processes wait for each other."""
    words = ["train.batch_size=440", word]
    output = launched(tmp_path, 2, train_apart, tmp_path, words, code=2)
    assert output.count(f"different configs ({word.partition('=')[0]}); give") == 2


def test_another_kind_of_game_on_another_node_is_refused(tmp_path):
    """The processes do not even have the same keys."""
    recipes = [str(ROOT / "configs/digits.yaml"), str(ROOT / "configs/ring.yaml")]
    output = launched(tmp_path, 2, train_recipe_of_rank, tmp_path, recipes, code=2)
    assert output.count("different configs; give") == 2


def train_recipe_of_rank(folder: Path, recipes: list[str]) -> int:
    return train.main([recipes[int(os.environ["RANK"])], f"run.dir={folder}", "run.name=r", "run.device=cpu"])


def train_apart(folder: Path, words: list[str]) -> int:
    """Train in a folder of each process's own."""
    rank = os.environ["RANK"]
    return train.main(arguments(folder / rank, *(word.format(rank=rank) for word in words)))


def test_other_data_on_another_node_are_refused(tmp_path):
    """As many images of the same names, with other pixels."""
    for rank in range(2):
        (tmp_path / f"images-{rank}").mkdir()
        for i in range(24):
            Image.new("L", (8, 8), 100 * rank + i).save(tmp_path / f"images-{rank}/{i}.bmp")
    words = ["data.name=folder", "run.name=digits", f"data.root={tmp_path}/images-{{rank}}", "data.resident_gib=0"]
    output = launched(tmp_path, 2, train_apart, tmp_path, words, code=2)
    assert output.count("The processes read different data as 'folder'") == 2
