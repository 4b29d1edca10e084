"""SIGKILL at random moments: does the same command, run again, end with the same bits?

    python benchmarks/faults.py                         # 100 kills over all variants, about 4 minutes on 2 CPU cores
    python benchmarks/faults.py --kills 4 --steps 40    # the short form that the tests run

Every variant of a digits run is trained once undisturbed, then again and again with a SIGKILL, until its share of the
kills is used up; then it is let through. Three kills of four come up to a tenth of a second after a random one of the
steps that are left, the fourth in the two seconds after the start. Loader workers outlive their run a little, as they
would. The sha256 of every file of the last checkpoint must be those of the undisturbed run. Where there is a GPU the
runs use it, with ``run.deterministic=true``. Prints a Markdown table; exit code 1 if any bit differs.
``benchmarks/faults.md`` holds a committed one.
"""

import argparse
import contextlib
import json
import os
import platform
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch
from torchvision.transforms.v2 import functional as tv
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent.parent))
os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # a forked process cannot use CUDA after the parent has asked for it

import train
from utils import errors
from utils.data.image_sets import digit_splits

SAVED_EVERY = 3  # steps
VARIANTS = {
    "single pass, R1, 0 workers": [],
    "single pass, R1 + R2, 2 workers": [
        "game.objective=relativistic", "penalty.r1=0.1", "penalty.r2=0.1", "data.workers=2",
    ],
    "simultaneous, critic with BatchNorm": ["update.rule=simultaneous", "model.critic_norm=batch", "penalty.r1=0"],
    "single pass, ADA": ["augment.name=ada", "augment.images=4000", "augment.target=0"],
    "alternating, 2 critic steps, spectral norm, 2 workers": [
        "update.rule=alternating", "update.critic_steps=2", "model.critic_norm=spectral", "game.objective=hinge",
        "data.workers=2",
    ],
}  # fmt: skip


def main(arguments: list[str]) -> int:
    """Parse the command line, kill, compare, print the table."""
    options = parser().parse_args(arguments)
    moments = random.Random(options.seed)
    names = [name for name in VARIANTS if options.only in name]
    print("| variant | kills | steps begun anew from | same sha256 |\n|---|---:|---|---|")
    failed = False
    with tempfile.TemporaryDirectory() as folder, tqdm(total=options.kills, disable=None, unit="kill") as bar:
        images = write_images(Path(folder) / "images")
        for i, name in enumerate(names):
            share = options.kills // len(names) + (i < options.kills % len(names))
            words = [*command(options.steps, images), *VARIANTS[name]]
            begins, same = tried(Path(folder) / str(i), words, share, moments, bar)
            tqdm.write(f"| {name} | {len(begins)} | {', '.join(map(str, begins))} | {'yes' if same else '**no**'} |")
            failed |= not same
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores"
    print(f"\n{device}, Python {platform.python_version()}, torch {torch.__version__}, seed {options.seed}.")
    return int(failed)


def command(steps: int, images: Path) -> list[str]:
    """The command line of a small digits run that saves all the time."""
    # On GPUs the bits are promised for augmentations alone that move no pixels about.
    on_gpu = ["run.deterministic=true", "augment.policy=[colour]"]
    device = on_gpu if torch.cuda.is_available() else ["run.device=cpu"]
    return [
        *device, "data.name=folder", f"data.root={images}", "data.resident_gib=0", "data.workers=0", "run.name=digits",
        f"train.steps={steps}", f"checkpoint.every={SAVED_EVERY}", "log.every=10", "sample.every=10", "sample.count=16",
        "model.generator_width=8", "model.critic_width=8", "train.batch_size=32",
    ]  # fmt: skip


def tried(folder: Path, words: list[str], kills: int, moments: random.Random, bar: tqdm) -> tuple[list[int], bool]:
    """The steps from which the killed runs had to go on, and whether the last one has the undisturbed run's bits."""
    wait(start([*words, f"run.dir={folder}/whole"]))
    steps, killed, begins = last_step(folder / "whole"), [*words, f"run.dir={folder}/killed"], []
    for _ in range(kills):
        process = start(killed)
        sleep(folder / "killed", steps, moments)
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        begins.append(last_step(folder / "killed"))
        if finished(folder / "killed"):
            os.rename(folder / "killed", folder / f"done-{len(begins)}")  # killed so late that it had ended: once more
        bar.update()
    wait(start(killed))
    ends = [path / "digits" for path in (*folder.glob("done-*"), folder / "killed")]
    return begins, all(digests(end) == digests(folder / "whole/digits") for end in ends)


def sleep(run: Path, steps: int, moments: random.Random) -> None:
    """Until a random moment of a run that has just been started."""
    if moments.random() < 0.25:
        time.sleep(moments.uniform(0, 2))
        return
    step = moments.uniform(last_step(run), steps)
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
    """Raise RuntimeError unless the process ends well."""
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if code:
        raise RuntimeError(f"A run that nobody disturbed ended with code {code}.")


def last_step(folder: Path) -> int:
    """The step of a run's newest checkpoint; 0 without one."""
    steps = [int(path.name.removeprefix("step-")) for path in (folder / "digits/checkpoints").glob("step-*")]
    return max(steps, default=0)


def finished(folder: Path) -> bool:
    """Whether a run has come to its end."""
    metrics = folder / "digits/metrics.jsonl"
    return metrics.is_file() and '"finished"' in metrics.read_text()


def digests(run: Path) -> dict[str, str]:
    """The sha256 of every file of a run's last checkpoint."""
    manifest = json.loads((run / f"checkpoints/step-{last_step(run.parent):08d}/manifest.json").read_text())
    return {name: entry["sha256"] for name, entry in manifest.items()}


def write_images(folder: Path) -> Path:
    """The training digits as PNG files, for runs that stream them."""
    folder.mkdir()
    for i, image in enumerate(digit_splits()[0][0]):
        tv.to_pil_image(image).save(folder / f"{i:04d}.png")
    return folder


def parser() -> argparse.ArgumentParser:
    """The command line."""
    words = argparse.ArgumentParser(description="Kill runs at random moments and compare the bits at their end.")
    words.add_argument("--kills", type=int, default=100, help="over all variants (default: 100)")
    words.add_argument("--steps", type=int, default=300, help="length of a run (default: 300)")
    words.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    words.add_argument("--only", default="", help="variants whose names contain this")
    return words


if __name__ == "__main__":
    torch.set_num_threads(1)
    errors.run(main)
