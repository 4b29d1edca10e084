"""The optimiser of a network, and its tensors in a checkpoint."""

import copy
from collections import defaultdict

import torch
from torch import Tensor, nn

from adversarial.optimizers import OPTIMIZERS
from utils.config.sections import OptimizerConfig
from utils.training.parts import groups


def build(config: OptimizerConfig, player: str, network: nn.Module, lr: float) -> torch.optim.Optimizer:
    """The optimiser that ``config`` names, over the parameters of the player's ``network`` that learn."""
    return OPTIMIZERS[config.name](groups(player, network, config.scale), lr, config)


def tensors_of(optimizer: torch.optim.Optimizer, network: nn.Module) -> dict[str, Tensor]:
    """The optimiser's tensors, named "exp_avg/layers.0.weight": by parameter, not by position."""
    return {
        f"{key}/{name}": value
        for name, parameter in network.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
        if value is not None  # SGD's momentum_buffer without momentum
    }


def after_a_step(optimizer: torch.optim.Optimizer, network: nn.Module) -> dict[str, Tensor]:
    """What ``tensors_of`` gives once the optimiser has stepped, on the meta device: names, shapes and types alone."""
    learning = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    if not learning:
        return {}
    first = next(iter(learning.values()))
    # There is no telling what an optimiser keeps but by a step: of a copy that has one small parameter of its own.
    example = nn.Parameter(torch.zeros(2, 3, dtype=first.dtype, device=first.device))
    example.grad = torch.zeros_like(example)
    probe = copy.copy(optimizer)
    probe.state, probe.param_groups = defaultdict(dict), [{**optimizer.param_groups[0], "params": [example]}]
    probe.step()
    return {
        f"{key}/{name}": torch.empty(
            parameter.shape if value.shape == example.shape else value.shape, dtype=value.dtype, device="meta"
        )
        for key, value in probe.state[example].items()
        if value is not None
        for name, parameter in learning.items()
    }


def restore(optimizer: torch.optim.Optimizer, network: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Set the optimiser's state to what ``tensors_of`` gave, which must fit (``after_a_step``).

    Learning rates are functions of the step.
    """
    parameters = dict(network.named_parameters())
    state: dict[nn.Parameter, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        kind, name = key.split("/", 1)
        parameter = parameters[name]
        # A fused step walks memory, so moments must have the parameter's own layout (channels_last).
        like = torch.empty_like(parameter, dtype=value.dtype) if value.shape == parameter.shape else value
        state.setdefault(parameter, {})[kind] = like.copy_(value).to(parameter.device)
    optimizer.state.clear()
    optimizer.state.update(state)
