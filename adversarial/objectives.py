"""Objectives: what the two players minimise, as functions of raw scores (no sigmoid).

Each player has one loss for real samples and one for fakes, as a function of the sample's score. The generator's loss
on real samples counts where the generator side makes them too (features of a source domain); they then play for the
opposite label. A paired objective has one loss per pair, a function of the difference real - fake.

To add an objective: write its losses and one line in ``OBJECTIVES``, which says so if the game is zero-sum.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import relu, softplus

Loss = Callable[[Tensor], Tensor]
SampleWeight = Tensor | float  # constants that weigh the losses of samples: [N], or one for all


class Objective(NamedTuple):
    """Losses of both players by score, each as (of a real sample, of a fake); ``pairs`` says that score i of real is
    compared with score i of fake, and that the first of each two is a function of real - fake.

    A critic takes a sample for real if it scores above ``boundary``; None where one score alone says nothing.
    ``every_class``: the generator's loss looks at the scores ``[N, K]`` of all classes, not of the own one only.
    ``zero_sum``: on every sample the generator's loss is minus the critic's.
    """

    critic: tuple[Loss, Loss]
    generator: tuple[Loss, Loss]
    boundary: float | None = 0.0
    pairs: bool = False
    every_class: bool = False
    zero_sum: bool = False

    def critic_loss(
        self, real: Tensor | None, fake: Tensor | None, weights: tuple[SampleWeight, SampleWeight] = (1, 1)
    ) -> Tensor:
        """The critic's loss per sample ``[N]``; a side that is not played is None, the other's loss is then all."""
        return self._loss(self.critic, real, fake, weights)

    def generator_loss(
        self, real: Tensor | None, fake: Tensor | None, weights: tuple[SampleWeight, SampleWeight] = (1, 1)
    ) -> Tensor:
        """The generator's loss per sample ``[N]``; ``real`` is None where it can neither move nor compare it."""
        return self._loss(self.generator, real, fake, weights)

    def _loss(self, losses: tuple[Loss, Loss], real: Tensor | None, fake: Tensor | None, weights) -> Tensor:
        if self.pairs:
            return weighed(losses[0](real - fake), (weights[0] + weights[1]) / 2)
        sides = zip(losses, (real, fake), weights, strict=True)
        terms = [weighed(loss(scores), weight) for loss, scores, weight in sides if scores is not None]
        return total(terms)


def total(terms: Sequence[Tensor]) -> Tensor:
    """The sum of at least one term. (Python's ``sum`` would add the first one to 0, which costs an operation.)"""
    return sum(terms[1:], terms[0])


def weighed(loss: Tensor, weight: SampleWeight) -> Tensor:
    """A loss, or losses ``[N]``, times a weight."""
    if isinstance(weight, float | int) and weight == 1:
        return loss  # networks may be so small that a product and its backward count
    return weight * loss


class Auxiliary(NamedTuple):
    """An objective plus a class loss: both players want a sample's class to be recognised, the critic on both sides,
    the generator on fakes (AC-GAN: Odena et al. 2017, eq. 2 and 3, with ``weight`` 1).

    Scores are ``[N, 2]``: the score, and the log-odds of the sample's class, of which -log σ is the cross-entropy. The
    players want opposite scores but the same class, which no single ratio per sample can express: a single pass cannot
    serve it.
    """

    objective: Objective
    weight: float

    # No fields: both players want the same class, and look at the sample's own class alone.
    every_class = False
    zero_sum = False

    @property
    def pairs(self) -> bool:
        return self.objective.pairs

    @property
    def boundary(self) -> float | None:
        return self.objective.boundary

    def critic_loss(self, real: Tensor, fake: Tensor, weights: tuple[SampleWeight, SampleWeight] = (1, 1)) -> Tensor:
        """The critic's loss per sample ``[N]``."""
        loss = self.objective.critic_loss(real[:, 0], fake[:, 0], weights)
        return loss + self.weight * (softplus(-real[:, 1]) + softplus(-fake[:, 1]))

    def generator_loss(
        self, real: Tensor | None, fake: Tensor, weights: tuple[SampleWeight, SampleWeight] = (1, 1)
    ) -> Tensor:
        """The generator's loss per sample ``[N]``; ``real`` is None where it cannot compare it."""
        loss = self.objective.generator_loss(None if real is None else real[:, 0], fake[:, 0], weights)
        return loss + self.weight * softplus(-fake[:, 1])


def log_odds(logits: Tensor, label: Tensor) -> Tensor:
    """log(p / (1 - p)) of class ``label`` ``[N]`` among the K classes of ``logits`` ``[N, K]``: a score ``[N]``.

    It turns a critic of K classes into one with a score per sample: -log σ(score) is its cross-entropy -log p, and
    -log(1 - σ(score)) is -log(1 - p). So every objective, and the single pass, serve it.
    """
    own = logits.gather(1, label[:, None]).squeeze(1)
    others = logits.scatter(1, label[:, None], -torch.inf)
    return own - others.logsumexp(1)


def log_odds_of_all(logits: Tensor, label: Tensor) -> Tensor:
    """``log_odds`` of every class ``[N, K]``, that of ``label`` in column 0, the others after it in order."""
    K = logits.shape[1]
    turn = (label[:, None] + torch.arange(K, device=label.device)) % K
    return torch.stack([log_odds(logits, column) for column in turn.T], dim=1)


def own_class(score: Tensor) -> Tensor:
    """The score ``[N]`` of the own class, where there are scores of all ``[N, K]``."""
    return score if score.ndim == 1 else score[:, 0]


def confusion(score: Tensor) -> Tensor:
    """Cross-entropy to the uniform distribution (Tzeng et al. 2015, eq. 3).

    Over two classes -(log p + log(1 - p)) / 2 from one score ``[N]``; over K from ``log_odds_of_all`` ``[N, K]``.
    """
    return (softplus(-score) + softplus(score)) / 2 if score.ndim == 1 else softplus(-score).mean(1)


# The critic's losses on (real, fake).
CROSS_ENTROPY = (lambda s: softplus(-s), softplus)  # -log σ(s), -log(1 - σ(s)): Goodfellow et al. 2014, eq. 1
HINGE = (lambda s: relu(1 - s), lambda s: relu(1 + s))  # Lim and Ye 2017; Miyato et al. 2018, eq. 16
LEAST_SQUARES = (lambda s: (s - 1).square() / 2, lambda s: s.square() / 2)  # Mao et al. 2017, eq. 9, labels 1 and 0
# Arjovsky et al. 2017, eq. 2. Needs a Lipschitz critic: penalty.gp or spectral normalisation.
LINEAR = (lambda s: -s, lambda s: s)


def flipped(losses: tuple[Loss, Loss]) -> tuple[Loss, Loss]:
    """The generator's losses where it minimises the critic's with the labels exchanged."""
    return losses[1], losses[0]


OBJECTIVES = {
    # The generator minimises the negative of the critic's loss: Goodfellow et al. 2014, eq. 1; plain gradient reversal,
    # Ganin et al. 2016, eq. 9.
    "minimax": Objective(CROSS_ENTROPY, (lambda s: -softplus(-s), lambda s: -softplus(s)), zero_sum=True),
    # Labels flipped: Goodfellow et al. 2014, section 3; for domains ADDA, Tzeng et al. 2017, eq. 9.
    "non_saturating": Objective(CROSS_ENTROPY, flipped(CROSS_ENTROPY)),
    # The generator wants the critic undecided, not wrong: Tzeng et al. 2015.
    "confusion": Objective((lambda s: softplus(-own_class(s)), softplus), (confusion, confusion), every_class=True),
    "hinge": Objective(HINGE, flipped(LINEAR)),
    "least_squares": Objective(LEAST_SQUARES, flipped(LEAST_SQUARES), boundary=0.5),
    # For domains WDGRL, Shen et al. 2018, eq. 3.
    "wasserstein": Objective(LINEAR, flipped(LINEAR), boundary=None, zero_sum=True),
    # Jolicoeur-Martineau 2018, section 4.1 (RpGAN); Huang et al. 2024 (R3GAN), eq. 2, with f(t) = -log(1 + e^-t).
    "relativistic": Objective(CROSS_ENTROPY, flipped(CROSS_ENTROPY), boundary=None, pairs=True),
}
