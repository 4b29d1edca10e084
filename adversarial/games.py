"""Games: who makes things, who judges them.

A game has two modules, ``generator`` and ``critic``, and two functions: ``play`` runs the generator side forward once,
``judge`` runs the critic on what was played. The update rules need nothing else.
"""

import copy
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn


class Batch(NamedTuple):
    """Real samples ``x`` ``[N, ...]`` (images in [-1, 1]) and class labels ``[N]`` (int64) where the data has them."""

    x: Tensor
    label: Tensor | None = None


class Draw(Protocol):
    """The random numbers of one play: the same call returns the same numbers."""

    def normal(self, stream: str, shape: tuple[int, ...]) -> Tensor:
        """Standard normal numbers ``[N, *shape]`` for the samples of this batch."""
        ...

    def fork(self, name: str) -> "Draw":
        """Independent draws for another play of the same batch."""
        ...


@dataclass(frozen=True)
class Play:
    """One forward of the generator side: samples ``real`` and ``fake`` ``[N, ...]``, what both are conditioned on, and
    the generator side's own loss if it has one (a scalar).
    """

    real: Tensor
    fake: Tensor
    condition: Tensor | None = None
    task_loss: Tensor | None = None


class Game(Protocol):
    """What an update rule may know of a game."""

    generator: nn.Module
    critic: nn.Module

    def play(self, batch: Batch, draw: Draw) -> Play: ...

    def judge(self, play: Play) -> tuple[Tensor, Tensor]: ...

    def judge_fake(self, play: Play) -> Tensor: ...


class GenerationGame:
    """A GAN: the critic tells data from G(z), or (x, y) from (G(z, y), y) where the game is conditional.

    ``generator(latent [N, latent_dim], label [N] or None)`` and ``critic(x, label or None) -> scores [N]``.
    A fake has the label of the real sample at its place, so both halves of a batch have the same classes.

    ``together`` judges real and fake in one call of the critic. It must be False for a critic whose scores depend on
    the whole batch (BatchNorm), which is given the two one after the other, as in Radford et al. 2016.
    """

    def __init__(self, generator: nn.Module, critic: nn.Module, latent_dim: int, conditional: bool, together: bool):
        self.generator = generator
        self.critic = critic
        self.latent_dim = latent_dim
        self.conditional = conditional
        self.together = together

    def play(self, batch: Batch, draw: Draw) -> Play:
        condition = batch.label if self.conditional else None
        fake = self.generator(draw.normal("latent", (self.latent_dim,)), condition)
        return Play(batch.x, fake, condition)

    def judge(self, play: Play) -> tuple[Tensor, Tensor]:
        """Scores ``[N]`` of the real and of the fake samples."""
        if not self.together:
            return self.critic(play.real, play.condition), self.judge_fake(play)
        condition = None if play.condition is None else torch.cat([play.condition, play.condition])
        real, fake = self.critic(torch.cat([play.real, play.fake]), condition).chunk(2)
        return real, fake

    def judge_fake(self, play: Play) -> Tensor:
        """Scores ``[N]`` of the fakes alone."""
        return self.critic(play.fake, play.condition)


def couples_samples(critic: nn.Module, batch: Batch, conditional: bool) -> bool:
    """Whether a sample's score moves with *other* samples of the batch (BatchNorm, minibatch statistics).

    A numerical probe, not a list of layer names: where the critic judges each sample on its own, the gradient of one
    score with respect to all other samples, and of all other scores with respect to that sample, is exactly zero. It
    is taken on a copy with jittered parameters, because a zero-initialised layer would hide a coupling that training
    then brings out; the critic and the random state are left as they were. ``batch`` needs at least two samples.
    Raises ValueError if there is not one score per sample.
    """
    n = len(batch.x)
    if n < 2:
        raise ValueError("The probe for batch coupling needs a batch of at least 2 samples.")
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        probe = _jittered(critic)
        x = batch.x.detach().clone().requires_grad_()
        scores = probe(x, batch.label if conditional else None)
        if scores.shape != (n,):
            raise ValueError(f"The critic returned scores of shape {tuple(scores.shape)} for {n} samples, not ({n},).")
        one = torch.arange(n, device=x.device) == n // 2
        (of_one,) = torch.autograd.grad(scores[one].sum(), x, retain_graph=True)
        (of_others,) = torch.autograd.grad(scores[~one].sum(), x)
    return bool(of_one[~one].any() or of_others[one].any())


def _jittered(module: nn.Module) -> nn.Module:
    twin = copy.deepcopy(module).requires_grad_()
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return twin.train()
