"""Optimisers of a player: functions of its parameters, a learning rate and ``optimizer.*`` of a config.

To add one: write its function and one line in ``OPTIMIZERS``. ``fused`` steps all parameters in one kernel.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

Parameters = list[nn.Parameter] | list[dict[str, Any]]  # or groups of them


class FusedAdam(torch.optim.Adam):
    """``torch.optim.Adam(fused=True)``: the same kernel, bits and state, called without detours.

    Adam's own ``step`` sorts the parameters by device and type, and it and ``zero_grad`` record themselves for the
    profiler: a fifth of the time of a whole step where networks are tiny (moons). Here all parameters of a group have
    one device and type. Hooks around a step are not called.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        learning = [[p for p in group["params"] if p.grad is not None] for group in self.param_groups]
        kept = [[self.state.get(p) for p in parameters] for parameters in learning]
        if any(None in states for states in kept):
            super().step()  # which also makes the state
            return
        for group, parameters, states in zip(self.param_groups, learning, kept, strict=True):
            if not parameters:
                continue
            gradients, steps = [p.grad for p in parameters], [state["step"] for state in states]
            moments = [[state[name] for state in states] for name in ("exp_avg", "exp_avg_sq")]
            beta1, beta2 = group["betas"]
            torch._foreach_add_(steps, 1)
            torch._fused_adam_(
                parameters, gradients, *moments, [], steps, lr=group["lr"], beta1=beta1, beta2=beta2,
                weight_decay=group["weight_decay"], eps=group["eps"], amsgrad=False, maximize=False,
            )  # fmt: skip

    step.hooked = True  # otherwise PyTorch wraps it to record it for the profiler

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None


def adam(parameters: Parameters, lr: float, settings: Any) -> Optimizer:
    """Kingma and Ba 2015; reads ``betas``, ``eps`` and ``weight_decay``."""
    return FusedAdam(parameters, lr, tuple(settings.betas), settings.eps, settings.weight_decay, fused=True)


def sgd(parameters: Parameters, lr: float, settings: Any) -> Optimizer:
    """Stochastic gradient descent; reads ``momentum`` and ``weight_decay``."""
    return torch.optim.SGD(parameters, lr, settings.momentum, weight_decay=settings.weight_decay, fused=True)


OPTIMIZERS: dict[str, Callable[[Parameters, float, Any], Optimizer]] = {"adam": adam, "sgd": sgd}
