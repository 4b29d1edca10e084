"""The optimiser of a network, and its tensors in a checkpoint."""

import torch
from torch import Tensor, nn

from adversarial.optimizers import OPTIMIZERS
from utils.config.sections import OptimizerConfig


def build(config: OptimizerConfig, network: nn.Module, lr: float) -> torch.optim.Optimizer:
    """The optimiser that ``config`` names, over the parameters of ``network`` that learn."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return OPTIMIZERS[config.name](parameters, lr, config)


def tensors_of(optimizer: torch.optim.Optimizer, network: nn.Module) -> dict[str, Tensor]:
    """The optimiser's tensors, named "exp_avg/layers.0.weight": by parameter, not by position."""
    return {
        f"{key}/{name}": value
        for name, parameter in network.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
        if value is not None  # SGD's momentum_buffer without momentum
    }


def missing_after_a_step(optimizer: torch.optim.Optimizer, network: nn.Module, tensors: dict[str, Tensor]) -> set[str]:
    """What ``tensors`` lack of what ``tensors_of`` gives once the optimiser has stepped.

    What an optimiser keeps it keeps for every parameter that learns; of Adam and of SGD with momentum we know what.
    """
    kinds = {key.partition("/")[0] for key in tensors}
    if isinstance(optimizer, torch.optim.Adam):
        kinds.add("exp_avg")
    elif optimizer.defaults.get("momentum"):
        kinds.add("momentum_buffer")
    learning = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    return {f"{kind}/{name}" for kind in kinds for name in learning} - tensors.keys()


def restore(optimizer: torch.optim.Optimizer, network: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Set the optimiser's state to what ``tensors_of`` gave. Learning rates are functions of the step."""
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
