"""Optimisers of a player: functions of its parameters, a learning rate and ``optimizer.*`` of a config.

To add one: write its function and one line in ``OPTIMIZERS``. ``fused`` steps all parameters in one kernel.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

Parameters = list[nn.Parameter] | list[dict[str, Any]]  # or groups of them


def adam(parameters: Parameters, lr: float, settings: Any) -> Optimizer:
    """Kingma and Ba 2015; reads ``betas``, ``eps`` and ``weight_decay``."""
    betas = tuple(settings.betas)
    return torch.optim.Adam(parameters, lr, betas, settings.eps, settings.weight_decay, fused=True)


def sgd(parameters: Parameters, lr: float, settings: Any) -> Optimizer:
    """Stochastic gradient descent; reads ``momentum`` and ``weight_decay``."""
    return torch.optim.SGD(parameters, lr, settings.momentum, weight_decay=settings.weight_decay, fused=True)


OPTIMIZERS: dict[str, Callable[[Parameters, float, Any], Optimizer]] = {"adam": adam, "sgd": sgd}
