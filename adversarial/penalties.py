"""Penalties: terms that are added to a player's objective.

A penalty says what it looks at (``pairs``: sides of the play, or new samples that the critics then judge as well) and
what its ``term`` is; a number γ ≥ 0 weighs it (``passes.Strengths``). What it keeps from step to step is its ``state``.

Slopes ∂s_i/∂x_i are taken with respect to the samples as the generator side makes them: before any augmentation, after
any reversal. Where a score is of several samples (packing), they are one input.

To add a penalty: write its class and one line in ``PENALTIES``. Its dataclass fields become options in a config.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from .augmentation import diffaugment
from .draws import Draw
from .games import Game, Pair, Play, Side
from .objectives import own_class, total

CRITIC, GENERATOR = "critic", "generator"  # the players
SLOPES, SCORES = "slopes", "scores"


class Penalty:
    """The base of all penalties. By default a penalty looks at nothing further and keeps no state."""

    summary: ClassVar[str]  # the formula, in a line
    # What the term is a function of. SLOPES are differentiated once more, by the critic's weights; SCORES alone join
    # the objective in c_i; the generator's own penalties have nothing to do with the critic.
    acts_on: ClassVar[str]
    # What a game must have for the penalty to make sense: "fakes", "samples" that a generator makes (no features of
    # domains), square "images" among them, or a generator with a "mapping" network; "": nothing.
    needs: ClassVar[str] = ""
    state: ClassVar[dict[str, Tensor]] = {}  # ``games.Stateful``; penalties that keep something have their own

    def pairs(self, play: Play, draw: Draw) -> list[Pair]:
        """What the penalty looks at, apart from the play's scores; sides without a score are then judged."""
        return []

    def term(self, play: Play, pairs: Sequence[Pair]) -> Tensor:
        """The term of the critic's loss, not yet times γ: a scalar. ``pairs`` are what it looks at, judged by now."""
        raise NotImplementedError

    def generator_term(self, game: Game, play: Play, draw: Draw) -> tuple[Tensor, dict[str, Tensor]]:
        """The term of the generator's loss, and what to report of it."""
        raise NotImplementedError

    def update(self, step: int, players: tuple[str, ...], report: dict[str, Tensor], mean: Callable) -> None:
        """See ``games.Stateful``."""


# --- on the critic's slope -------------------------------------------------------------------------------------------


class SlopePenalty(Penalty):
    """The mean over samples, summed over sides, of a function of the slope: ``of_slope`` maps ``[N, d]`` to ``[N]``."""

    acts_on = SLOPES

    def of_slope(self, slope: Tensor) -> Tensor:
        raise NotImplementedError

    def term(self, play: Play, pairs: Sequence[Pair]) -> Tensor:
        sides = [side for pair in pairs for side in pair if side is not None]
        return total([self.of_slope(slope_per_input(side)).mean() for side in sides])


def slope_per_input(side: Side) -> Tensor:
    """∂s_i/∂x_i ``[N, d]``; a pack is one input."""
    slope = side.slope.flatten(1)  # points and vectors stay as they are: a view of them would be differentiated, too
    return slope if side.pack == 1 else slope.reshape(len(side.score), -1)


def zero_centred(slope: Tensor) -> Tensor:
    """‖∂s_i/∂x_i‖² / 2 per input: ``[N, d]`` to ``[N]``."""
    return slope.square().sum(1) / 2


def one_centred(slope: Tensor) -> Tensor:
    """(‖∂s_i/∂x_i‖ - 1)² per input: ``[N, d]`` to ``[N]``."""
    return (torch.linalg.vector_norm(slope, dim=1) - 1).square()


@dataclass(eq=False)
class R1(SlopePenalty):
    """Mescheder et al. 2018, eq. 9."""

    summary = "γ/2·E|∂s/∂x|² over real samples"
    of_slope = staticmethod(zero_centred)

    def pairs(self, play: Play, draw: Draw) -> list[Pair]:
        return [Pair(pair.real, None) for pair in play.pairs]


@dataclass(eq=False)
class R2(SlopePenalty):
    """The same over fakes."""

    summary = "γ/2·E|∂s/∂x|² over fakes"
    needs = "fakes"
    of_slope = staticmethod(zero_centred)

    def pairs(self, play: Play, draw: Draw) -> list[Pair]:
        return [Pair(None, pair.fake) for pair in play.pairs]


def as_fake(x: Tensor, fake: Side) -> Pair:
    """Points ``[N, ...]`` for the slope at them, to be judged as the ``fake`` samples are: a leaf."""
    leaf = x.detach().requires_grad_()
    return Pair(None, Side(leaf, fake.condition, transform=fake.transform, pack=fake.pack, cut=leaf))


@dataclass(eq=False)
class GradientPenalty(SlopePenalty):
    """WGAN-GP: at random points on the lines from fakes to reals (Gulrajani et al. 2017, eq. 3)."""

    summary = "γ·E(|∂s/∂x| - 1)² between reals and fakes (WGAN-GP); paper: 10"
    needs = "fakes"

    of_slope = staticmethod(one_centred)

    def pairs(self, play: Play, draw: Draw) -> list[Pair]:
        share = draw.uniform("gradient penalty")
        points = []
        for real, fake in play.pairs:
            # A pack moves as one: its m samples have the share of the first.
            along = share[:: fake.pack].repeat_interleave(fake.pack)
            along = along.reshape(-1, *[1] * (fake.samples.ndim - 1)).to(fake.samples.dtype)
            points.append(as_fake(torch.lerp(fake.samples.detach(), real.samples.detach(), along), fake))
        return points


@dataclass(eq=False)
class Dragan(SlopePenalty):
    """DRAGAN: around real samples (Kodali et al. 2017, section 2.5).

    The noise is Gaussian, as in the paper's loss. In the authors' code it is uniform and scaled by the batch's standard
    deviation, so that samples depend on each other.
    """

    summary = "γ·E(|∂s/∂x| - 1)² around reals (DRAGAN); paper: 10"
    needs = "samples"
    noise: float = field(default=0.25, metadata={"comment": "standard deviation of the noise around reals"})

    of_slope = staticmethod(one_centred)

    def pairs(self, play: Play, draw: Draw) -> list[Pair]:
        points = []
        for real, fake in play.pairs:
            noise = self.noise * draw.noise("dragan", tuple(real.samples.shape[1:]))
            points.append(as_fake(real.samples.detach() + noise.to(real.samples.dtype), fake))
        return points


def take_slopes(sides: Sequence[Side]) -> None:
    """Set ``slope``, ∂s_i/∂x_i, which is itself differentiable.

    One backward pass serves all sides: for a critic that judges each sample on its own this is exact, for one with
    BatchNorm it is the gradient of the batch's summed scores, as in every common implementation.
    """
    own = [own_class(side.score) for side in sides]
    ones = [torch.ones_like(score) for score in own]
    slopes = torch.autograd.grad(own, [side.cut for side in sides], ones, create_graph=True)
    for side, slope in zip(sides, slopes, strict=True):
        side.slope = slope


# --- on the critic's scores ------------------------------------------------------------------------------------------


@dataclass(eq=False)
class LeCam(Penalty):
    """E(s_real - α_F)² + E(s_fake - α_R)²: each side's scores are held near the moving average α of the other side's
    (Tseng et al. 2021, eq. 4; in their code the distance counts in one direction only).

    The averages start at 0 with no weight; divided by ``lecam_weight`` they are averages from the first step on.
    """

    summary = "γ·E(s - α)², α the other side's mean score (LeCam); paper: 0.01 to 0.3"
    needs = "samples"
    acts_on = SCORES
    decay: float = field(default=0.99, metadata={"comment": "of the moving averages, per critic step"})

    def __post_init__(self) -> None:
        self.state = {name: torch.tensor(0.0) for name in ("lecam_real", "lecam_fake", "lecam_weight")}

    def term(self, play: Play, pairs: Sequence[Pair]) -> Tensor:
        # Before the first step both averages are 0, whatever they are divided by.
        weight = self.state["lecam_weight"].clamp(min=torch.finfo(torch.float32).tiny)
        real, fake = (self.state[name] / weight for name in ("lecam_real", "lecam_fake"))
        terms = []
        for pair in play.pairs:
            terms.append((own_class(pair.real.score) - fake).square().mean())
            terms.append((own_class(pair.fake.score) - real).square().mean())
        return sum(terms)

    def update(self, step: int, players: tuple[str, ...], report: dict[str, Tensor], mean: Callable) -> None:
        if CRITIC in players:
            move(self.state["lecam_real"], mean(widened(report["real_score"]).mean()), 1 - self.decay)
            move(self.state["lecam_fake"], mean(widened(report["fake_score"]).mean()), 1 - self.decay)
            move(self.state["lecam_weight"], torch.ones_like(self.state["lecam_weight"]), 1 - self.decay)


@dataclass(eq=False)
class Consistency(Penalty):
    """E(s(x) - s(T x))² over reals and over fakes, where T mirrors and shifts images: the critic should not mind (bCR:
    Zhao et al. 2021, eq. 3 and 4, with one γ for both sides).
    """

    summary = "γ·E(s(x) - s(T x))², T mirrors and shifts images (bCR); paper: 10"
    needs = "images"
    acts_on = SCORES
    change: ClassVar = staticmethod(diffaugment(("mirror", "translation")))

    def pairs(self, play: Play, draw: Draw) -> list[Pair]:
        (pair,) = play.pairs
        changed = []
        for name, side in (("real", pair.real), ("fake", pair.fake)):
            x = self.change(draw, f"consistency {name}", 1.0)(side.samples.detach())
            changed.append(Side(x, side.condition, transform=side.transform, pack=side.pack))
        return [Pair(*changed)]

    def term(self, play: Play, pairs: Sequence[Pair]) -> Tensor:
        changed = [side for pair in pairs for side in pair]
        sides = zip(play.sides, changed, strict=True)
        return sum((own_class(a.score) - own_class(b.score)).square().mean() for a, b in sides)


# --- on the generator ------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class PathLength(Penalty):
    """E(‖J_w^T y‖ - a)² over new fakes, J the generator's Jacobian by the intermediate latent w, a the average of
    the lengths before the step (Karras et al. 2020, StyleGAN2, eq. 4 and appendix B).
    """

    summary = "γ·E(|J_w^T y| - a)², path lengths (StyleGAN2); paper: 2"
    acts_on = GENERATOR
    needs = "mapping"
    decay: float = field(default=0.99, metadata={"comment": "of the moving average of lengths"})

    def __post_init__(self) -> None:
        self.state = {"path_mean": torch.tensor(0.0)}

    def generator_term(self, game: Game, play: Play, draw: Draw) -> tuple[Tensor, dict[str, Tensor]]:
        draw = draw.fork("path")
        images, w = game.synthesise(play.pairs[0].fake.condition, draw)
        lengths = path_lengths(images, w, draw.noise("noise", tuple(images.shape[1:])).to(images.dtype))
        term = (lengths - self.state["path_mean"]).square().mean()
        return term, {"path_penalty": term.detach(), "path_length": lengths.detach().mean()}

    def update(self, step: int, players: tuple[str, ...], report: dict[str, Tensor], mean: Callable) -> None:
        if "path_length" in report:
            move(self.state["path_mean"], mean(report["path_length"]), 1 - self.decay)


def path_lengths(images: Tensor, w: Tensor, noise: Tensor) -> Tensor:
    """‖J_w^T y‖ per image, J the generator's Jacobian by ``w`` ``[N, D]`` or, for L layers, ``[N, L, D]`` (root mean
    square over layers), y noise like the images: ``[N]``, itself differentiable.
    """
    pixels = images.shape[2:].numel()
    (slope,) = torch.autograd.grad((images * noise).sum() / pixels**0.5, w, create_graph=True)
    return slope.square().sum(-1).reshape(len(w), -1).mean(1).sqrt()


# --- helpers ---------------------------------------------------------------------------------------------------------


def widened(score: Tensor) -> Tensor:
    """Scores of half precision as float32: a sum of them would round too much."""
    return score.float() if score.dtype in (torch.bfloat16, torch.float16) else score


def move(average: Tensor, value: Tensor, share: float) -> None:
    """Move an average in place by ``share`` of the way to ``value``."""
    average.lerp_(value.to(average.dtype), share)


@torch.no_grad()
def clip_weights(critic: nn.Module, limit: float) -> None:
    """Keep what learns within ±``limit`` (WGAN: Arjovsky et al. 2017, algorithm 1); 0 leaves everything as it is.

    To be called after each of the critic's steps.
    """
    if limit > 0:
        for parameter in critic.parameters():
            if parameter.requires_grad:
                parameter.clamp_(-limit, limit)


PENALTIES: dict[str, type[Penalty]] = {
    "r1": R1,
    "r2": R2,
    "gp": GradientPenalty,
    "dragan": Dragan,
    "lecam": LeCam,
    "consistency": Consistency,
    "path": PathLength,
}
