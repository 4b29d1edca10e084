"""The players of a run: both networks, the generator's average, both optimisers, the game's memory; and their form in
a checkpoint.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from adversarial import memory
from adversarial.compiled import with_slope
from adversarial.games import Memory
from utils.config.sections import Config, OptimizerConfig, penalised_slope
from utils.errors import UserError
from utils.training import average as ema
from utils.training import checkpoint
from utils.training.checkpoint import Checkpoint, Tensors
from utils.training.memory import keepers
from utils.training.processes import memory_format
from utils.training.sync_batchnorm import synchronise

WEIGHTS = ("ema", "raw", "best")  # the average, the last step's, the average at the step that was chosen
State = dict[str, Any]
Networks = Callable[[Config, State], tuple[nn.Module, nn.Module]]


@dataclass(frozen=True)
class Players:
    """Networks without any wrapper, and what goes with them; ``memory`` is the game's."""

    generator: nn.Module
    critic: nn.Module
    average: nn.Module
    optimizers: dict[str, torch.optim.Optimizer]
    memory: Memory

    def tensors(self) -> Tensors:
        """Everything that training changes, by file name."""
        return {
            **self.networks(),
            "generator_optimizer": checkpoint.optimizer_tensors(self.optimizers["generator"], self.generator),
            "critic_optimizer": checkpoint.optimizer_tensors(self.optimizers["critic"], self.critic),
            **({"memory": self.memory} if self.memory else {}),
        }

    def networks(self) -> Tensors:
        """The networks alone, by file name."""
        return {name: dict(module.state_dict()) for name, module in self._networks().items()}

    def with_raw_weights(self) -> "Players":
        """The same with the generator's own weights in the place of its average."""
        return replace(self, average=self.generator.eval())

    def restore(self, saved: Checkpoint) -> None:
        """Take over a checkpoint's tensors; nothing is changed unless all of them fit."""
        networks = self._check_networks(saved)
        for name, optimizer in self.optimizers.items():
            moments = {f"{_moment(optimizer)}/{key}" for key, p in networks[name].named_parameters() if p.requires_grad}
            stepped = saved.state["step"] > len(saved.state.get("skipped", ())) and _moment(optimizer)
            if stepped and not moments <= saved.tensors.get(f"{name}_optimizer", {}).keys():
                raise UserError(f"{saved.path}/{name}_optimizer.safetensors lacks moments of the {name}'s parameters.")
        if lacking := self.memory.keys() ^ saved.tensors.get("memory", {}).keys():
            raise UserError(f"{saved.path}/memory.safetensors does not fit the game: {', '.join(sorted(lacking))}.")
        self.load_tensors(saved.tensors)
        for name, optimizer in self.optimizers.items():
            checkpoint.load_optimizer(optimizer, networks[name], saved.tensors.get(f"{name}_optimizer", {}))
        for name, value in self.memory.items():
            value.copy_(saved.tensors["memory"][name])

    def load_networks(self, saved: Checkpoint) -> None:
        """Take over a checkpoint's networks alone; nothing is changed unless all of them fit."""
        self._check_networks(saved)
        self.load_tensors(saved.tensors)

    def load_tensors(self, tensors: Tensors) -> None:
        """Set the networks to what ``networks`` gave."""
        for name, module in self._networks().items():
            module.load_state_dict(tensors[name])

    def adapt(self, learning_rates: dict[str, float], betas: tuple[float, float]) -> None:
        """Give each player's optimiser its learning rate and, where it is Adam, β1 and β2."""
        for player, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = learning_rates[player]
                if "betas" in group:
                    group["betas"] = betas

    def _check_networks(self, saved: Checkpoint) -> dict[str, nn.Module]:
        for name, module in self._networks().items():
            checkpoint.check_fit(module, saved.tensors.get(name, {}), f"{saved.path}/{name}.safetensors")
        return self._networks()

    def _networks(self) -> dict[str, nn.Module]:
        return {"generator": self.generator, "critic": self.critic, "generator_ema": self.average}


def build(config: Config, generator: nn.Module, critic: nn.Module, device: torch.device) -> Players:
    """Networks on their device, the generator's average, and optimisers as ``config`` says."""
    for network in (generator, critic):
        network.to(device, memory_format=memory_format(config))
    optimizers = {
        "generator": _optimizer(config.optimizer, generator, config.optimizer.generator_lr),
        "critic": _optimizer(config.optimizer, critic, config.optimizer.critic_lr),
    }
    return Players(generator, critic, ema.averaged(generator), optimizers, memory.start(keepers(config), device))


def _optimizer(config: OptimizerConfig, network: nn.Module, lr: float) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if config.name == "sgd":
        return torch.optim.SGD(parameters, lr, config.momentum, weight_decay=config.weight_decay, fused=True)
    return torch.optim.Adam(parameters, lr, tuple(config.betas), config.eps, config.weight_decay, fused=True)


def _moment(optimizer: torch.optim.Optimizer) -> str | None:
    """The name of a tensor that the optimiser keeps for every parameter; None where it keeps none."""
    if isinstance(optimizer, torch.optim.Adam):
        return "exp_avg"
    return "momentum_buffer" if optimizer.defaults["momentum"] else None


def wrapped(config: Config, players: Players, accelerator: Accelerator) -> list[nn.Module]:
    """Generator and critic as the update rules call them: compiled if asked for, and in step with other processes.

    Raises UserError where ``penalty.clip`` would reach what the critic's weights are made of, and not the weights.
    """
    if config.penalty.clip and any(is_parametrized(module) for module in players.critic.modules()):
        raise UserError(
            f"penalty.clip={config.penalty.clip} keeps weights small that spectral norm then scales up again; use "
            "penalty.clip=0 or model.critic_norm=none."
        )
    if config.train.sync_batchnorm and accelerator.num_processes > 1:
        for network in (players.generator, players.critic):
            synchronise(network)
    if config.train.compile:  # in place: the names in checkpoints stay as they are
        players.generator.compile()
        if penalised_slope(config):
            # Under DistributedDataParallel graphs are cut at its buckets, and one with a derivative inside cannot be.
            torch._dynamo.config.optimize_ddp = False
            players.critic.forward = with_slope(players.critic)
        else:
            players.critic.compile()
    return [accelerator.prepare(network) for network in (players.generator, players.critic)]


def load(config: Config, folder: Path, networks: Networks, warn: Callable[[str], None]) -> tuple[Players, State]:
    """The players of the newest checkpoint in ``folder`` and its state.

    Needs no data set: the checkpoint knows the sizes that ``networks`` needs.
    """
    saved = checkpoint.newest(folder, warn)
    if saved is None:
        raise UserError(f"{folder} holds no checkpoint yet: train first, or wait for the first one (checkpoint.every).")
    device = "cuda" if torch.cuda.is_available() and config.run.device != "cpu" else "cpu"
    players = build(config, *networks(config, saved.state), torch.device(device))
    players.load_networks(saved)
    return players, saved.state


def first_not_finite(tensors: Tensors) -> str | None:
    """Name of a tensor with NaN or Inf, or None."""
    for group, named in tensors.items():
        for name, value in named.items():
            if not bool(torch.isfinite(value).all()):
                return f"{group}: {name}"
    return None
