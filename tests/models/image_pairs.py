"""What every pair of image networks must offer, for the tests of its family."""

import torch
from torch import Tensor, nn

from adversarial.coupling import couples_samples
from adversarial.games import Side
from adversarial.penalties import take_slopes


def parameters(network: nn.Module) -> int:
    """The number of its parameters."""
    return sum(p.numel() for p in network.parameters())


def away_from_zero(network: nn.Module) -> nn.Module:
    """The network with all parameters moved at random: layers that start at zero hide what lies before them."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def without_gradient(network: nn.Module, output: Tensor) -> list[str]:
    """Names of the parameters that the gradient of ``output`` does not reach, or leaves at zero."""
    output.square().sum().backward()
    return [name for name, p in network.named_parameters() if p.grad is None or not bool(p.grad.any())]


def check_second_derivative(critic: nn.Module, x: Tensor, label: Tensor | None) -> None:
    """The gradient of R1 by a parameter is its difference quotient (all of it in float64)."""

    def penalty() -> Tensor:
        leaf = x.detach().requires_grad_()
        side = Side(leaf, score=critic(leaf, label), cut=leaf)
        take_slopes([side])
        return side.slope.square().sum()

    parameter = max(critic.parameters(), key=lambda p: p.numel())
    direction = torch.randn_like(parameter)
    (exact,) = torch.autograd.grad(penalty(), parameter)
    values = []
    for step in (1e-5, -2e-5):
        with torch.no_grad():
            parameter.add_(step * direction)
        values.append(penalty().detach())
    quotient = (values[0] - values[1]) / 2e-5
    torch.testing.assert_close((exact * direction).sum(), quotient, rtol=1e-6, atol=1e-10)


def couples(critic: nn.Module, resolution: int) -> bool:
    """Whether a sample's score depends on others of its batch."""
    return couples_samples(critic, torch.randn(4, 3, resolution, resolution), None)
