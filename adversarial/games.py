"""Games: who makes samples, and who judges them.

A game has two networks, ``generator`` and ``critic``, and two functions: ``play`` runs the generator side forward once,
``judge`` has the critics score samples. The update rules (``adversarial.rules``) need nothing else.

Samples travel as sides and pairs. A ``Side`` is what one critic is given as real, or as fake; a ``Pair`` is both, one
per critic; a ``Play`` is all pairs of one forward. An update rule writes what it finds (cut, score, slope, ...) on the
sides as it goes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from .draws import Draw
from .objectives import SampleWeight

Transform = Callable[[Tensor], Tensor]  # samples to what a critic sees of them, sample by sample


class Batch(NamedTuple):
    """Real samples ``x`` ``[N, ...]`` (images in [-1, 1]) and what else the data has: class labels ``[N]``
    (int64), unlabelled samples of a target domain ``[N, ...]``, an attribute ``[N]`` (int64) such as the camera.
    """

    x: Tensor
    label: Tensor | None = None
    target: Tensor | None = None
    attribute: Tensor | None = None

    def part(self, rows: slice) -> "Batch":
        """The samples of these rows."""
        return Batch(*(None if value is None else value[rows] for value in self))


@dataclass(eq=False)
class Side:
    """Samples ``[N, ...]`` that one critic is given as real, or as fake.

    A game sets the first fields: the samples as the generator side made them, what they are conditioned on (``[N]``),
    constants that weigh the losses on them (``[N]`` or a number), a ``transform`` through which the critic sees them
    (augmentation), and how many samples in a row have one score together. ``judge`` sets ``score``, an update rule the
    rest.
    """

    samples: Tensor
    condition: Tensor | None = None
    weight: SampleWeight = 1.0
    transform: Transform | None = None
    pack: int = 1

    score: Tensor | None = None  # what the critic says, [N]; [N / m] where it judges packs of m; [N, K] for K classes
    cut: Tensor | None = None  # the samples, detached: the leaf at which the critic's backward pass ends
    slope: Tensor | None = None  # ∂s_i/∂x_i, like the samples, where a penalty has computed it
    c: Tensor | None = None  # ∂L_D/∂s_i, like the score
    g: Tensor | None = None  # λ ∂L_G/∂s_i, like the score
    floor: Tensor | None = None  # what |c| was raised to where it was below, so that g / c exists: a scalar
    ratio: Tensor | None = None  # g / c, like the score, where a single pass has used it

    @property
    def floored(self) -> Tensor:
        """Where |c| was raised to the floor, like the score."""
        return self.c.abs() == self.floor

    def seen(self) -> Tensor:
        """What the critic is given of the samples."""
        x = self.samples if self.cut is None else self.cut
        return x if self.transform is None else self.transform(x)


class Pair(NamedTuple):
    """What one critic tells apart; a side that is not played is None."""

    real: Side | None
    fake: Side | None


@dataclass(eq=False)
class Play:
    """One forward of the generator side: a pair for each critic, the generator side's own loss if it has one (a
    scalar), and what is to be logged of it.

    ``sides`` are those that are played, ``made`` those among them that the generator side has made, so that a gradient
    can go on into it. An update rule notes what penalties look at in ``watched``.
    """

    pairs: list[Pair]
    task_loss: Tensor | None = None
    report: dict[str, Tensor] = field(default_factory=dict)
    watched: dict[Any, list[Pair]] = field(default_factory=dict)  # by penalty

    def __post_init__(self) -> None:
        self.sides = [side for pair in self.pairs for side in pair if side is not None]
        self.made = [side for side in self.sides if side.samples.requires_grad]


class Game(Protocol):
    """What an update rule may know of a game."""

    generator: nn.Module
    critic: nn.Module
    redraws: bool  # whether another draw gives other fakes for the same batch

    def play(self, batch: Batch, draw: Draw) -> Play:
        """One forward of the generator side."""
        ...

    def judge(self, pairs: Sequence[Pair]) -> None:
        """Set the score of every side that is played."""
        ...


class Stateful(Protocol):
    """What keeps a few scalars from step to step (a penalty's averages, an adaptive probability).

    ``state`` holds them as tensors on the device, by names that are unique in a run; it belongs in the checkpoint.
    """

    state: dict[str, Tensor]

    def update(self, step: int, players: tuple[str, ...], report: dict[str, Tensor], mean: Callable) -> None:
        """Change the state in place by what a turn of ``step`` reported of the ``players`` that it moved.

        ``mean`` averages a tensor over all processes. Nothing here waits for the device.
        """
        ...


class Augmentation(Protocol):
    """Draws, with probability ``p`` of each change where there is a choice, what critics see in place of samples."""

    def __call__(self, draw: Draw, stream: str, p: float | Tensor) -> Transform: ...


class GenerationGame:
    """A GAN: the critic tells data from G(z), or (x, y) from (G(z, y), y) where the game is conditional.

    ``generator(latent [N, latent_dim], label [N] or None)`` and ``critic(x, label or None) -> scores [N]``.
    A fake has the label of the real sample in its row, so both halves of a batch have the same classes.

    ``together`` judges real and fake in one call of the critic. It must be False for a critic whose scores depend on
    the whole batch (BatchNorm), which is given the two one after the other, as in Radford et al. 2016.

    ``pack``: the critic judges m samples in a row at once, joined along their first dimension (channels), with one
    score ``[N / m]`` for them all (PacGAN: Lin et al. 2018, section 2): ``critic([N / m, m C, ...])``. For games
    without labels.

    ``augment`` changes what the critic sees, with the probability that ``probability.state["augment_p"]`` holds
    (``adversarial.probability``; None: 1).
    """

    redraws = True  # latents

    def __init__(
        self,
        generator: nn.Module,
        critic: nn.Module,
        latent_dim: int,
        conditional: bool = False,
        together: bool = True,
        pack: int = 1,
        augment: Augmentation | None = None,
        probability: Stateful | None = None,
    ):
        self.generator = generator
        self.critic = critic
        self.latent_dim = latent_dim
        self.conditional = conditional
        self.together = together
        self.pack = pack
        self.augment = augment
        self.probability = probability

    def play(self, batch: Batch, draw: Draw) -> Play:
        label = batch.label if self.conditional else None
        real = Side(batch.x, label, pack=self.pack)
        fake = Side(self.generator(draw.normal("latent", (self.latent_dim,)), label), label, pack=self.pack)
        play = Play([Pair(real, fake)])
        if self.augment is not None:
            p = 1.0 if self.probability is None else self.probability.state["augment_p"]
            real.transform = self.augment(draw, "augment real", p)
            fake.transform = self.augment(draw, "augment fake", p)
            if self.probability is not None:
                play.report["augment_p"] = p.clone()
        return play

    def judge(self, pairs: Sequence[Pair]) -> None:
        """Set the scores ``[N / m]``."""
        sides = [side for pair in pairs for side in pair if side is not None]
        seen = [side.seen() for side in sides]
        if self.pack > 1:
            seen = [packed(x, self.pack) for x in seen]
        labels = [side.condition for side in sides]
        if self.together and len(sides) == 2:
            label = torch.cat(labels) if self.conditional else None
            scores = self.critic(torch.cat(seen), label).chunk(2)
        else:
            scores = [self.critic(x, label) for x, label in zip(seen, labels, strict=True)]
        for side, score in zip(sides, scores, strict=True):
            side.score = score

    def synthesise(self, label: Tensor | None, draw: Draw) -> tuple[Tensor, Tensor]:
        """New fakes and the intermediate latents w that they are made of, for a generator that tells the two apart:
        ``map(latent, label) -> w`` and ``synthesise(w) -> fakes``.
        """
        # Not through a data-parallel wrapper (its hooks on the parameters see to their gradients all the same), and so
        # not through autocast either: path lengths are in float32.
        generator = getattr(self.generator, "module", self.generator)
        w = generator.map(draw.normal("latent", (self.latent_dim,)), label)
        return generator.synthesise(w), w


def packed(x: Tensor, pack: int) -> Tensor:
    """``[N, C, ...]`` to ``[N / pack, pack C, ...]``: samples in a row, joined along their channels (or features)."""
    return x.reshape(len(x) // pack, pack * x.shape[1], *x.shape[2:])
