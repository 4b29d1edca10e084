"""The players of a run: both networks, the generator's average, both optimisers, what penalties and
augmentation keep from step to step; and their form in
a checkpoint.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import reduce
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from adversarial.compiled import with_slope
from adversarial.games import Stateful
from adversarial.passes import Turn
from adversarial.penalties import Penalty
from utils.config.loading import Config, OptimizerConfig, penalised_slope
from utils.errors import UserError
from utils.training import average as ema
from utils.training import checkpoint
from utils.training.checkpoint import Checkpoint, Tensors
from utils.training.processes import memory_format
from utils.training.regularisers import penalties_of, probability_of
from utils.training.sync_batchnorm import synchronise

WEIGHTS = ("ema", "raw", "best")  # the average, the last step's, the average at the step that was chosen
State = dict[str, Any]
Networks = Callable[[Config, State], tuple[nn.Module, nn.Module]]


@dataclass(frozen=True)
class Players:
    """Networks without any wrapper, and what goes with them: the generator's average, optimisers, the penalties in use
    by name, and what moves the probability of augmentation (None where nothing does).
    """

    generator: nn.Module
    critic: nn.Module
    average: nn.Module
    optimizers: dict[str, torch.optim.Optimizer]
    penalties: dict[str, Penalty]
    probability: Stateful | None

    @property
    def stateful(self) -> list[Stateful]:
        """What keeps scalars from step to step."""
        return [*self.penalties.values(), *([] if self.probability is None else [self.probability])]

    @property
    def state(self) -> dict[str, Tensor]:
        """These scalars, by name."""
        return {name: value for keeper in self.stateful for name, value in keeper.state.items()}

    def update_state(self, step: int, turn: Turn) -> None:
        """Take in a turn whose players have moved; statistics are means over all processes."""
        for keeper in self.stateful:
            keeper.update(step, turn.players, turn.report, partial(reduce, reduction="mean"))

    def tensors(self) -> Tensors:
        """Everything that training changes, by file name."""
        return {
            **self.networks(),
            "generator_optimizer": checkpoint.optimizer_tensors(self.optimizers["generator"], self.generator),
            "critic_optimizer": checkpoint.optimizer_tensors(self.optimizers["critic"], self.critic),
            **({"scalars": self.state} if self.state else {}),
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
        # Earlier versions called the file "memory".
        scalars, state = saved.tensors.get("scalars", saved.tensors.get("memory", {})), self.state
        if lacking := state.keys() ^ scalars.keys():
            raise UserError(f"{saved.path}/scalars.safetensors does not fit the game: {', '.join(sorted(lacking))}.")
        self.load_tensors(saved.tensors)
        for name, optimizer in self.optimizers.items():
            checkpoint.load_optimizer(optimizer, networks[name], saved.tensors.get(f"{name}_optimizer", {}))
        for name, value in state.items():
            value.copy_(scalars[name])

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
    players = Players(
        generator, critic, ema.averaged(generator), optimizers, penalties_of(config), probability_of(config)
    )
    for keeper in players.stateful:
        for name, value in keeper.state.items():
            keeper.state[name] = value.to(device)
    return players


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
