"""The optimiser of a network, and its tensors in a checkpoint."""

import torch
from torch import Tensor, nn

from utils.config.loading import OptimizerConfig


def build(config: OptimizerConfig, network: nn.Module, lr: float) -> torch.optim.Optimizer:
    """Adam or SGD, fused, over the parameters of ``network`` that learn."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if config.name == "sgd":
        return torch.optim.SGD(parameters, lr, config.momentum, weight_decay=config.weight_decay, fused=True)
    return torch.optim.Adam(parameters, lr, tuple(config.betas), config.eps, config.weight_decay, fused=True)


def tensors_of(optimizer: torch.optim.Optimizer, network: nn.Module) -> dict[str, Tensor]:
    """The optimiser's tensors, named "exp_avg/layers.0.weight": by parameter, not by position."""
    return {
        f"{key}/{name}": value
        for name, parameter in network.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
        if value is not None  # SGD's momentum_buffer without momentum
    }


def required_after_a_step(optimizer: torch.optim.Optimizer, network: nn.Module) -> set[str]:
    """Names that ``tensors_of`` has at least, once the optimiser has stepped: one for every parameter that learns."""
    if isinstance(optimizer, torch.optim.Adam):
        kind = "exp_avg"
    elif optimizer.defaults["momentum"]:
        kind = "momentum_buffer"
    else:
        return set()
    return {f"{kind}/{name}" for name, parameter in network.named_parameters() if parameter.requires_grad}


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
