"""AC-GAN's critic (Odena et al. 2017), which predicts the class instead of being given it."""

import torch
from torch import Tensor, nn

from adversarial.objectives import log_odds


class Critic(nn.Module):
    """Adds a classifier to a critic that takes no labels.

    ``forward(x [N, ...], label [N])`` returns ``[N, 2]``: the score, and the log-odds of the label among the classes.

    The critic's score must be a function of features: ``features(x) -> [N, d]`` and ``score(features) -> [N]``.
    ``shape`` is that of a sample. Raises ValueError for a critic without features.
    """

    def __init__(self, critic: nn.Module, shape: tuple[int, ...], classes: int):
        super().__init__()
        if not (hasattr(critic, "features") and hasattr(critic, "score")):
            raise ValueError("its critic has no features that a class could be read from")
        self.critic = critic
        with torch.no_grad():
            critic.eval()  # or BatchNorm's statistics would include these zeros
            size = critic.features(torch.zeros(1, *shape)).shape[1]
            critic.train()
        self.head = nn.Linear(size, classes)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        features = self.critic.features(x)
        return torch.stack([self.critic.score(features), log_odds(self.head(features), label)], dim=1)
