"""Objectives: what the two players minimise, as functions of raw scores (no sigmoid).

Both losses take the scores ``[N]`` of the real and of the fake samples and return one loss per sample ``[N]``.
A generator loss gets ``real=None`` where the generator side cannot move the real scores (images from a data set)
and the objective does not compare them with the fakes. Where it can move them (features of a source domain), the
real samples play for the opposite label.

To add an objective: write its two losses and one line in ``OBJECTIVES``.
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import relu, softplus


class Objective(NamedTuple):
    """Two losses on scores; ``pairs`` says that score i of real is compared with score i of fake."""

    critic_loss: Callable[[Tensor, Tensor], Tensor]
    generator_loss: Callable[[Tensor | None, Tensor], Tensor]
    pairs: bool = False


def cross_entropy_critic(real: Tensor, fake: Tensor) -> Tensor:
    """Goodfellow et al. 2014, eq. 1: -log σ(real) - log(1 - σ(fake))."""
    return softplus(-real) + softplus(fake)


def minimax_generator(real: Tensor | None, fake: Tensor) -> Tensor:
    """Goodfellow et al. 2014, eq. 1: the negative of the critic's loss."""
    loss = -softplus(fake)
    return loss if real is None else loss - softplus(-real)


def non_saturating_generator(real: Tensor | None, fake: Tensor) -> Tensor:
    """Goodfellow et al. 2014, section 3: -log σ(fake); the critic's loss with the labels flipped."""
    loss = softplus(-fake)
    return loss if real is None else loss + softplus(real)


def hinge_critic(real: Tensor, fake: Tensor) -> Tensor:
    """Lim and Ye 2017; Miyato et al. 2018, eq. 16."""
    return relu(1 - real) + relu(1 + fake)


def least_squares_critic(real: Tensor, fake: Tensor) -> Tensor:
    """Mao et al. 2017, eq. 9, with labels 1 (real) and 0 (fake)."""
    return ((real - 1).square() + fake.square()) / 2


def least_squares_generator(real: Tensor | None, fake: Tensor) -> Tensor:
    """Mao et al. 2017, eq. 9: fakes are pulled to label 1."""
    loss = (fake - 1).square() / 2
    return loss if real is None else loss + real.square() / 2


def wasserstein_critic(real: Tensor, fake: Tensor) -> Tensor:
    """Arjovsky et al. 2017, eq. 2. Needs a Lipschitz critic: a gradient penalty or spectral normalisation."""
    return fake - real


def linear_generator(real: Tensor | None, fake: Tensor) -> Tensor:
    """The generator of the Wasserstein and hinge games: raise the fakes' scores."""
    return -fake if real is None else real - fake


def relativistic_critic(real: Tensor, fake: Tensor) -> Tensor:
    """Jolicoeur-Martineau 2018, section 4.1 (RpGAN); Huang et al. 2024 (R3GAN), eq. 2, with f(t) = -log(1 + e^-t)."""
    return softplus(fake - real)


def relativistic_generator(real: Tensor | None, fake: Tensor) -> Tensor:
    """The critic's loss with the roles exchanged."""
    return softplus(real - fake)


OBJECTIVES = {
    "minimax": Objective(cross_entropy_critic, minimax_generator),
    "non_saturating": Objective(cross_entropy_critic, non_saturating_generator),
    "hinge": Objective(hinge_critic, linear_generator),
    "least_squares": Objective(least_squares_critic, least_squares_generator),
    "wasserstein": Objective(wasserstein_critic, linear_generator),
    "relativistic": Objective(relativistic_critic, relativistic_generator, pairs=True),
}
