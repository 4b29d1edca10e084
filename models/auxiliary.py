"""A critic that names the class instead of being told it (AC-GAN: Odena et al. 2017), from one with features."""

import torch
from torch import Tensor, nn

from adversarial.objectives import log_odds


class Critic(nn.Module):
    """``x [N, ...]`` and ``label [N]`` to ``[N, 2]``: the score, and the log-odds of the label among the classes.

    ``critic`` is one without labels whose score is a function of its features: ``features(x) -> [N, d]`` and
    ``score(features) -> [N]``. ``shape`` is that of its samples. Raises ValueError for a critic without features.
    """

    def __init__(self, critic: nn.Module, shape: tuple[int, ...], classes: int):
        super().__init__()
        if not (hasattr(critic, "features") and hasattr(critic, "score")):
            raise ValueError("its critic has no features that a class could be read from")
        self.critic = critic
        with torch.no_grad():
            critic.eval()  # or norms would take in these zeros
            size = critic.features(torch.zeros(1, *shape)).shape[1]
            critic.train()
        self.head = nn.Linear(size, classes)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        features = self.critic.features(x)
        return torch.stack([self.critic.score(features), log_odds(self.head(features), label)], dim=1)
