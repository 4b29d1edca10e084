"""What a training step costs beside other people's loops, and what of it is spent outside the networks.

    python benchmarks/steps.py                                  # every case, on the GPU if there is one
    python benchmarks/steps.py --only moons ring --threads 1 --rounds 40
    python benchmarks/steps.py --only DCGAN-64 --beside train.precision=bf16
    python benchmarks/steps.py --only DCGAN-64 --change model.critic_width=256 --beside train.compile=true

Everything is timed in one process and in turns (A B C A B C ...), so that a drift of the machine's speed cancels: our
own step as ``train.loop`` takes it (batch, update rule, norms, average), under every update rule that suits the critic;
the update rule alone, a single pass on one batch without what our loop does around it; the loops of
``benchmarks/peers.py``; and the networks alone, which are the forwards, backwards and Adam steps of a single pass on
ready-made tensors. All have the same networks, layout and data (noise of the recipe's size), and Adam: PyTorch's own
fused one in the loops of others.
On CPUs times are CPU time, on a GPU wall time. The matmul's rate is that of a large square one in the loop's precision:
with it goes what share of its peak the machine gives. Prints Markdown; ``benchmarks/steps.md`` holds committed tables.
"""

import argparse
import os
import platform
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that spin while they wait would count as CPU time

import torch
from accelerate.state import AcceleratorState
from torch import Tensor
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent.parent))

import train
from adversarial.optimizers import FusedAdam
from benchmarks import peers
from benchmarks.speed import flops, matmul_rate, seconds
from utils.config import loading
from utils.config.sections import Config
from utils.data.samples import Resident
from utils.run.recorder import Recorder
from utils.tasks.registry import task_of
from utils.training import processes, values
from utils.training.players import Players
from utils.training.processes import ProcessGroup

ROOT = Path(__file__).parent.parent
SAMPLES = 2048  # in the made-up data
RULE_ALONE, ALONE = "update rule alone", "networks alone"
RULES = {
    "single pass": ["update.rule=single_pass", "update.lookahead=0"],
    "simultaneous": ["update.rule=simultaneous", "update.lookahead=0"],
    "alternating, reused fakes": ["update.rule=alternating", "update.reuse_fakes=true", "update.lookahead=0"],
    "alternating, fresh fakes": ["update.rule=alternating", "update.lookahead=0"],
}


@dataclass(frozen=True)
class Case:
    """A recipe with some keys changed, the shape and classes of its samples, and the loops to compare with."""

    recipe: str
    shape: tuple[int, ...]
    loops: dict[str, Callable[[peers.Loop], None]]
    changes: list[str] = field(default_factory=list)
    classes: int = 0


GAN_LOOPS = {"textbook": peers.textbook, "two-stage": peers.two_stage, "one-stage": peers.one_stage}
R3GAN_LOOPS = {"by hand": peers.shared_slope, "two-stage": peers.two_stage}
R3GAN = [
    "game.conditional=false", "augment.name=none", "burn_in.augment_p=null", "train.precision=no",
    "train.batch_size=16",
]  # fmt: skip
CASES = {
    "moons": Case("moons", (2,), {"by hand": peers.domains_by_hand}, classes=2),
    "moons, DANN": Case(
        "moons", (2,), {"plain DANN": peers.dann}, ["penalty.r1=0", "penalty.r2=0", "game.objective=minimax"], classes=2
    ),
    "LeNet, DANN": Case(
        "mnist_usps", (1, 28, 28), {"plain DANN": peers.dann}, ["update.schedule=constant"], classes=10
    ),
    "ring": Case("ring", (2,), {"by hand": peers.shared_slope, "two-stage": peers.two_stage}),
    "digits": Case("digits", (1, 8, 8), GAN_LOOPS),
    "DCGAN-32": Case(
        "cifar10_dcgan", (3, 32, 32), GAN_LOOPS, ["model.critic_norm=none", "train.batch_size=32"]
    ),
    "DCGAN-64": Case("cifar10_dcgan", (3, 64, 64), GAN_LOOPS, ["model.critic_norm=none", "train.batch_size=16"]),
    "SNGAN-32": Case(
        "cifar10_sngan", (3, 32, 32), {"two-stage": peers.two_stage, "one-stage": peers.one_stage},
        ["model.generator_width=16", "model.critic_width=16", "update.critic_steps=1", "train.batch_size=16"],
    ),
    "R3GAN-32": Case("cifar10_r3gan", (3, 32, 32), R3GAN_LOOPS, [*R3GAN, "model.widths=[32,32,32,32]"]),
    "R3GAN-64": Case("cifar10_r3gan", (3, 64, 64), R3GAN_LOOPS, [*R3GAN, "model.widths=[32,32,32,32,32]"]),
}  # fmt: skip


class Ours:
    """A run of ``train.py`` without its folder, one step at a time."""

    def __init__(self, case: Case, options: argparse.Namespace, rule: list[str]):
        device = ["run.device=cpu"] if options.device == "cpu" else []
        words = [*case.changes, *options.change, *rule, *device]
        self.config: Config = loading.load(ROOT / f"configs/{case.recipe}.yaml", words)
        self.dtype = torch.bfloat16 if self.config.train.precision == "bf16" else torch.float32
        self.config.run.threads = 0
        AcceleratorState._reset_state(True)  # it would refuse a second precision in one process
        accelerator = processes.start(self.config)
        self.data, task = made_up(case), task_of(self.config)
        networks = task.networks(self.config, task.sizes(self.data))
        self.players = Players.build(self.config, *networks, accelerator.device)
        self.game = task.game(self.config, self.players, self.data, accelerator)
        self.feed = train.feed_of(self.config, self.data, accelerator, 0)
        self.recorder = Recorder(self.config, task, self.players, None, ProcessGroup(accelerator), 0)
        self.done = 0

    def __call__(self) -> None:
        train.train_step(self.config, self.game, self.players, next(self.feed), self.recorder, self.done)
        self.done += 1
        if self.done % self.config.log.every == 0:
            self.recorder.write(self.done)


class RuleAlone(Ours):
    """A single pass and its optimisers on one batch: nothing is read, seeded, scheduled, watched, logged, averaged."""

    def __init__(self, case: Case, options: argparse.Namespace):
        super().__init__(case, options, RULES["single pass"])
        self.batches, self.strengths = next(self.feed), values.strengths_at(self.config, self.players.penalties, 0)

    def __call__(self) -> None:
        for turn in train.turns(self.config, self.game, self.batches, self.strengths):
            for player in turn.players:
                self.players.optimizers[player].step()
                self.players.optimizers[player].zero_grad()


class Theirs:
    """One of the loops of ``peers``, in float32."""

    dtype = torch.float32

    def __init__(self, case: Case, options: argparse.Namespace, step: Callable[[peers.Loop], None]):
        ours = Ours(case, options, [])
        config, self.step = ours.config, step
        optimizers = ours.players.optimizers
        if step is not peers.networks_alone:  # others take PyTorch's own
            optimizers = {player: pytorchs(optimizer) for player, optimizer in optimizers.items()}
        device = next(ours.players.generator.parameters()).device
        data = [None if x is None else x.to(device) for x in (ours.data.train.x, ours.data.train.label)]
        target = None if ours.data.target is None else ours.data.target.x.to(device)
        self.loop = peers.Loop(
            ours.game.generator, ours.game.critic, optimizers, *data, target, config.train.batch_size,
            getattr(config.model, "latent_dim", 0), peers.LOSSES.get(config.game.objective), config.penalty.r1,
            config.penalty.r2, config.update.coefficient,
        )  # fmt: skip

    def __call__(self) -> None:
        self.step(self.loop)


def pytorchs(adam: FusedAdam) -> torch.optim.Adam:
    """PyTorch's own fused Adam with the settings of ours."""
    (group,) = adam.param_groups
    return torch.optim.Adam(group["params"], group["lr"], group["betas"], group["eps"], fused=True)


def made_up(case: Case) -> SimpleNamespace:
    """Noise of the case's size, as ``train`` knows data."""
    draw = torch.Generator().manual_seed(0)
    train, target = (noise(case.shape, draw) for _ in range(2))
    label = torch.randint(case.classes, (SAMPLES,), generator=draw) if case.classes else None
    target = Resident(target, None) if case.classes else None
    train = Resident(train, label)
    return SimpleNamespace(
        name="noise", shape=case.shape, classes=case.classes, aspect=None, train=train, target=target
    )


def noise(shape: tuple[int, ...], draw: torch.Generator) -> Tensor:
    """uint8 images or float points."""
    if len(shape) == 3:
        return torch.randint(256, (SAMPLES, *shape), generator=draw, dtype=torch.uint8)
    return torch.randn(SAMPLES, *shape, generator=draw)


def contestants(case: Case, options: argparse.Namespace) -> dict[str, Ours | Theirs]:
    """All steps of a case by name, ready to be called."""
    domains = case.classes > 0
    rules = {"single pass": RULES["single pass"]} if domains else dict(RULES)
    if options.beside:
        rules[f"single pass, {' '.join(options.beside)}"] = [*RULES["single pass"], *options.beside]
    ours = {name: Ours(case, options, rule) for name, rule in rules.items()} | {RULE_ALONE: RuleAlone(case, options)}
    loops = {name: Theirs(case, options, step) for name, step in {**case.loops, ALONE: peers.networks_alone}.items()}
    return {**ours, **loops}


def measured(case: Case, options: argparse.Namespace, what: str) -> tuple[dict[str, float], dict[str, list[float]]]:
    """By contestant: seconds that a step would take at the rate of a matmul, and that it took in every round."""
    steps = contestants(case, options)
    for step in steps.values():  # warm-up
        seconds(step, 2, options.device)
    slowest = max(seconds(step, 1, options.device) for step in steps.values())
    count = max(1, round(options.seconds / slowest))
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in tqdm(range(options.rounds), desc=what, disable=None):
        for name, step in steps.items():
            times[name].append(seconds(step, count, options.device))
    rates = {dtype: matmul_rate(options.device, dtype) for dtype in {step.dtype for step in steps.values()}}
    # PyTorch cannot count the FLOPs of compiled networks; they are those of the single pass that is not.
    compiled = {name for name, step in steps.items() if isinstance(step, Ours) and step.config.train.compile}
    work = {name: flops(steps["single pass"] if name in compiled else step) for name, step in steps.items()}
    return {name: work[name] / rates[step.dtype] for name, step in steps.items()}, times


def row(what: str, threads: int, least: dict[str, float], times: dict[str, list[float]]) -> list[str]:
    """Table lines: median time of each contestant, what share of it a matmul would take, and its ratio to our single
    pass.
    """
    base, lines = times["single pass"], []
    for name, taken in times.items():
        low, middle, high = statistics.quantiles([a / b for a, b in zip(base, taken, strict=True)], n=4)
        median = statistics.median(taken)
        share, ratio = f"{100 * least[name] / median:.0f} %", f"{middle:.2f} ({low:.2f} to {high:.2f})"
        lines.append(f"| {what} | {threads} | {name} | {1e3 * median:.2f} | {share} | {ratio} |")
    return lines


def main() -> None:
    """Measure and print."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    words.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    words.add_argument("--threads", type=int, nargs="+", default=[1], help="of the CPU")
    words.add_argument(
        "--beside", nargs="+", default=[], metavar="KEY=VALUE", help="time a single pass with these, too"
    )
    words.add_argument("--change", nargs="+", default=[], metavar="KEY=VALUE", help="for all loops, such as sizes")
    words.add_argument("--rounds", type=int, default=15)
    words.add_argument("--seconds", type=float, default=0.1, help="of the slowest contestant in a turn")
    options = words.parse_args()
    device = torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {os.cpu_count()} cores"
    print(f"Machine: {platform.machine()}, {device}. Python {platform.python_version()}, torch {torch.__version__}.")
    print(f"Command: `{' '.join(['python benchmarks/steps.py', *sys.argv[1:]])}`\n")
    print("| case | threads | step | ms, median | of matmul's rate | single pass / it, median (quartiles) |")
    print("|---|---:|---|---:|---:|---:|")
    for threads in options.threads:
        torch.set_num_threads(threads)
        for name in options.only:
            print("\n".join(row(name, threads, *measured(CASES[name], options, name))), flush=True)


if __name__ == "__main__":
    main()
