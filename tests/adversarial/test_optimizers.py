"""Adam without detours is PyTorch's, bit for bit."""

from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from adversarial.optimizers import FusedAdam

SETTINGS = {"betas": (0.0, 0.99), "eps": 1e-8, "weight_decay": 0.1, "fused": True}
GIVEN = [(True, True, True), (True, False, True), (False, True, False), (True, True, True), (False, False, False)]


def stepped(optimizer_of: Callable[..., torch.optim.Adam], dtype: torch.dtype) -> list[torch.Tensor]:
    """Weights and state after steps in which not every parameter has a gradient, and rates and betas change."""
    draw = torch.Generator().manual_seed(0)
    weights = [nn.Parameter(torch.randn(3, 4, generator=draw, dtype=dtype)) for _ in GIVEN[0]]
    groups = [{"params": weights[:2], "lr": 0.1}, {"params": weights[2:], "lr": 0.02}]
    optimizer = optimizer_of(groups, 0.1, **SETTINGS)
    for step, given in enumerate(GIVEN):
        optimizer.param_groups[0] |= {"lr": 0.1 / (step + 1), "betas": (0.1 * step, 0.99)}
        for weight, has_gradient in zip(weights, given, strict=True):
            gradient = torch.randn(3, 4, generator=draw, dtype=dtype)
            weight.grad = gradient if has_gradient else None
        optimizer.step()
        optimizer.zero_grad()
        assert all(weight.grad is None for weight in weights)
    return [*weights, *(value for weight in weights for _, value in sorted(optimizer.state[weight].items()))]


@pytest.mark.parametrize(("adam", "names"), [(FusedAdam, []), (torch.optim.Adam, ["Optimizer.step#Adam.step"])])
def test_a_step_is_not_recorded_for_the_profiler(monkeypatch, adam, names):
    """As PyTorch's own is. The first one, which makes the state, is left to PyTorch."""
    recorded = []
    monkeypatch.setattr(torch.autograd.profiler, "record_function", lambda name: recorded.append(name) or nullcontext())
    weight = nn.Parameter(torch.ones(2))
    optimizer = adam([weight], 0.1, **SETTINGS)
    for _ in range(2):
        recorded.clear()
        weight.grad = torch.ones(2)
        optimizer.step()
    assert recorded == names


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_and_state_are_those_of_pytorchs_adam(dtype):
    ours, theirs = stepped(FusedAdam, dtype), stepped(torch.optim.Adam, dtype)
    assert len(ours) == len(theirs) == 3 + 3 * 3
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b)
