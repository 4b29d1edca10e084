"""SIGKILL at random moments of a run that saves all the time: it must end with the bits of one that nobody killed.

Three kills of four come up to a tenth of a second after a random one of the steps that are left, the fourth in the two
seconds after the start. Loader workers outlive their run a little, as they would. Where there is a GPU the runs use it.
"""

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torchvision.transforms.v2 import functional as tv

import train
from tests.runs import ROOT, fingerprint
from utils.data.image_sets import digit_splits

KILLS = 4  # of each run
STEPS = 60
SAVED_EVERY = 3  # steps
RUNS = 2  # of each variant
VARIANTS = {
    "single pass, R1, 0 workers": [],
    "simultaneous, critic with BatchNorm": ["update.rule=simultaneous", "model.critic_norm=batch", "penalty.r1=0"],
    "single pass, R1 + R2, both ahead, 2 workers": [
        "game.objective=relativistic", "penalty.r1=0.1", "penalty.r2=0.1", "data.workers=2", "update.lookahead=1",
        "update.generator_lookahead=1",
    ],
    "single pass, ADA": ["augment.name=ada", "augment.images=4000", "augment.target=0"],
    "alternating, 2 critic steps, spectral norm, 2 workers": [
        "update.rule=alternating", "update.critic_steps=2", "model.critic_norm=spectral", "game.objective=hinge",
        "data.workers=2",
    ],
}  # fmt: skip


def cases(folder: Path, seed: int) -> dict[str, Callable[[Path], None]]:
    """Several runs of every variant."""
    images = folder / "images"
    if not images.is_dir():
        write_images(images)
    found = {}
    for variant, words in VARIANTS.items():
        for i in range(RUNS):
            moments = random.Random(f"{seed} {variant} {i}")
            whole = folder / variant.replace(" ", "-")
            found[f"{variant}: run {i + 1}"] = lambda own, words=words, whole=whole, moments=moments: survives(
                own, whole, [*command(images), *words], moments
            )
    return found


def survives(folder: Path, whole: Path, words: list[str], moments: random.Random) -> None:
    """Raise AssertionError unless a run that is killed has in the end the checkpoint of the ``whole`` one.

    That one is trained if it is not there yet.
    """
    wait(start([*words, f"run.dir={whole}"]))
    killed = [*words, f"run.dir={folder}/killed"]
    for i in range(KILLS):
        process = start(killed)
        sleep(folder / "killed", moments)
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        if finished(folder / "killed"):
            (folder / "killed").rename(folder / f"done-{i}")  # killed so late that it had ended: once more
    wait(start(killed))
    for end in (*folder.glob("done-*"), folder / "killed"):
        assert fingerprint(end) == fingerprint(whole)


def command(images: Path) -> list[str]:
    """The command line of a small digits run that saves all the time."""
    # On GPUs the bits are promised for augmentations alone that move no pixels about.
    on_gpu = ["run.deterministic=true", "augment.policy=[colour]"]
    device = on_gpu if torch.cuda.is_available() else ["run.device=cpu"]
    return [
        str(ROOT / "configs/digits.yaml"), *device, "data.name=folder", f"data.root={images}", "data.resident_gib=0",
        "data.workers=0", "run.name=digits",
        f"train.steps={STEPS}", f"checkpoint.every={SAVED_EVERY}", "log.every=10", "sample.every=10", "sample.count=16",
        "model.generator_width=8", "model.critic_width=8", "train.batch_size=32",
        "evaluate.samples=16", "evaluate.reference_samples=16",
    ]  # fmt: skip


def sleep(run: Path, moments: random.Random) -> None:
    """Until a random moment of a run that has just been started."""
    if moments.random() < 0.25:
        time.sleep(moments.uniform(0, 2))
        return
    step = moments.uniform(last_step(run), STEPS)
    while last_step(run) < step - SAVED_EVERY:
        time.sleep(0.001)
    time.sleep(moments.uniform(0, 0.1))


def start(words: list[str]) -> int:
    """Train in a forked process, which spares each run the seconds of importing PyTorch; its id."""
    process = os.fork()
    if process:
        return process
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        os._exit(train.main(words))


def wait(process: int) -> None:
    """Raise AssertionError unless the process ends well."""
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert code == 0, f"a run that nobody disturbed ended with code {code}"


def last_step(folder: Path) -> int:
    """The step of a run's newest checkpoint; 0 without one."""
    steps = [int(path.name.removeprefix("step-")) for path in (folder / "digits/checkpoints").glob("step-*")]
    return max(steps, default=0)


def finished(folder: Path) -> bool:
    """Whether a run has come to its end."""
    metrics = folder / "digits/metrics.jsonl"
    return metrics.is_file() and '"finished"' in metrics.read_text()


def write_images(folder: Path) -> None:
    """Some of the training digits as PNG files, for runs that stream them."""
    partial = folder.with_name("partial")
    partial.mkdir(exist_ok=True)
    for i, image in enumerate(digit_splits()[0][0][:256]):
        tv.to_pil_image(image).save(partial / f"{i:04d}.png")
    partial.rename(folder)
