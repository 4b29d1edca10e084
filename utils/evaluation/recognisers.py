"""Records of a recogniser: its accuracy, criteria that need no target labels, and the oracle's report, which does.

``oracle_records`` is the only place where target labels are read.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from adversarial.domains import Prediction
from utils.data.domains import Domains
from utils.evaluation import selection
from utils.evaluation.predictions import predict
from utils.evaluation.records import Record, record

FEW = 50  # held-out source samples: one of them is two per cent
FEW_EFFECTIVE = 10  # samples that the weights of a risk must be worth
FAR = 5.0  # factor by which the weights' mean may differ from 1
ORACLE = "target accuracy (oracle)"


def source_accuracy(source: Prediction, label: Tensor) -> Record:
    """Per cent of held-out source samples whose ``label`` ``[N]`` is predicted.

    Its note says where the source is too small or too weak for the criteria below to be relied on.
    """
    value = 100 * float((source.logits.argmax(1) == label).float().mean())
    least_accuracy = (100 + 100 / source.logits.shape[1]) / 2  # half of the way from chance to all
    doubt = ""
    if len(label) < FEW:
        doubt = f"; these are only {len(label)}, and a model chosen without target labels is hardly better than any"
    elif value < least_accuracy:
        doubt = "; that is weak, and a model chosen without target labels is hardly better than any"
    return record("source accuracy", value, "%", f" on held-out source samples{doubt}", higher_is_better=True,
                  split="source validation")  # fmt: skip


def criteria(source: Prediction, label: Tensor, target: Prediction, train: Prediction) -> list[Record]:
    """The criteria for choosing a model that need no target label (``selection``).

    ``source`` is of held-out source samples with these labels, ``train`` of the source's training samples.
    """
    losses = cross_entropy(source.logits, label, reduction="none").double()
    weights = selection.importance_weights(train.layers[-1], target.layers[-1], source.layers[-1])
    on_target = {"split": "target training, no labels"}
    weighted = {"split": "source validation weighted by the target's density", "higher_is_better": False}
    entropy = selection.entropy(target.logits)
    density = selection.soft_neighbourhood_density(target.logits)
    norm = selection.batch_nuclear_norm(target.logits)
    return [
        record("entropy", entropy, "nats", " of target predictions", higher_is_better=False, **on_target),
        record("SND", density, "nats", " on the target", higher_is_better=True, **on_target),
        record("BNM", norm, "", " of 1 on the target", higher_is_better=True, **on_target),
        _risk("IW risk", selection.weighted_risk(losses, weights), losses, weights, weighted),
        _risk("DEV risk", selection.deep_embedded_validation(losses, weights), losses, weights, weighted),
    ]


def _risk(metric: str, value: float, losses: Tensor, weights: Tensor, about: Record) -> Record:
    """A weighted risk, without a value where it is not usable: where few samples carry the weights, where these are far
    from their expected mean, 1, or where no weighted mean of the losses could be the value.
    """
    effective, mean = selection.effective_samples(weights), float(weights.mean())
    note = f" (the weights are worth {effective:.0f} of {len(weights)} samples)"
    about = {**about, "effective_samples": effective}
    usable = effective >= FEW_EFFECTIVE and 1 / FAR <= mean <= FAR and 0 <= value <= float(losses.max())
    if not usable:
        return record(metric, None, "nats", f": not usable, the domains are too far apart{note}", **about)
    return record(metric, value, "nats", note, **about)


def oracle_records(recogniser: nn.Module, data: Domains) -> list[Record]:
    """Accuracy on the target, over all and by class (per cent), and the confusion matrix, rows being true classes.

    For reports alone; empty where the target has no labels.
    """
    if data.oracle is None:
        return []
    label, K = data.oracle.label, data.classes
    predicted = predict(recogniser, data.oracle).logits.argmax(1)
    matrix = torch.bincount(label * K + predicted, minlength=K * K).view(K, K)
    per_class = 100 * matrix.diagonal().double() / matrix.sum(1).clamp(min=1)  # a class may be absent
    accuracy = 100 * float((predicted == label).float().mean())
    return [
        record(ORACLE, accuracy, "%", f" on {len(label)} samples of '{data.sides[1]}'", higher_is_better=True,
               split="target test", samples=len(label), oracle=True, per_class=per_class.tolist(),
               confusion=matrix.tolist(), class_names=list(data.class_names)),
    ]  # fmt: skip


def completed(records: list[Record], reference: str, samples: int, seed: int) -> list[Record]:
    """The records with what they have in common, where they do not say otherwise.

    ``reference`` is the name of the data, ``samples`` their number.
    """
    common = {"features": "the run's own", "features_sha256": None, "reference": reference, "resizer": None}
    return [{**common, "samples": samples, "seed": seed, **record} for record in records]
