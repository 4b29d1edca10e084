"""The Dirac-GAN (Mescheder et al. 2018): all data are 0, G makes the point θ, D(x) = w x. ``python -m docs.dirac``"""

import torch

from adversarial.draws import Draw
from adversarial.games import Batch, GenerationGame
from adversarial.lookahead import Lookahead
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


def course(
    rule: str, gamma: float = 0, ahead: tuple[float, float] = (0, 0), objective: str = "non_saturating"
) -> list[tuple[float, float]]:
    """(θ, w) after each of 500 steps from (1, 1), with a learning rate of 0.2 and R1 of weight ``gamma``.

    ``ahead``: how many of its last steps the critic looks ahead, and how many the generator.
    """
    G, D = Player(lambda theta, z: theta.expand(len(z), 1)), Player(lambda w, x: (w * x).squeeze(1))
    players = {"generator": G, "critic": D}
    alphas = {"critic": ahead[0], "generator": ahead[1]}
    lookahead = Lookahead({name: player for name, player in players.items() if alphas[name]})
    sgd = {name: torch.optim.SGD(player.parameters(), 0.2) for name, player in players.items()}
    game, strengths, points = GenerationGame(G, D, latent_dim=1), Strengths({R1(): gamma} if gamma else {}), []
    for step in range(500):
        rounds = [(Batch(x=torch.zeros(4, 1)), Draw((0, step), batch_size=4))]
        turns = RULES[rule](game, OBJECTIVES[objective], rounds, strengths)
        for turn in lookahead.around(turns, shared=0, alphas=alphas):
            for player in turn.players:
                sgd[player].step()
                sgd[player].zero_grad()
        points.append((G.value.item(), D.value.item()))
    return points


def distance(points: list[tuple[float, float]]) -> float:
    """From the solution (0, 0), the mean over the last 50 steps: large where the players only circle."""
    return sum((theta**2 + w**2) ** 0.5 for theta, w in points[-50:]) / 50


if __name__ == "__main__":
    for rule in RULES:
        print(f"{rule:13} without penalty {distance(course(rule)):.4f}, with R1 {distance(course(rule, 1)):.1e}")
    for ahead in ((1, 0), (2, 0), (1, 1)):
        for objective in ("non_saturating", "wasserstein"):
            found = distance(course("single_pass", ahead=ahead, objective=objective))
            print(f"single_pass, critic {ahead[0]} and generator {ahead[1]} steps ahead, {objective}: {found:.4f}")
