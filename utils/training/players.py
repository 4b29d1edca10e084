"""The players of a run: both networks, the generator's average, both optimisers, and what penalties and augmentation
keep from step to step; and their form in a checkpoint.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import reduce
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from adversarial.compiled import with_slope
from adversarial.games import Stateful
from adversarial.lookahead import Lookahead, by_name
from adversarial.passes import Turn
from adversarial.penalties import Penalty
from utils.config.sections import Config, penalised_slope
from utils.errors import UserError
from utils.training import average, checkpoint, optimizers, parts
from utils.training.checkpoint import Checkpoint, Tensors
from utils.training.processes import memory_format
from utils.training.regularisers import penalties_of, probability_of
from utils.training.state import RunState, Sizes
from utils.training.sync_batchnorm import synchronise

WEIGHTS = ("ema", "raw", "best")  # the average, the last step's, the average at the step that was chosen
Networks = Callable[[Config, Sizes], tuple[nn.Module, nn.Module]]


@dataclass(frozen=True)
class Players:
    """Networks without any wrapper, and what goes with them."""

    generator: nn.Module
    critic: nn.Module
    average: nn.Module  # of the generator; in evaluation mode
    optimizers: dict[str, torch.optim.Optimizer]  # by player
    penalties: dict[str, Penalty]  # those in use, by name
    probability: Stateful | None  # what moves the probability of augmentation, if anything does
    lookahead: Lookahead

    @classmethod
    def build(cls, config: Config, generator: nn.Module, critic: nn.Module, device: torch.device) -> "Players":
        """Networks on their device, the generator's average, and optimisers as ``config`` says."""
        for network in (generator, critic):
            network.to(device, memory_format=memory_format(config))
        pair = {"generator": generator, "critic": critic}
        parts.freeze(pair, config.init.freeze)
        parts.check_names("optimizer.scale", config.optimizer.scale, pair)
        rates = {"generator": config.optimizer.generator_lr, "critic": config.optimizer.critic_lr}
        both = {player: optimizers.build(config.optimizer, player, pair[player], lr) for player, lr in rates.items()}
        penalties, probability = penalties_of(config), probability_of(config)
        unaveraged = config.ema.half_life == 0 and not config.burn_in.ema_half_life
        ema = average.averaged(generator, shared=unaveraged)
        ahead = {"generator": config.update.generator_lookahead, "critic": config.update.lookahead}
        limits = {"critic": config.penalty.clip}
        lookahead = Lookahead({player: pair[player] for player, steps in ahead.items() if steps}, limits)
        players = cls(generator, critic, ema, both, penalties, probability, lookahead)
        for keeper in players.stateful:
            for name, value in keeper.state.items():
                keeper.state[name] = value.to(device)
        return players

    @classmethod
    def load(
        cls, config: Config, folder: Path, networks: Networks, warn: Callable[[str], None]
    ) -> tuple["Players", RunState]:
        """The players of the newest checkpoint in ``folder``, without their optimisers' state, and the run's state.

        Needs no data set: the checkpoint knows the sizes that ``networks`` needs. Raises UserError if there is no
        checkpoint or none that fits.
        """
        saved = checkpoint.newest(folder, warn)
        if saved is None:
            raise UserError(
                f"{folder} holds no checkpoint yet: train first, or wait for the first one (checkpoint.every)."
            )
        device = "cuda" if torch.cuda.is_available() and config.run.device != "cpu" else "cpu"
        players = cls.build(config, *networks(config, saved.state.sizes), torch.device(device))
        for name, ours in players.networks().items():
            if name not in saved.tensors:
                raise UserError(f"{saved.path} holds no {name}.safetensors: take a checkpoint as training wrote it.")
            theirs = saved.tensors[name]
            for key, value in theirs.items():  # a run in float64 is looked at in float32
                if value.is_floating_point() and key in ours and ours[key].is_floating_point():
                    theirs[key] = value.to(ours[key].dtype)
            checkpoint.check_fit(ours, theirs, f"{saved.path}/{name}.safetensors")
        players.load_tensors(saved.tensors)
        return players, saved.state

    def tensors(self) -> Tensors:
        """Everything that training changes, by file name."""
        return {
            **self.networks(),
            "generator_optimizer": optimizers.tensors_of(self.optimizers["generator"], self.generator),
            "critic_optimizer": optimizers.tensors_of(self.optimizers["critic"], self.critic),
            **self.weights_before(),
            **({"scalars": self.state} if self.state else {}),
        }

    def weights_before(self) -> Tensors:
        """The weights from before their last step of the players that look ahead, by file name."""
        before = self.lookahead.before
        return {f"{name}_before": by_name(self._networks()[name], tensors) for name, tensors in before.items()}

    def networks(self) -> Tensors:
        """The networks alone, by file name."""
        return {name: dict(module.state_dict()) for name, module in self._networks().items()}

    def with_raw_weights(self) -> "Players":
        """The same with the generator's own weights instead of its average."""
        return replace(self, average=self.generator.eval())

    def restore(self, saved: Checkpoint) -> None:
        """Take over a checkpoint's tensors. Raises UserError, and changes nothing, unless all of them fit."""
        for name, ours in self.networks().items():
            checkpoint.check_fit(ours, saved.tensors.get(name, {}), f"{saved.path}/{name}.safetensors")
        # Optimisers that have never stepped, because every step so far was skipped, have no tensors yet.
        stepped = saved.state.step > sum(index < saved.state.step for index in saved.state.skipped)
        for name, optimizer in self.optimizers.items():
            ours = optimizers.after_a_step(optimizer, self._networks()[name]) if stepped else {}
            source = f"{saved.path}/{name}_optimizer.safetensors"
            checkpoint.check_fit(ours, saved.tensors.get(f"{name}_optimizer", {}), source)
        before = self.weights_before()
        for name, ours in before.items():
            checkpoint.check_fit(ours, saved.tensors.get(name, {}), f"{saved.path}/{name}.safetensors")
        # Earlier versions called the file "memory".
        scalars, state = saved.tensors.get("scalars", saved.tensors.get("memory", {})), self.state
        checkpoint.check_fit(state, scalars, f"{saved.path}/scalars.safetensors")
        self.load_tensors(saved.tensors)
        for name, optimizer in self.optimizers.items():
            tensors = saved.tensors.get(f"{name}_optimizer", {})  # plain SGD keeps none
            optimizers.restore(optimizer, self._networks()[name], tensors)
        for ours, theirs in [(state, scalars), *((before[name], saved.tensors[name]) for name in before)]:
            for name, value in ours.items():
                value.copy_(theirs[name])

    def load_tensors(self, tensors: Tensors) -> None:
        """Set the networks to what ``networks`` gave."""
        for name, module in self._networks().items():
            module.load_state_dict(tensors[name])
        # Earlier versions averaged all buffers, and made the unit vectors of spectral norm too short.
        average.copy_buffers(self._pairs)

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

    def update_average(self, decay: float) -> None:
        """Move the generator's average to decay · average + (1 - decay) · generator."""
        average.update(self._pairs, decay)

    @cached_property
    def _pairs(self) -> average.Pairs:
        # Found once: a walk through a small network takes longer than its average.
        return average.pairs(self.average, self.generator)

    def adapt(self, learning_rates: dict[str, float], betas: tuple[float, float]) -> None:
        """Give each player's optimiser its learning rate and, where it is Adam, β1 and β2."""
        for player, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = learning_rates[player] * group["scale"]
                if "betas" in group:
                    group["betas"] = betas

    def _networks(self) -> dict[str, nn.Module]:
        return {"generator": self.generator, "critic": self.critic, "generator_ema": self.average}


def wrapped(config: Config, players: Players, accelerator: Accelerator) -> list[nn.Module]:
    """Generator and critic as the update rules call them: compiled if asked for, and wrapped for several processes.

    Raises UserError where ``penalty.clip`` meets spectral norm: it would clip the parameters from which the critic's
    weights are computed, and not the weights.
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


def first_not_finite(tensors: Tensors) -> str | None:
    """Name of a tensor with NaN or Inf, or None."""
    for group, named in tensors.items():
        for name, value in named.items():
            if not bool(torch.isfinite(value).all()):
                return f"{group}: {name}"
    return None
