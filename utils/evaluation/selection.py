"""Criteria for choosing a model without target labels, from source validation and unlabelled target samples.

No maintained library fits: skada's scorers wrap scikit-learn estimators that they call themselves and bring two more
dependencies, pytorch-adapt has had no release since 2023. Musgrave et al. 2022 compare criteria: none is always right.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import normalize

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


def entropy(logits: Tensor) -> float:
    """Mean entropy of predictions ``[N, K]`` in nats (Morerio et al. 2018): lower is better."""
    return float(torch.special.entr(logits.softmax(1)).sum(1).mean())


def soft_neighbourhood_density(logits: Tensor, temperature: float = 0.05) -> float:
    """Entropy of each target sample's similarities to all others, over predictions ``[N, K]`` (SND: Saito et al. 2021,
    eq. 1-4), in nats: higher is better.
    """
    p = normalize(logits.softmax(1))
    similarity = (p @ p.T / temperature).fill_diagonal_(-torch.inf)
    return float(torch.special.entr(similarity.softmax(1)).sum(1).mean())


def batch_nuclear_norm(logits: Tensor) -> float:
    """Nuclear norm of the predictions ``[N, K]`` (BNM: Cui et al. 2020, eq. 5) over its maximum,
    sqrt(N min(N, K)), in [0, 1]: confident and diverse predictions score 1, higher is better.
    """
    N, K = logits.shape
    return float(torch.linalg.matrix_norm(logits.softmax(1), "nuc")) / (N * min(N, K)) ** 0.5


def importance_weights(train: Tensor, target: Tensor, validation: Tensor) -> Tensor:
    """p(target) / p(source) ``[N]`` of validation features ``[N, d]``, from a logistic regression of the domain.

    ``train`` and ``target`` are features of the source's training and of target samples (Bickel et al. 2007).
    """
    model = domain_classifier(train, target)
    share = torch.from_numpy(model.predict_proba(validation.numpy())[:, 1])
    return share / (1 - share).clamp(min=1e-6)  # no prior: the classifier weighs both domains alike


def effective_samples(weights: Tensor) -> float:
    """The number of equally weighted samples that a mean with these weights ``[N]`` is as sure as (Kish 1965)."""
    return float(weights.sum().square() / weights.square().sum())


def weighted_risk(losses: Tensor, weights: Tensor) -> float:
    """Importance-weighted validation risk: the mean of losses ``[N]`` times weights ``[N]`` (Sugiyama et al. 2007).

    Lower is better.
    """
    return float((weights * losses).mean())


def deep_embedded_validation(losses: Tensor, weights: Tensor) -> float:
    """The weighted risk with a control variate (DEV: You et al. 2019, algorithm 1): lower is better.

    If all weights are equal there is nothing to control, and it is the weighted risk.
    """
    weighted = weights * losses
    covariance = torch.cov(torch.stack([weighted, weights]))
    equal = covariance[1, 1] <= (1e-6 * weights.mean()) ** 2  # a variance that small is rounding
    eta = 0.0 if equal else -covariance[0, 1] / covariance[1, 1]
    return float(weighted.mean() + eta * weights.mean() - eta)


def proxy_a_distance(source: Tensor, target: Tensor) -> float:
    """2 (1 - 2ε) with the error ε of a linear classifier of domains, trained on one half of the features ``[N, d]`` and
    tested on the other (Ben-David et al. 2006; Ganin et al. 2016, section 5.1.5): 0 if it cannot tell them apart, 2
    if it always can.
    """
    model = domain_classifier(source[::2], target[::2])
    right = (model.predict(source[1::2].numpy()) == 0).mean(), (model.predict(target[1::2].numpy()) == 1).mean()
    return max(0.0, float(2 * (sum(right) - 1)))


def domain_classifier(source: Tensor, target: Tensor) -> "Pipeline":
    """A linear classifier of source (0) against target (1) features ``[N, d]``, both classes weighing the same."""
    # Here for a fast start-up: scikit-learn takes a second.
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    label = torch.cat([torch.zeros(len(source)), torch.ones(len(target))])
    regression = LogisticRegression(max_iter=200, class_weight="balanced")
    return make_pipeline(StandardScaler(), regression).fit(torch.cat([source, target]).numpy(), label.numpy())
