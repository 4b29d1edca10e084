"""The update rules and the textbook loop, side by side: FLOPs counted, time measured in turns (A B C A B C ...).

    python benchmarks/update_rules.py                       # DCGAN pair of 32 pixels on the CPU or the GPU there is
    python benchmarks/update_rules.py --precision bf16 --width 256 --batch 256
    python benchmarks/update_rules.py --resolution 32 64 128 --batch 16 64 --brief   # a line for each pair

Prints Markdown tables; ``benchmarks/update_rules.md`` holds committed ones. A step is forwards, backwards and both
Adam steps; each time (CPU time on a CPU, else wall time) is the median over ``--rounds`` turns of ``--steps`` steps,
and each ratio the median of the ratios within a turn, so that a drift of the machine's speed cancels.
"""

import argparse
import itertools
import os
import platform
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that spin while they wait would count as CPU time

import torch
from torch.nn.functional import softplus
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent.parent))

from adversarial.draws import Draw
from adversarial.games import Batch, GenerationGame
from adversarial.objectives import OBJECTIVES
from adversarial.rules import RULES
from benchmarks.speed import flops, matmul_rate, seconds
from models import dcgan
from utils.training.processes import keep_memory, make_deterministic

LATENT = 100


class Match:
    """A DCGAN pair with its optimisers, one real batch, and draws that change with every step."""

    def __init__(self, options: argparse.Namespace, resolution: int, size: int, together: bool):
        torch.manual_seed(0)
        self.device, self.size, self.step = torch.device(options.device), size, 0
        layout = torch.contiguous_format if options.nchw else torch.channels_last
        config = dcgan.Config(
            latent_dim=LATENT, generator_width=options.width, critic_width=options.width, generator_norm="batch"
        )
        shape = (3, resolution, resolution)
        self.generator = dcgan.Generator(config, shape, 0).to(self.device, memory_format=layout)
        self.critic = dcgan.Critic(config, shape, 0).to(self.device, memory_format=layout)
        if options.compile:
            self.generator.compile()
            self.critic.compile()
        networks = {"generator": self.generator, "critic": self.critic}
        self.optimizers = {
            name: torch.optim.Adam(network.parameters(), 2e-4, (0.5, 0.999), fused=True)
            for name, network in networks.items()
        }
        self.game = GenerationGame(self.generator, self.critic, LATENT, conditional=False, together=together)
        real = torch.rand(self.size, *shape, device=self.device) * 2 - 1
        self.batch = Batch(real.contiguous(memory_format=layout))

    def draw(self) -> Draw:
        self.step += 1
        return Draw((0, self.step), self.size, slice(None), self.device)


def play_rule(match: Match, rule: Callable) -> None:
    """One step of one of our rules."""
    for turn in rule(match.game, OBJECTIVES["non_saturating"], [(match.batch, match.draw())]):
        for player in turn.players:
            match.optimizers[player].step()
            match.optimizers[player].zero_grad()


def play_textbook(match: Match, fresh: bool) -> None:
    """The loop that most people copy: the critic is not frozen in the generator's step and collects gradients there."""
    draw = match.draw()
    fake = match.generator(draw.normal("latent", (LATENT,)))
    match.optimizers["critic"].zero_grad()
    loss = softplus(-match.critic(match.batch.x)).mean() + softplus(match.critic(fake.detach())).mean()
    loss.backward()
    match.optimizers["critic"].step()
    if fresh:
        fake = match.generator(draw.fork("generator").normal("latent", (LATENT,)))
    match.optimizers["generator"].zero_grad()
    softplus(-match.critic(fake)).mean().backward()
    match.optimizers["generator"].step()


def play_slot(match: Match) -> None:
    """The single pass by one engine call: the reversal's coefficient is a slot that is filled before the backward.

    The alternative to cutting the graph at the fakes, which ``single_pass`` does; kept here to measure it against.
    """
    fake = match.generator(match.draw().normal("latent", (LATENT,)))
    slot: list[torch.Tensor] = []
    reversed_fake = fake.view_as(fake)
    reversed_fake.register_hook(lambda gradient: gradient * slot[0])
    real_score, fake_score = match.critic(torch.cat([match.batch.x, reversed_fake])).chunk(2)
    slot.append(-torch.exp(-fake_score.detach()).reshape(-1, 1, 1, 1))  # g_i / c_i of the non-saturating loss
    (softplus(-real_score).mean() + softplus(fake_score).mean()).backward()
    for optimizer in match.optimizers.values():
        optimizer.step()
        optimizer.zero_grad()


CONTESTANTS: dict[str, Callable[[Match], None]] = {
    "single pass": partial(play_rule, rule=RULES["single_pass"]),
    "single pass, slot instead of cut": play_slot,
    "simultaneous": partial(play_rule, rule=RULES["simultaneous"]),
    "alternating, reused fakes": partial(play_rule, rule=partial(RULES["alternating"], reuse_fakes=True)),
    "alternating, fresh fakes": partial(play_rule, rule=RULES["alternating"]),
    "textbook, reused fakes": partial(play_textbook, fresh=False),
    "textbook, fresh fakes": partial(play_textbook, fresh=True),
}


def measured(options: argparse.Namespace, resolution: int, size: int) -> tuple[dict[str, int], dict[str, list[float]]]:
    """FLOPs of a step of every contestant (none of compiled ones), and its seconds in every turn."""
    steps = {  # judged in one call where ``train.py`` does
        name: partial(play, Match(options, resolution, size, together=name != "simultaneous"))
        for name, play in CONTESTANTS.items()
    }
    times: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    counted = {}
    with torch.autocast(options.device, torch.bfloat16, enabled=options.precision == "bf16"):
        if not options.compile:
            counted = {name: flops(step) for name, step in steps.items()}
        for step in steps.values():  # warm-up
            seconds(step, 3, options.device)
        for _ in tqdm(range(options.rounds), desc=f"{resolution} pixels, batch {size}", disable=None):
            for name, step in steps.items():
                times[name].append(seconds(step, options.steps, options.device))
    return counted, times


def main() -> None:
    """Measure and print."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    words.add_argument("--resolution", type=int, nargs="+", default=[32], choices=dcgan.RESOLUTIONS)
    words.add_argument("--width", type=int, default=64, help="channels at half the image size")
    words.add_argument("--batch", type=int, nargs="+", default=[64])
    words.add_argument("--precision", choices=("no", "bf16"), default="no")
    words.add_argument("--compile", action="store_true", help="torch.compile both networks")
    words.add_argument("--deterministic", action="store_true", help="as run.deterministic=true: what it costs on a GPU")
    words.add_argument("--nchw", action="store_true", help="contiguous instead of channels_last memory")
    words.add_argument("--rounds", type=int, default=15)
    words.add_argument("--steps", type=int, default=4)
    words.add_argument("--threads", type=int, default=1, help="of the CPU")
    words.add_argument("--brief", action="store_true", help="a line for each resolution and batch")
    options = words.parse_args()
    torch.set_num_threads(options.threads)
    if options.deterministic:
        make_deterministic()
    if options.device == "cpu":
        keep_memory()  # as train.py does

    device = torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {options.threads} threads"
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    print(f"Machine: {platform.machine()}, {device}. {versions}. Seed 0.")
    print(f"Command: `{' '.join(['python benchmarks/update_rules.py', *sys.argv[1:]])}`\n")
    rate = matmul_rate(options.device, torch.bfloat16 if options.precision == "bf16" else torch.float32)
    print(f"A large square matmul runs at {rate / 1e9:,.0f} GFLOP/s.\n")
    if options.brief:
        print(f"| pixels | batch | ms a sample, single pass | {' | '.join(list(CONTESTANTS)[1:])} |")
        print(f"|---:|---:|---:|{'---:|' * (len(CONTESTANTS) - 1)}")
    for resolution, size in itertools.product(options.resolution, options.batch):
        counted, times = measured(options, resolution, size)
        lines = [brief(resolution, size, times)] if options.brief else report(counted, times, rate)
        print("\n".join(lines), flush=True)


def brief(resolution: int, size: int, times: dict[str, list[float]]) -> str:
    """A table line: the time of a single pass, and its multiples that the others take."""
    base, *others = times.values()
    ratios = [statistics.median(a / b for a, b in zip(other, base, strict=True)) for other in others]
    cells = [f"{resolution}", f"{size}", f"{1e3 * statistics.median(base) / size:.2f}", *(f"{x:.2f}" for x in ratios)]
    return f"| {' | '.join(cells)} |"


def report(counted: dict[str, int], times: dict[str, list[float]], rate: float) -> list[str]:
    """The lines of a table: a contestant each. ``rate`` is the matmul's, in FLOPs a second."""
    lines = [
        "| step | GFLOP | FLOPs / single pass | of matmul's rate | ms | time / single pass, medians (quartiles) |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    base = times["single pass"]
    for name, taken in times.items():
        low, middle, high = statistics.quantiles([a / b for a, b in zip(taken, base, strict=True)], n=4)
        cells, median = ["-", "-", "-"], statistics.median(taken)
        if counted:
            count = counted[name]
            cells = [
                f"{count / 1e9:.2f}",
                f"{count / counted['single pass']:.3f}",
                f"{100 * count / median / rate:.0f} %",
            ]
        cells += [f"{1e3 * median:.1f}", f"{middle:.2f} ({low:.2f} to {high:.2f})"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
