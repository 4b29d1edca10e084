"""Games: who makes things, who judges them.

A game has two modules, ``generator`` and ``critic``, and two functions: ``play`` runs the generator side forward once,
``judge`` runs the critic on what was played. The update rules need nothing else.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from adversarial.objectives import Weight, log_odds, log_odds_of_all

Samples = tuple[Tensor, ...]
Look = Callable[[Tensor], Tensor]  # samples to what a critic sees of them, sample by sample
Memory = dict[str, Tensor]  # scalars on the device


class Batch(NamedTuple):
    """Real samples ``x`` ``[N, ...]`` (images in [-1, 1]) and what the data has beside them: class labels ``[N]``
    (int64), unlabelled samples of a target domain ``[N, ...]``, an attribute ``[N]`` (int64) such as the camera.
    """

    x: Tensor
    label: Tensor | None = None
    target: Tensor | None = None
    attribute: Tensor | None = None

    def part(self, rows: slice) -> "Batch":
        """The samples of these rows."""
        return Batch(*(None if value is None else value[rows] for value in self))


class Draw(Protocol):
    """The random numbers of one play: the same call returns the same numbers."""

    def normal(self, stream: str, shape: tuple[int, ...] = ()) -> Tensor:
        """Standard normal numbers ``[N, *shape]`` for the samples of this batch."""
        ...

    def uniform(self, stream: str, shape: tuple[int, ...] = ()) -> Tensor:
        """Numbers in [0, 1), ``[N, *shape]``, for the samples of this batch."""
        ...

    def fork(self, name: str) -> "Draw":
        """Independent draws for another play of the same batch."""
        ...

    def part(self, rows: slice) -> "Draw":
        """The draws of these rows of the batch: the same numbers as without the others."""
        ...


class Augmentation(Protocol):
    """Draws, with probability ``p`` of each change where there is a choice, what critics see in place of samples."""

    def __call__(self, draw: Draw, stream: str, p: float | Tensor) -> Look: ...


@dataclass(frozen=True)
class Play:
    """One forward of the generator side: what each critic is given as ``real`` and as ``fake`` (``[N, ...]``, one
    entry a critic; a side that is not played is empty), what that is conditioned on, and the generator side's own loss
    if it has one (a scalar).

    ``weights`` holds a pair of constants ``[N]`` per critic, for its real and its fake samples; empty: all 1.
    ``report`` holds what the game wants logged (detached scalars). ``looks`` says how critics look at the real and at
    the fake samples where they do not see them as they are; gradients by samples are those *before* it.
    """

    real: Samples
    fake: Samples
    condition: Any = None
    task_loss: Tensor | None = None
    weights: tuple[tuple[Weight, Weight], ...] = ()
    report: dict[str, Tensor] = field(default_factory=dict)
    looks: tuple[Look, Look] | None = None


class Game(Protocol):
    """What an update rule may know of a game. Critics return one tensor of scores each: ``[N]``, or ``[N / m]`` where
    a score is of m samples in a row (packing).

    ``memory`` is what the game knows of former steps (``adversarial.memory``); empty where no step needs it.
    """

    generator: nn.Module
    critic: nn.Module
    memory: Memory

    def play(self, batch: Batch, draw: Draw) -> Play: ...

    def judge(self, play: Play) -> tuple[Samples, Samples]: ...

    def judge_fake(self, play: Play) -> Samples: ...


class GenerationGame:
    """A GAN: the critic tells data from G(z), or (x, y) from (G(z, y), y) where the game is conditional.

    ``generator(latent [N, latent_dim], label [N] or None)`` and ``critic(x, label or None) -> scores [N]``.
    A fake has the label of the real sample at its place, so both halves of a batch have the same classes.

    ``together`` judges real and fake in one call of the critic. It must be False for a critic whose scores depend on
    the whole batch (BatchNorm), which is given the two one after the other, as in Radford et al. 2016.

    ``pack``: the critic judges m samples in a row at once, joined along their first dimension (channels), with one
    score ``[N / m]`` for them all (PacGAN: Lin et al. 2018, section 2): ``critic([N / m, m C, ...])``. For games
    without labels. ``augment`` changes what the critic sees, with the probability that ``memory`` holds, if any.
    """

    def __init__(
        self,
        generator: nn.Module,
        critic: nn.Module,
        latent_dim: int,
        conditional: bool,
        together: bool,
        pack: int = 1,
        augment: Augmentation | None = None,
        memory: Memory | None = None,
    ):
        self.generator = generator
        self.critic = critic
        self.latent_dim = latent_dim
        self.conditional = conditional
        self.together = together
        self.pack = pack
        self.augment = augment
        self.memory = {} if memory is None else memory

    def play(self, batch: Batch, draw: Draw) -> Play:
        condition = batch.label if self.conditional else None
        fake = self.generator(draw.normal("latent", (self.latent_dim,)), condition)
        if self.augment is None:
            return Play((batch.x,), (fake,), condition)
        p = self.memory.get("augment_p", 1.0)
        looks = tuple(self.augment(draw, f"augment {side}", p) for side in ("real", "fake"))
        report = {name: value.clone() for name, value in self.memory.items() if name == "augment_p"}
        return Play((batch.x,), (fake,), condition, report=report, looks=looks)

    def judge(self, play: Play) -> tuple[Samples, Samples]:
        """Scores ``[N / m]`` of the real and of the fake samples."""
        if not self.together:
            return (self._scores(self._seen(play, 0), play.condition),), self.judge_fake(play)
        condition = None if play.condition is None else torch.cat([play.condition, play.condition])
        real, fake = self._scores(torch.cat([self._seen(play, 0), self._seen(play, 1)]), condition).chunk(2)
        return (real,), (fake,)

    def judge_fake(self, play: Play) -> Samples:
        """Scores ``[N / m]`` of the fakes alone."""
        return (self._scores(self._seen(play, 1), play.condition),)

    def synthesise(self, condition: Any, draw: Draw) -> tuple[Tensor, Tensor]:
        """New fakes and the intermediate latents w that they are made of, for a generator that tells the two apart:
        ``map(latent, label) -> w`` and ``synthesise(w) -> fakes``.
        """
        # Past a data-parallel wrapper, whose hooks on the parameters see to their gradients all the same, and past
        # autocast: lengths are in float32.
        generator = getattr(self.generator, "module", self.generator)
        w = generator.map(draw.normal("latent", (self.latent_dim,)), condition)
        return generator.synthesise(w), w

    def _seen(self, play: Play, side: int) -> Tensor:
        (x,) = (play.real, play.fake)[side]
        return x if play.looks is None else play.looks[side](x)

    def _scores(self, x: Tensor, condition: Tensor | None) -> Tensor:
        return self.critic(packed(x, self.pack), condition)


def packed(x: Tensor, pack: int) -> Tensor:
    """``[N, C, ...]`` to ``[N / pack, pack C, ...]``: samples in a row, joined along their channels (or features)."""
    return x if pack == 1 else x.reshape(len(x) // pack, pack * x.shape[1], *x.shape[2:])


class Recognition(NamedTuple):
    """What a recogniser makes of samples: features after each layer (``[N, d]`` each, the last ones last) and class
    logits ``[N, K]``.
    """

    layers: Samples
    logits: Tensor


class View(NamedTuple):
    """What the critics see of one domain's samples: one entry a critic, with a weight each, and a condition ``[N]``."""

    samples: Samples
    weights: tuple[Weight, ...] = (1.0,)
    condition: Tensor | None = None


def features(seen: Recognition) -> View:
    """The last features (DANN: Ganin et al. 2016)."""
    return View(seen.layers[-1:])


def layers(seen: Recognition) -> View:
    """The features of every layer, for one critic each: several reversals in one network."""
    return View(seen.layers, (1.0,) * len(seen.layers))


def multilinear(seen: Recognition) -> View:
    """Features x predictions ``[N, d K]`` (CDAN: Long et al. 2018, section 3.2). Predictions are constants, as in the
    authors' code: no adversarial gradient reaches the head.
    """
    predictions = seen.logits.detach().softmax(1)
    return View(((seen.layers[-1][:, None, :] * predictions[:, :, None]).flatten(1),))


def multilinear_entropy(seen: Recognition) -> View:
    """The same, and safe predictions weigh more: 1 + e^-H (CDAN+E: Long et al. 2018, section 3.3).

    The weights are constants and not scaled to a mean of 1 over the batch: they depend on no other sample.
    """
    p = seen.logits.detach().softmax(1)
    return View(multilinear(seen).samples, (1 + torch.exp(-torch.special.entr(p).sum(1)),))


def classes(seen: Recognition) -> View:
    """The last features times the class's probability, for one critic a class (MADA: Pei et al. 2018, eq. 3)."""
    p = seen.logits.detach().softmax(1)
    return View(tuple(share[:, None] * seen.layers[-1] for share in p.T), (1.0,) * p.shape[1])


def margin(seen: Recognition) -> View:
    """The last features and the class predicted (MDD: Zhang et al. 2019). The critic is a second head, its score the
    log-odds of that class: it learns to agree on the source (-log p) and to disagree on the target (-log(1 - p)).
    """
    return View(seen.layers[-1:], condition=seen.logits.detach().argmax(1))


VIEWS: dict[str, Callable[[Recognition], View]] = {
    "features": features,
    "layers": layers,
    "multilinear": multilinear,
    "multilinear_entropy": multilinear_entropy,
    "classes": classes,
    "margin": margin,
}


class AdaptationGame:
    """Domain adaptation: critics tell source ("real") from target ("fake") by what a recogniser makes of them, and the
    recogniser learns the labels of the source.

    ``generator(source, target) -> (Recognition, Recognition)`` and ``critic(*samples) -> tuple of scores``, one ``[N]``
    (or logits ``[N, K]`` where ``view`` gives a class) for each entry of the view. ``source_weight`` multiplies the
    losses on the source's side (γ of MDD). Without ``learns_labels`` the recogniser has no loss of its own (ADDA).
    ``together`` as in ``GenerationGame``.
    """

    def __init__(
        self,
        generator: nn.Module,
        critic: nn.Module,
        view: Callable[[Recognition], View],
        together: bool,
        source_weight: float = 1.0,
        learns_labels: bool = True,
    ):
        self.generator = generator
        self.critic = critic
        self.view = view
        self.together = together
        self.source_weight = source_weight
        self.learns_labels = learns_labels
        self.memory: Memory = {}

    def play(self, batch: Batch, draw: Draw) -> Play:
        source, target = self.generator(batch.x, batch.target)
        real, fake = self.view(source), self.view(target)
        weights = tuple((self.source_weight * r, f) for r, f in zip(real.weights, fake.weights, strict=True))
        loss = cross_entropy(source.logits, batch.label) if self.learns_labels else None
        report = {"source_accuracy": _accuracy(source.logits, batch.label)}
        return Play(real.samples, fake.samples, (real.condition, fake.condition), loss, weights, report)

    def judge(self, play: Play) -> tuple[Samples, Samples]:
        """Scores ``[N]`` of the source and of the target samples."""
        if not self.together:
            return self._scores(play.real, play.condition[0]), self.judge_fake(play)
        condition = None if play.condition[0] is None else torch.cat(play.condition)
        both = self._scores(tuple(map(torch.cat, zip(play.real, play.fake, strict=True))), condition)
        n = len(play.real[0])
        return tuple(score[:n] for score in both), tuple(score[n:] for score in both)

    def judge_fake(self, play: Play) -> Samples:
        """Scores ``[N]`` of the target samples alone."""
        return self._scores(play.fake, play.condition[1])

    def _scores(self, samples: Samples, condition: Tensor | None) -> Samples:
        scores = self.critic(*samples)
        return scores if condition is None else tuple(log_odds(logits, condition) for logits in scores)


class InvarianceGame:
    """Attribute-adversarial features: critics read which of K attributes (camera, person, domain) a sample has, and the
    recogniser learns its labels while it hides the attribute (Xie et al. 2017; for two attributes it is DANN).

    ``generator(x) -> (Recognition,)`` and ``critic(*samples) -> tuple of logits [N, K]``. All samples are "real": a
    score is the log-odds of the sample's own attribute. With ``every_class`` it is that of all K, ``[N, K]``, which the
    confusion objective needs where K > 2; a single pass cannot serve it.
    """

    def __init__(
        self, generator: nn.Module, critic: nn.Module, view: Callable[[Recognition], View], every_class: bool = False
    ):
        self.generator = generator
        self.critic = critic
        self.view = view
        self.every_class = every_class
        self.memory: Memory = {}

    def play(self, batch: Batch, draw: Draw) -> Play:
        (seen,) = self.generator(batch.x)
        view = self.view(seen)
        weights = tuple((weight, 1.0) for weight in view.weights)
        report = {"source_accuracy": _accuracy(seen.logits, batch.label)}
        return Play(view.samples, (), batch.attribute, cross_entropy(seen.logits, batch.label), weights, report)

    def judge(self, play: Play) -> tuple[Samples, Samples]:
        """Scores of all samples, ``[N]`` or ``[N, K]``, and no fakes."""
        score = log_odds_of_all if self.every_class else log_odds
        return tuple(score(logits, play.condition) for logits in self.critic(*play.real)), ()

    def judge_fake(self, play: Play) -> Samples:
        """There are no fakes."""
        return ()


def _accuracy(logits: Tensor, label: Tensor) -> Tensor:
    return (logits.detach().argmax(1) == label).float().mean()


def couples_samples(critic: nn.Module, *inputs: Tensor | None, classes: int = 0) -> bool:
    """Whether a sample's score moves with *other* samples of the batch (BatchNorm, minibatch statistics).

    ``inputs`` are what the critic is called with, the same number of samples in each; floating ones are judged.

    A numerical probe, not a list of layer names: where the critic judges each sample on its own, the gradient of one
    score with respect to all other samples, and of all other scores with respect to that sample, is exactly zero. It
    is taken on a copy with jittered parameters, because a zero-initialised layer would hide a coupling that training
    then brings out; the critic and the random state are left as they were. The batch needs at least two samples.
    Raises ValueError if there is not one score per sample, or one per class where ``classes`` says so.
    """
    n = len(inputs[0])
    if n < 2:
        raise ValueError("The probe for batch coupling needs a batch of at least 2 samples.")
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        probe = _jittered(critic)
        judged = [x is not None and x.is_floating_point() for x in inputs]
        given = [x.detach().clone().requires_grad_() if j else x for x, j in zip(inputs, judged, strict=True)]
        samples = [x for x, j in zip(given, judged, strict=True) if j]
        scores = probe(*given)
        scores = [scores] if isinstance(scores, Tensor) else scores
        shape = (n, classes) if classes else (n,)
        for score in scores:
            if score.shape != shape:
                raise ValueError(
                    f"The critic returned scores of shape {tuple(score.shape)} for {n} samples, not {shape}."
                )
        one = torch.arange(n, device=samples[0].device) == n // 2
        of_one = torch.autograd.grad(sum(score[one].sum() for score in scores), samples, retain_graph=True)
        of_others = torch.autograd.grad(sum(score[~one].sum() for score in scores), samples)
    return any(bool(a[~one].any() or b[one].any()) for a, b in zip(of_one, of_others, strict=True))


def _jittered(module: nn.Module) -> nn.Module:
    twin = copy.deepcopy(module).requires_grad_()
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return twin.train()
