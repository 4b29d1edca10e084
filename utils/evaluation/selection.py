"""Choosing a model without target labels: what the source's validation samples and unlabelled target samples tell.

No maintained library fits: skada's scorers wrap scikit-learn estimators that they call themselves and bring two more
dependencies, pytorch-adapt has had no release since 2023. Musgrave et al. 2022 compare criteria: none is always right.
"""

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn.functional import normalize


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
    """Nuclear norm of the predictions ``[N, K]`` (BNM: Cui et al. 2020, eq. 5) over its largest value,
    sqrt(N min(N, K)): safe and diverse predictions score 1, higher is better.
    """
    N, K = logits.shape
    return float(torch.linalg.matrix_norm(logits.softmax(1), "nuc")) / (N * min(N, K)) ** 0.5


def importance_weights(train: Tensor, target: Tensor, validation: Tensor) -> Tensor:
    """p(target) / p(source) of validation features ``[N, d]``, by a logistic regression that tells both domains apart.

    ``train`` and ``target`` are features of the source's training and of target samples (Bickel et al. 2007).
    """
    model = domain_classifier(train, target)
    share = torch.from_numpy(model.predict_proba(validation.numpy())[:, 1])
    return share / (1 - share).clamp(min=1e-6)  # both domains weigh the same in the classifier, however large they are


def weighted_risk(losses: Tensor, weights: Tensor) -> float:
    """Importance-weighted validation risk over losses ``[N]`` (Sugiyama et al. 2007): lower is better."""
    return float((weights * losses).mean())


def deep_embedded_validation(losses: Tensor, weights: Tensor) -> float:
    """The same with a control variate (DEV: You et al. 2019, algorithm 1): lower is better.

    Where all weights are equal there is nothing to control, and it is the weighted risk.
    """
    weighted = weights * losses
    covariance = torch.cov(torch.stack([weighted, weights]))
    equal = covariance[1, 1] <= (1e-6 * weights.mean()) ** 2  # their variance is then nothing but rounding
    eta = 0.0 if equal else -covariance[0, 1] / covariance[1, 1]
    return float(weighted.mean() + eta * weights.mean() - eta)


def proxy_a_distance(source: Tensor, target: Tensor) -> float:
    """2 (1 - 2ε) with the error ε of a linear classifier of domains, trained on one half of the features ``[N, d]`` and
    tested on the other (Ben-David et al. 2006; Ganin et al. 2016, section 5.1.5): 0 where it cannot tell them apart, 2
    where it always can.
    """
    model = domain_classifier(source[::2], target[::2])
    right = (model.predict(source[1::2].numpy()) == 0).mean(), (model.predict(target[1::2].numpy()) == 1).mean()
    return max(0.0, float(2 * (sum(right) - 1)))


def domain_classifier(source: Tensor, target: Tensor) -> Pipeline:
    """A linear classifier of source (0) against target (1) features ``[N, d]``, both classes weighing the same."""
    label = torch.cat([torch.zeros(len(source)), torch.ones(len(target))])
    regression = LogisticRegression(max_iter=200, class_weight="balanced")
    return make_pipeline(StandardScaler(), regression).fit(torch.cat([source, target]).numpy(), label.numpy())
