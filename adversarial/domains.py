"""Games of domains: critics tell domains apart by what a recogniser makes of their samples, and it learns to hide it.

A recogniser is a feature extractor and a classifier. What the critics are given of its predictions is the *method*:
``METHODS``.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .draws import Draw
from .games import Batch, Pair, Play, Side
from .objectives import log_odds, log_odds_of_all


class Prediction(NamedTuple):
    """What a recogniser makes of samples: features after each layer (``[N, d]`` each, the last ones last) and class
    logits ``[N, K]``.
    """

    layers: tuple[Tensor, ...]
    logits: Tensor


CriticInputs = Callable[[Prediction], list[Side]]  # one side for each critic


def features(prediction: Prediction) -> list[Side]:
    """The last features (DANN: Ganin et al. 2016)."""
    return [Side(prediction.layers[-1])]


def layers(prediction: Prediction) -> list[Side]:
    """The features of every layer, for one critic each: several reversals in one network."""
    return [Side(layer) for layer in prediction.layers]


def multilinear(prediction: Prediction) -> list[Side]:
    """Features x predictions ``[N, d K]`` (CDAN: Long et al. 2018, section 3.2). Predictions are constants, as in the
    authors' code: no adversarial gradient reaches the head.
    """
    p = prediction.logits.detach().softmax(1)
    return [Side((prediction.layers[-1][:, None, :] * p[:, :, None]).flatten(1))]


def multilinear_entropy(prediction: Prediction) -> list[Side]:
    """The same, with confident predictions weighing more: 1 + e^-H (CDAN+E: Long et al. 2018, section 3.3).

    The weights are constants and not scaled to a mean of 1 over the batch, so no sample depends on another.
    """
    (side,) = multilinear(prediction)
    p = prediction.logits.detach().softmax(1)
    side.weight = 1 + torch.exp(-torch.special.entr(p).sum(1))
    return [side]


def classes(prediction: Prediction) -> list[Side]:
    """The last features times the class's probability, for one critic a class (MADA: Pei et al. 2018, eq. 3)."""
    p = prediction.logits.detach().softmax(1)
    return [Side(share[:, None] * prediction.layers[-1]) for share in p.T]


def margin(prediction: Prediction) -> list[Side]:
    """The last features and the predicted class (MDD: Zhang et al. 2019). The critic is a second head, its score the
    log-odds of that class: it learns to agree on the source (-log p) and to disagree on the target (-log(1 - p)).
    """
    return [Side(prediction.layers[-1], condition=prediction.logits.detach().argmax(1))]


class Method(NamedTuple):
    """What the critics are given, and how the method differs from plain DANN.

    ``split``: the target has its own feature extractor, and the source a frozen one. ``baseline``: nothing plays
    against the critic, λ is 0.
    """

    critic_inputs: CriticInputs
    split: bool = False
    baseline: bool = False


METHODS = {
    "dann": Method(features),
    "layers": Method(layers),
    "cdan": Method(multilinear),
    "cdan_e": Method(multilinear_entropy),
    "mada": Method(classes),
    "mdd": Method(margin),
    "adda": Method(features, split=True),
    # The target still passes through the network, so BatchNorm's statistics see its inputs.
    "source_only": Method(features, baseline=True),
    "target_only": Method(features, baseline=True),
}


class AdaptationGame:
    """Domain adaptation: critics tell source ("real") from target ("fake") by what a recogniser makes of them, and the
    recogniser learns the labels of the source.

    ``generator(source, target) -> (Prediction, Prediction)`` and ``critic(*samples) -> tuple of scores``, one ``[N]``
    (or logits ``[N, K]`` where the side has a class as condition) for each of the ``critic_inputs``. ``source_weight``
    multiplies the losses on the source's side (γ of MDD). Without ``learns_labels`` the recogniser has no loss of its
    own (ADDA). ``together`` as in ``GenerationGame``.
    """

    redraws = False  # features are a function of the batch

    def __init__(
        self,
        generator: nn.Module,
        critic: nn.Module,
        critic_inputs: CriticInputs = features,
        together: bool = True,
        source_weight: float = 1.0,
        learns_labels: bool = True,
    ):
        self.generator = generator
        self.critic = critic
        self.critic_inputs = critic_inputs
        self.together = together
        self.source_weight = source_weight
        self.learns_labels = learns_labels

    def play(self, batch: Batch, draw: Draw) -> Play:
        source, target = self.generator(batch.x, batch.target)
        pairs = [Pair(*sides) for sides in zip(self.critic_inputs(source), self.critic_inputs(target), strict=True)]
        for pair in pairs:
            pair.real.weight = self.source_weight * pair.real.weight
        loss = cross_entropy(source.logits, batch.label) if self.learns_labels else None
        return Play(pairs, loss, {"source_accuracy": _right(source.logits, batch.label)})

    def judge(self, pairs: Sequence[Pair]) -> None:
        """Set the scores ``[N]`` of source and target samples."""
        real, fake = ([side for side in column if side is not None] for column in zip(*pairs, strict=True))
        if self.together and real and fake:
            scores = self.critic(*(torch.cat([a.seen(), b.seen()]) for a, b in zip(real, fake, strict=True)))
            n = [len(real[0].samples), len(fake[0].samples)]
            judged = zip((real, fake), zip(*(score.split(n) for score in scores), strict=True), strict=True)
        else:
            judged = [(sides, self.critic(*(side.seen() for side in sides))) for sides in (real, fake) if sides]
        for sides, scores in judged:
            for side, score in zip(sides, scores, strict=True):
                side.score = score if side.condition is None else log_odds(score, side.condition)


class InvarianceGame:
    """Attribute-adversarial features: critics read which of K attributes (camera, person, domain) a sample has, and the
    recogniser learns its labels while it hides the attribute (Xie et al. 2017; for two attributes it is DANN).

    ``generator(x) -> (Prediction,)`` and ``critic(*samples) -> tuple of logits [N, K]``. All samples are "real": a
    score is the log-odds of the sample's own attribute. With ``every_class`` it is that of all K, ``[N, K]``, which the
    confusion objective needs where K > 2; a single pass cannot serve it.
    """

    redraws = False  # features are a function of the batch

    def __init__(
        self,
        generator: nn.Module,
        critic: nn.Module,
        critic_inputs: CriticInputs = features,
        every_class: bool = False,
    ):
        self.generator = generator
        self.critic = critic
        self.critic_inputs = critic_inputs
        self.every_class = every_class

    def play(self, batch: Batch, draw: Draw) -> Play:
        (prediction,) = self.generator(batch.x)
        sides = self.critic_inputs(prediction)
        for side in sides:
            side.condition = batch.attribute
        loss = cross_entropy(prediction.logits, batch.label)
        report = {"source_accuracy": _right(prediction.logits, batch.label)}
        return Play([Pair(side, None) for side in sides], loss, report)

    def judge(self, pairs: Sequence[Pair]) -> None:
        """Set the scores of all samples, ``[N]`` or ``[N, K]``."""
        score_of = log_odds_of_all if self.every_class else log_odds
        sides = [pair.real for pair in pairs]
        for side, logits in zip(sides, self.critic(*(side.seen() for side in sides)), strict=True):
            side.score = score_of(logits, side.condition)


def _right(logits: Tensor, label: Tensor) -> Tensor:
    """Which samples are recognised ``[N]``."""
    return logits.detach().argmax(1) == label
