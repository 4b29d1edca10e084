"""The update rules and the textbook loop, side by side: FLOPs counted, time measured in turns (A B C A B C ...).

    python benchmarks/update_rules.py                       # DCGAN pair of 32 pixels on the CPU or the GPU there is
    python benchmarks/update_rules.py --precision bf16 --width 256 --batch 256

Prints a Markdown table; ``benchmarks/update_rules.md`` holds committed ones. A step is forwards, backwards and both
Adam steps; each time is the median over ``--rounds`` turns of ``--steps`` steps, and each ratio the median of the
ratios within a turn, so that a drift of the machine's speed cancels.
"""

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch.nn.functional import softplus
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent.parent))

from adversarial.draws import Draw
from adversarial.games import Batch, GenerationGame
from adversarial.objectives import OBJECTIVES
from adversarial.rules import RULES
from models import dcgan
from utils.training.processes import make_deterministic

LATENT = 100


class Match:
    """A DCGAN pair with its optimisers, one real batch, and draws that change with every step."""

    def __init__(self, options: argparse.Namespace, together: bool):
        torch.manual_seed(0)
        self.device, self.size, self.step = torch.device(options.device), options.batch, 0
        layout = torch.contiguous_format if options.nchw else torch.channels_last
        config = dcgan.Config(
            latent_dim=LATENT, generator_width=options.width, critic_width=options.width, generator_norm="batch"
        )
        shape = (3, options.resolution, options.resolution)
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


def flops(play: Callable[[Match], None], match: Match) -> int:
    """FLOPs of one step."""
    counter = FlopCounterMode(display=False)
    counter.mod_tracker.__enter__ = lambda: None  # it cannot follow a gradient taken at a module's very input
    counter.mod_tracker.__exit__ = lambda *_: None
    with counter:
        play(match)
    return counter.get_total_flops()


def seconds(play: Callable[[Match], None], match: Match, steps: int) -> float:
    """Mean seconds of a step."""
    wait = torch.cuda.synchronize if match.device.type == "cuda" else lambda: None
    wait()
    begin = time.perf_counter()
    for _ in range(steps):
        play(match)
    wait()
    return (time.perf_counter() - begin) / steps


def main() -> None:
    """Measure and print."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    words.add_argument("--resolution", type=int, default=32, choices=dcgan.RESOLUTIONS)
    words.add_argument("--width", type=int, default=64, help="channels at half the image size")
    words.add_argument("--batch", type=int, default=64)
    words.add_argument("--precision", choices=("no", "bf16"), default="no")
    words.add_argument("--compile", action="store_true", help="torch.compile both networks")
    words.add_argument("--deterministic", action="store_true", help="as run.deterministic=true: what it costs on a GPU")
    words.add_argument("--nchw", action="store_true", help="contiguous instead of channels_last memory")
    words.add_argument("--rounds", type=int, default=15)
    words.add_argument("--steps", type=int, default=4)
    options = words.parse_args()
    if options.deterministic:
        make_deterministic()

    matches = {name: Match(options, together=name != "simultaneous") for name in CONTESTANTS}  # as on GPUs
    times: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    with torch.autocast(options.device, torch.bfloat16, enabled=options.precision == "bf16"):
        counted = (
            {name: flops(play, matches[name]) for name, play in CONTESTANTS.items()} if not options.compile else {}
        )
        for name, play in CONTESTANTS.items():  # warm-up
            seconds(play, matches[name], 3)
        for _ in tqdm(range(options.rounds), desc="rounds", disable=None):
            for name, play in CONTESTANTS.items():
                times[name].append(seconds(play, matches[name], options.steps))
    report(options, counted, times)


def report(options: argparse.Namespace, counted: dict[str, int], times: dict[str, list[float]]) -> None:
    """A Markdown table with the machine, the versions and the command."""
    device = torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    print(f"Machine: {platform.machine()}, {device}. {versions}. Seed 0.")
    print(f"Command: `{' '.join(['python benchmarks/update_rules.py', *sys.argv[1:]])}`")
    print("\n| step | GFLOP | FLOPs / single pass | ms, median | time / single pass, median (quartiles) |")
    print("|---|---:|---:|---:|---:|")
    base = times["single pass"]
    for name, measured in times.items():
        ratios = [a / b for a, b in zip(measured, base, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        count = f"{counted[name] / 1e9:.2f} | {counted[name] / counted['single pass']:.3f}" if counted else "- | -"
        print(
            f"| {name} | {count} | {1e3 * statistics.median(measured):.1f} | {middle:.2f} ({low:.2f} to {high:.2f}) |"
        )


if __name__ == "__main__":
    main()
