"""The Dirac-GAN (Mescheder et al. 2018): all data are 0, G makes the point θ, D(x) = w x. ``python -m docs.dirac``"""

import torch

from adversarial.draws import Draw
from adversarial.games import Batch, GenerationGame
from adversarial.objectives import OBJECTIVES
from adversarial.passes import Strengths
from adversarial.penalties import R1
from adversarial.rules import RULES


class Player(torch.nn.Module):
    def __init__(self, play):
        super().__init__()
        self.value, self.play = torch.nn.Parameter(torch.ones(1)), play

    def forward(self, x, label=None):
        return self.play(self.value, x)


def distance(rule: str, gamma: float) -> float:
    """Of (θ, w) from the solution (0, 0), the mean over steps 450 to 500: large where the players only circle."""
    G, D = Player(lambda theta, z: theta.expand(len(z), 1)), Player(lambda w, x: (w * x).squeeze(1))
    game, strengths, distances = GenerationGame(G, D, latent_dim=1), Strengths({R1(): gamma}), []
    sgd = {name: torch.optim.SGD(player.parameters(), 0.2) for name, player in (("generator", G), ("critic", D))}
    for step in range(500):
        rounds = [(Batch(x=torch.zeros(4, 1)), Draw((0, step), batch_size=4))]
        for turn in RULES[rule](game, OBJECTIVES["non_saturating"], rounds, strengths):
            for player in turn.players:
                sgd[player].step()
                sgd[player].zero_grad()
        distances.append(torch.hypot(G.value.detach(), D.value.detach()).item())
    return sum(distances[-50:]) / 50


if __name__ == "__main__":
    for rule in RULES:
        print(f"{rule:13} without penalty {distance(rule, 0):.4f}, with R1 {distance(rule, 1):.1e}")
