"""How a game goes besides its losses: taken at the steps that end in a log line, so that the others pay nothing."""

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.parametrize import is_parametrized

from adversarial.passes import Turn
from adversarial.penalties import GENERATOR
from utils.training.players import Players

QUANTILES = (0.1, 0.5, 0.9)
MEAN_GRADIENTS = ("exp_avg", "momentum_buffer")  # what Adam and SGD with momentum call their mean of past gradients


class VitalSigns:
    """Signs of the last step of a log interval, in this process. ``read`` waits for the device, ``see`` does not."""

    def __init__(self, players: Players) -> None:
        self.players = players
        self.cosine: Tensor | None = None
        self.reversal: dict[str, Tensor] = {}  # of the samples that a single pass has reversed [N]

    def see(self, turn: Turn) -> None:
        """Take in a turn before its players move."""
        if GENERATOR in turn.players:
            self.cosine = cosine_to_past(self.players.optimizers["generator"])
            names = ("ratio", "floored") if turn.reversed else ()
            self.reversal = {name: torch.cat([getattr(side, name) for side in turn.reversed]) for name in names}

    def read(self) -> dict[str, float]:
        """The signs that this game has:

        ``generator_gradient_cosine`` between the gradient and the optimiser's mean of those before it: near 1 it goes
        one way, below 0 it turns back. ``ratio_p10``, ``_p50`` and ``_p90``: quantiles of |g_i / c_i| over the samples
        of a single pass, how much louder each is to the generator than to the critic. ``floored``: the share of them
        whose c_i was raised to the floor. ``singular_value/LAYER``: the largest one of a weight under spectral norm,
        before it is divided by it.
        """
        found = {} if self.cosine is None else {"generator_gradient_cosine": float(self.cosine)}
        if self.reversal:
            ratio = self.reversal["ratio"].abs().float()
            quantiles = torch.quantile(ratio, torch.tensor(QUANTILES).to(ratio)).tolist()
            found |= {f"ratio_p{round(100 * q)}": value for q, value in zip(QUANTILES, quantiles, strict=True)}
            found["floored"] = float(self.reversal["floored"].float().mean())
        for player in ("generator", "critic"):
            for layer, value in singular_values(getattr(self.players, player)).items():
                found[f"singular_value/{player}.{layer}"] = float(value)
        return found


def cosine_to_past(optimizer: torch.optim.Optimizer) -> Tensor | None:
    """Cosine between the gradients and the optimiser's mean of past ones, a scalar; None where it keeps none yet."""
    pairs = []
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state.get(parameter, {})
            past = next((state[name] for name in MEAN_GRADIENTS if state.get(name) is not None), None)
            if past is not None and parameter.grad is not None:
                pairs.append((parameter.grad, past))
    if not pairs:
        return None
    now, past = (list(side) for side in zip(*pairs, strict=True))
    dot = torch.stack([(a * b).sum() for a, b in pairs]).sum()
    norms = [torch.linalg.vector_norm(torch.stack(torch._foreach_norm(side))) for side in (now, past)]
    return dot / (norms[0] * norms[1]).clamp(min=torch.finfo(dot.dtype).tiny)


@torch.no_grad()
def singular_values(network: nn.Module) -> dict[str, Tensor]:
    """The largest singular value of each weight under spectral norm, by layer, as its power iteration has it."""
    found = {}
    for name, module in network.named_modules():
        if not is_parametrized(module, "weight") or not isinstance(module.parametrizations.weight[0], _SpectralNorm):
            continue
        norm, weight = module.parametrizations.weight[0], module.parametrizations.weight.original
        if weight.ndim > 1:
            found[name] = norm._u @ norm._reshape_weight_to_matrix(weight) @ norm._v
    return found
