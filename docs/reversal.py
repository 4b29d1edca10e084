"""Plain gradient reversal is the minimax case of the single pass. ``python -m docs.reversal`` prints the difference."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy, softplus

from adversarial.domains import AdaptationGame, Prediction
from adversarial.draws import Draw
from adversarial.games import Batch
from adversarial.objectives import OBJECTIVES
from adversarial.passes import Strengths
from adversarial.reversal import gradient_reversal
from adversarial.rules import single_pass


class Recogniser(nn.Module):
    """Features and a classifier; any number of batches, a prediction each."""

    def __init__(self):
        super().__init__()
        self.features, self.head = nn.Sequential(nn.Linear(2, 16), nn.Tanh()), nn.Linear(16, 3)

    def forward(self, *batches):
        return tuple(Prediction((f := self.features(x),), self.head(f)) for x in batches)


class Critic(nn.Module):
    """Scores of features: source above 0, target below."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1), nn.Flatten(0))

    def forward(self, features):
        return (self.layers(features),)


def dann_by_reversal(F: Recogniser, D: Critic, source, label, target, lambda_: float) -> None:
    """DANN as most code has it (Ganin et al. 2016): one loss, and the features pass through a reversal layer."""
    (of_source, of_target) = F(source, target)
    (real,), (fake,) = (D(gradient_reversal(p.layers[-1], lambda_)) for p in (of_source, of_target))
    loss = cross_entropy(of_source.logits, label) + softplus(-real).mean() + softplus(fake).mean()
    loss.backward()


def dann_by_single_pass(F: Recogniser, D: Critic, source, label, target, lambda_: float) -> None:
    """The same as a game: any objective can take the place of minimax, and any rule that of the single pass."""
    rounds = [(Batch(source, label, target), Draw((0,), len(source)))]
    next(single_pass(AdaptationGame(F, D), OBJECTIVES["minimax"], rounds, Strengths(coefficient=lambda_)))


def gradients(dann) -> torch.Tensor:
    """Both players' gradients after one backward pass, from the same weights and data."""
    torch.manual_seed(0)
    F, D = Recogniser(), Critic()
    dann(F, D, torch.randn(32, 2), torch.arange(32) % 3, torch.randn(32, 2) + 1, 0.7)
    return torch.cat([p.grad.flatten() for network in (F, D) for p in network.parameters()])


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    first, second = gradients(dann_by_reversal), gradients(dann_by_single_pass)
    print(f"relative difference of the gradients: {(first - second).norm() / first.norm():.1e}")
