"""The players of a run: both networks, the generator's average, both optimisers; and their form in a checkpoint."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models import FAMILIES
from utils import checkpoint, ema
from utils.checkpoint import Checkpoint, Tensors
from utils.config import Config
from utils.datasets import DataSet
from utils.errors import UserError
from utils.processes import memory_format
from utils.randomness import seeded

State = dict[str, Any]


@dataclass(frozen=True)
class Players:
    """Networks without any wrapper, and what goes with them."""

    generator: nn.Module
    critic: nn.Module
    average: nn.Module
    optimizers: dict[str, torch.optim.Optimizer]

    def tensors(self) -> Tensors:
        """Everything that training changes, by file name."""
        return {
            "generator": checkpoint.module_tensors(self.generator),
            "critic": checkpoint.module_tensors(self.critic),
            "generator_ema": checkpoint.module_tensors(self.average),
            "generator_adam": checkpoint.optimizer_tensors(self.optimizers["generator"], self.generator),
            "critic_adam": checkpoint.optimizer_tensors(self.optimizers["critic"], self.critic),
        }

    def restore(self, saved: Checkpoint) -> None:
        """Take over a checkpoint's tensors; nothing is changed unless all of them fit."""
        networks = {"generator": self.generator, "critic": self.critic, "generator_ema": self.average}
        for name, module in networks.items():
            checkpoint.check_fit(module, saved.tensors.get(name, {}), f"{saved.path}/{name}.safetensors")
        for name in self.optimizers:
            moments = {f"exp_avg/{parameter}" for parameter, _ in networks[name].named_parameters()}
            if not moments <= saved.tensors.get(f"{name}_adam", {}).keys():
                raise UserError(f"{saved.path}/{name}_adam.safetensors lacks moments of the {name}'s parameters.")
        for name, module in networks.items():
            module.load_state_dict(saved.tensors[name])
        for name, optimizer in self.optimizers.items():
            checkpoint.load_optimizer(optimizer, networks[name], saved.tensors[f"{name}_adam"])


def build(config: Config, data: DataSet, device: torch.device) -> Players:
    """Networks and optimisers as ``config`` says, initialised as a function of the seed."""
    if config.game.conditional and not data.classes:
        raise UserError(f"game.conditional=true needs class labels, and data set '{data.name}' has none.")
    generator, critic = build_networks(config, data.shape, data.classes)
    for network in (generator, critic):
        network.to(device, memory_format=memory_format(config))
    adam = config.optimizer
    optimizers: dict[str, torch.optim.Optimizer] = {
        name: torch.optim.Adam(network.parameters(), lr, tuple(adam.betas), adam.eps, fused=True)
        for name, network, lr in (("generator", generator, adam.generator_lr), ("critic", critic, adam.critic_lr))
    }
    return Players(generator, critic, ema.averaged(generator), optimizers)


def build_networks(config: Config, shape: tuple[int, ...], classes: int) -> tuple[nn.Module, nn.Module]:
    """Generator and critic for samples of ``shape``. Raises UserError if the family does not offer it."""
    family = FAMILIES[config.model.name]
    classes = classes if config.game.conditional else 0
    try:
        with seeded(config.seed, "initialisation"):
            return family.generator(config.model, shape, classes), family.critic(config.model, shape, classes)
    except ValueError as error:
        raise UserError(f"model.name={config.model.name} does not fit data.name={config.data.name}: {error}.") from None


def load_generator(config: Config, folder: Path, raw: bool, warn: Callable[[str], None]) -> tuple[nn.Module, State]:
    """The generator of the newest checkpoint in ``folder`` (its average unless ``raw``) and the checkpoint's state.

    Needs no data set: the checkpoint knows the shape of its samples.
    """
    saved = checkpoint.newest(folder, warn)
    if saved is None:
        raise UserError(f"{folder} holds no checkpoint yet: train first, or wait for the first one (checkpoint.every).")
    generator, _ = build_networks(config, tuple(saved.state["shape"]), saved.state["classes"])
    name = "generator" if raw else "generator_ema"
    checkpoint.load_module(generator, saved.tensors.get(name, {}), f"{saved.path}/{name}.safetensors")
    device = "cuda" if torch.cuda.is_available() and config.run.device != "cpu" else "cpu"
    return generator.to(device).eval(), saved.state


def first_not_finite(tensors: Tensors) -> str | None:
    """Name of a tensor with NaN or Inf, or None."""
    for group, named in tensors.items():
        for name, value in named.items():
            if not bool(torch.isfinite(value).all()):
                return f"{group}: {name}"
    return None


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Give all parameter groups a learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = value
