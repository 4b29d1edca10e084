"""Run in several processes: gradients of wrapped networks beside those of one process that plays the whole batch, in
float64. Prints one JSON line: the largest relative error of every case.
"""

import copy
import json
import sys
from collections.abc import Callable, Iterator
from functools import partial

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import Tensor, nn

from adversarial.accumulation import accumulated
from adversarial.draws import Draw
from adversarial.games import Batch, GenerationGame
from adversarial.objectives import OBJECTIVES
from adversarial.passes import Strengths, Turn
from adversarial.rules import RULES
from models import dcgan
from tests.adversarial.toy_games import CLASSES, LATENT, SHAPE, mapped_game, penalties, spread
from utils.training.sync_batchnorm import synchronise

SIZE = 12  # of the global batch
SLOPES = {"none": (), "R1": ("r1",), "R1+R2": ("r1", "r2"), "GP": ("gp",)}
PENALTIES = {**SLOPES, "path": ("path",), "all": ("r1", "r2", "gp", "dragan", "consistency", "path")}
PLANS = {**RULES, "reused fakes": partial(RULES["alternating"], reuse_fakes=True)}


def networks(norm: str, conditional: bool, mapped: bool) -> tuple[nn.Module, nn.Module]:
    """A pair for images; a ``mapped`` generator has path lengths."""
    torch.manual_seed(0)
    if mapped:
        game = mapped_game(2)
        return game.generator, game.critic
    config = dcgan.Config(latent_dim=LATENT, generator_width=4, critic_width=4, generator_norm=norm)
    classes = CLASSES if conditional else 0
    pair = dcgan.Generator(config, SHAPE, classes), dcgan.Critic(config, SHAPE, classes)
    for network in pair:
        spread(network)
    return pair


def rounds(rows: slice, count: int) -> list[tuple[Batch, Draw]]:
    draws = [Draw(("test", i), SIZE, rows, torch.device("cpu")) for i in range(count)]
    labels = torch.arange(SIZE)[rows] % CLASSES
    return [(Batch(draw.normal("x", SHAPE).tanh(), labels), draw) for draw in draws]


def gradients(turns: Iterator[Turn], networks: dict[str, nn.Module]) -> list[Tensor]:
    """Of every turn's players, in their order."""
    found = []
    for turn in turns:
        for player in turn.players:
            found.append(torch.cat([p.grad.flatten() for p in networks[player].parameters()]))
            networks[player].zero_grad()
    return found


def error(accelerator: Accelerator, plan: Callable, objective: str, gamma: str, options: dict) -> float:
    conditional, together = options.get("conditional", False), "simultaneous" not in str(plan)
    generator, critic = networks(options.get("norm", "none"), conditional, options.get("mapped", False))
    twins = copy.deepcopy((generator, critic))
    if "norm" in options:
        synchronise(generator)
    steps, parts = options.get("critic_steps", 1), options.get("parts", 1)
    share = SIZE // accelerator.num_processes
    own = slice(accelerator.process_index * share, (accelerator.process_index + 1) * share)

    def play(pair: tuple[nn.Module, nn.Module], rows: slice, parts: int) -> list[Tensor]:
        game = GenerationGame(*pair, LATENT, conditional, together)
        strengths = Strengths(penalties(*PENALTIES[gamma]), 0.8)
        turns = accumulated(plan, game, OBJECTIVES[objective], rounds(rows, steps), strengths, parts)
        return gradients(turns, {"generator": pair[0], "critic": pair[1]})

    want = play(twins, slice(0, SIZE), 1)
    got = play(tuple(accelerator.prepare(network) for network in (generator, critic)), own, parts)
    return max(float((g - w).norm() / w.norm()) for g, w in zip(got, want, strict=True))


def cases() -> Iterator[tuple[str, str, str, dict]]:
    """Every rule with every penalty on slopes; every objective; micro-batches, critic steps, labels, BatchNorm; all
    penalties with and without a path length, whose forward goes past the wrapper.
    """
    for plan in PLANS:
        for gamma in SLOPES:
            yield plan, "relativistic", gamma, {}
        for objective in ("non_saturating", "hinge", "wasserstein", "least_squares", "minimax"):
            yield plan, objective, "R1+R2", {"critic_steps": 2}
        yield plan, "hinge", "GP", {"conditional": True}
        yield plan, "hinge", "R1", {"norm": "batch"}
        for gamma in ("none", "R1", "path", "all"):  # "none": a step between lazy penalties
            yield plan, "hinge", gamma, {"mapped": True}
        if plan != "reused fakes":
            for gamma in SLOPES:
                yield plan, "relativistic", gamma, {"parts": 3, "critic_steps": 2}
            yield plan, "hinge", "all", {"mapped": True, "parts": 3}


def main() -> None:
    torch.set_default_dtype(torch.float64)
    accelerator = Accelerator(cpu=True, kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)])
    errors = {
        f"{plan}, {objective}, {gamma}, {options}": error(accelerator, PLANS[plan], objective, gamma, options)
        for plan, objective, gamma, options in cases()
    }
    worst = accelerator.gather(torch.tensor(list(errors.values()))).reshape(accelerator.num_processes, -1).amax(0)
    if accelerator.is_main_process:
        sys.stdout.write(json.dumps(dict(zip(errors, worst.tolist(), strict=True))) + "\n")
    accelerator.end_training()
