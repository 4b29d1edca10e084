"""Training steps as other people write them, in their plainest form, for ``benchmarks/steps.py`` to time.

Each does what its kind of loop does and no more: no average of the weights, no watch for NaN, no statistics but the
losses, no resuming. Losses are written out, not taken from ``adversarial``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, relu, softplus

from adversarial.reversal import gradient_reversal


class Losses(NamedTuple):
    """Both players' losses by (real scores, fake scores), and minus the ratio of their derivatives by fake scores."""

    critic: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor, Tensor], Tensor]
    ratio: Callable[[Tensor, Tensor], Tensor]


LOSSES = {
    "non_saturating": Losses(
        lambda real, fake: (softplus(-real) + softplus(fake)).mean(),
        lambda real, fake: softplus(-fake).mean(),
        lambda real, fake: torch.exp(-fake),
    ),
    "hinge": Losses(
        lambda real, fake: (relu(1 - real) + relu(1 + fake)).mean(),
        lambda real, fake: -fake.mean(),
        lambda real, fake: torch.ones_like(fake),  # right where the hinge is active
    ),
    "relativistic": Losses(
        lambda real, fake: softplus(fake - real).mean(),
        lambda real, fake: softplus(real - fake).mean(),
        lambda real, fake: torch.exp(real - fake),
    ),
}


@dataclass
class Loop:
    """Networks, an Adam each, and data in memory: uint8 images or float points; labels and a target for two domains."""

    generator: nn.Module
    critic: nn.Module
    optimizers: dict[str, torch.optim.Optimizer]
    x: Tensor
    label: Tensor | None
    target: Tensor | None
    batch_size: int
    latent_dim: int
    losses: Losses
    r1: float
    r2: float
    coefficient: float
    position: int = 0
    order: Tensor | None = None
    constants: list[Tensor] | None = None

    def batch(self, *of: Tensor) -> list[Tensor]:
        """The next rows of one shuffled reading of the data."""
        if self.order is None or self.position + self.batch_size > len(self.order):
            self.order, self.position = torch.randperm(len(self.x), device=self.x.device), 0
        index = self.order[self.position : self.position + self.batch_size]
        self.position += self.batch_size
        return [prepared(data[index]) for data in of]

    def latent(self) -> Tensor:
        """Standard normal numbers ``[N, latent_dim]``."""
        return torch.randn(self.batch_size, self.latent_dim, device=self.x.device)

    def step(self, *players: str) -> None:
        """Have the players' optimisers step, and clear their gradients."""
        for player in players:
            self.optimizers[player].step()
            self.optimizers[player].zero_grad()


def prepared(x: Tensor) -> Tensor:
    """uint8 images in [-1, 1] with channels last; other tensors as they are."""
    if x.dtype != torch.uint8:
        return x
    return (x.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def slopes(score: Tensor, *x: Tensor) -> tuple[Tensor, ...]:
    """∂s/∂x, to be differentiated again."""
    return torch.autograd.grad(score.sum(), x, create_graph=True)


def squared(slope: Tensor) -> Tensor:
    """E‖slope‖² / 2."""
    return slope.square().flatten(1).sum(1).mean() / 2


# --- GANs ------------------------------------------------------------------------------------------------------------


def textbook(loop: Loop) -> None:
    """PyTorch's DCGAN example: real and fake judged and differentiated apart, fakes reused, a critic that is not frozen
    in the generator's step; R1 where the recipe has it.
    """
    (real,) = loop.batch(loop.x)
    loop.optimizers["critic"].zero_grad()
    real.requires_grad_(loop.r1 > 0)
    real_score = loop.critic(real)
    ones, zeros = torch.ones_like(real_score), torch.zeros_like(real_score)
    loss = binary_cross_entropy_with_logits(real_score, ones)
    if loop.r1:
        loss = loss + loop.r1 * squared(*slopes(real_score, real))
    loss.backward()
    fake = loop.generator(loop.latent())
    binary_cross_entropy_with_logits(loop.critic(fake.detach()), zeros).backward()
    loop.optimizers["critic"].step()
    loop.optimizers["generator"].zero_grad()
    binary_cross_entropy_with_logits(loop.critic(fake), ones).backward()
    loop.optimizers["generator"].step()


def two_stage(loop: Loop) -> None:
    """A critic step, then a generator step on fresh fakes; gradients that reach the other player are thrown away."""
    (real,) = loop.batch(loop.x)
    fake = loop.generator(loop.latent()).detach()
    real.requires_grad_(loop.r1 > 0)
    fake.requires_grad_(loop.r2 > 0)
    real_score, fake_score = loop.critic(real), loop.critic(fake)
    loss = loop.losses.critic(real_score, fake_score)
    if loop.r1:
        loss = loss + loop.r1 * squared(*slopes(real_score, real))
    if loop.r2:
        loss = loss + loop.r2 * squared(*slopes(fake_score, fake))
    loss.backward()
    loop.step("critic")
    fake_score = loop.critic(loop.generator(loop.latent()))
    real_score = loop.critic(real.detach()) if loop.losses is LOSSES["relativistic"] else None
    loop.losses.generator(real_score, fake_score).backward()
    loop.step("generator")
    loop.optimizers["critic"].zero_grad()


def one_stage(loop: Loop) -> None:
    """One backward pass, in which a hook at the fakes multiplies by the ratio of the losses' derivatives (the idea of
    OSGAN). R1 as usual; R2 does not go through a reversal.
    """
    (real,) = loop.batch(loop.x)
    fake = loop.generator(loop.latent())
    scale: list[Tensor] = []
    reversed_fake = fake.view_as(fake)
    reversed_fake.register_hook(lambda gradient: gradient * scale[0])
    real.requires_grad_(loop.r1 > 0)
    if loop.r1:
        real_score, fake_score = loop.critic(real), loop.critic(reversed_fake)
    else:
        real_score, fake_score = loop.critic(torch.cat([real, reversed_fake])).chunk(2)
    ratio = loop.losses.ratio(real_score.detach(), fake_score.detach())
    scale.append(-ratio.reshape(-1, *[1] * (fake.ndim - 1)))
    loss = loop.losses.critic(real_score, fake_score)
    if loop.r1:
        loss = loss + loop.r1 * squared(*slopes(real_score, real))
    loss.backward()
    loop.step("critic", "generator")


def shared_slope(loop: Loop) -> None:
    """RpGAN + R1 + R2 by hand, with the mathematics of our single pass: the generator's gradient is its own derivative
    by the scores, times the slope at the fakes that R2 has computed.
    """
    (real,) = loop.batch(loop.x)
    fake = loop.generator(loop.latent())
    x = torch.cat([real, fake.detach()]).requires_grad_()
    score = loop.critic(x)
    (slope,) = slopes(score, x)
    real_score, fake_score = score.chunk(2)
    real_slope, fake_slope = slope.chunk(2)
    loss = loop.losses.critic(real_score, fake_score)
    loss = loss + loop.r1 * squared(real_slope) + loop.r2 * squared(fake_slope)
    loss.backward(inputs=list(loop.critic.parameters()))
    g = -torch.sigmoid(real_score - fake_score).detach() / len(fake)
    fake.backward(g.reshape(-1, *[1] * (fake.ndim - 1)) * fake_slope.detach())
    loop.step("critic", "generator")


# --- two domains -----------------------------------------------------------------------------------------------------


def dann(loop: Loop) -> None:
    """DANN with a reversal layer: one loss, one backward pass (as in domain-adaptation libraries); R1 and R2 at the
    features where the recipe has them.
    """
    source, label, target = loop.batch(loop.x, loop.label, loop.target)
    source, target = loop.generator(source, target)
    features = torch.cat([source.layers[-1], target.layers[-1]])
    seen = gradient_reversal(features, loop.coefficient)
    (score,) = loop.critic(seen)
    domain = torch.cat([torch.ones(len(label)), torch.zeros(len(label))]).to(score)
    loss = 2 * binary_cross_entropy_with_logits(score, domain) + cross_entropy(source.logits, label)
    loss.backward()
    (score.detach() > 0).eq(domain > 0).float().mean()  # the critic's accuracy, and the classifier's
    source.logits.argmax(1).eq(label).float().mean()
    loop.step("critic", "generator")


def domains_by_hand(loop: Loop) -> None:
    """Flipped labels, R1 and R2 at the features, with the mathematics of our single pass."""
    source, label, target = loop.batch(loop.x, loop.label, loop.target)
    source, target = loop.generator(source, target)
    features = torch.cat([source.layers[-1], target.layers[-1]])
    x = features.detach().requires_grad_()
    (score,) = loop.critic(x)
    (slope,) = slopes(score, x)
    sign = torch.cat([torch.ones(len(label)), -torch.ones(len(label))]).to(score)
    loss = 2 * softplus(-sign * score).mean() + 2 * (loop.r1 * squared(slope))
    loss.backward(inputs=list(loop.critic.parameters()))
    g = loop.coefficient * sign * torch.sigmoid(sign * score).detach() / len(label)
    task = cross_entropy(source.logits, label)
    torch.autograd.backward([features, task], [g[:, None] * slope.detach(), None])
    loop.step("critic", "generator")


# --- no loop at all --------------------------------------------------------------------------------------------------


def networks_alone(loop: Loop) -> None:
    """The forwards, backwards and Adam steps of a single pass on a constant batch, with constants for all gradients
    that losses would have given: what no loop can do without.
    """
    if loop.constants is None:
        loop.constants = [loop.latent(), *loop.batch(*(x for x in (loop.x, loop.label, loop.target) if x is not None))]
    if loop.target is None:
        latent, real = loop.constants
        made, task = loop.generator(latent), []
        both = [real.detach().requires_grad_(loop.r1 > 0), made.detach().requires_grad_()]
    else:
        _, source, _, target = loop.constants
        source, target = loop.generator(source, target)
        made, task = torch.cat([source.layers[-1], target.layers[-1]]), [source.logits]
        both = [made.detach().requires_grad_()]
    # Penalised on one side alone, the two sides are cheaper apart.
    seen = both if (loop.r1 > 0) != (loop.r2 > 0) else [torch.cat(both)]
    scores = [score if isinstance(score, Tensor) else score[0] for score in map(loop.critic, seen)]
    sloped = [x for x, gamma in zip(seen, (loop.r1, loop.r2), strict=False) if gamma]
    slope = torch.autograd.grad(sum(score.sum() for score in scores), sloped, create_graph=True) if sloped else ()
    seeds = [*map(torch.ones_like, scores), *map(torch.ones_like, slope)]
    leaves = [both[-1]] if not loop.r2 else []
    torch.autograd.backward([*scores, *slope], seeds, inputs=[*loop.critic.parameters(), *leaves])
    arrived = both[-1].grad if leaves else slope[-1].detach()[-len(made) :]
    torch.autograd.backward([made, *task], [arrived, *(x.detach() for x in task)])
    loop.step("critic", "generator")
