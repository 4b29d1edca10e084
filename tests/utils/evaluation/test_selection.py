"""Criteria without target labels, against closed forms."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from utils.evaluation.selection import (
    batch_nuclear_norm,
    deep_embedded_validation,
    entropy,
    importance_weights,
    proxy_a_distance,
    soft_neighbourhood_density,
    weighted_risk,
)

SURE = 1000.0  # a logit that makes its class certain in float32
quick = settings(max_examples=30, deadline=None)  # a busy machine is no failure
floats = st.floats(0.0, 10.0)
samples = st.integers(2, 40)


def one_hot(counts: list[int]) -> torch.Tensor:
    """Certain predictions, ``counts[k]`` of class k."""
    return SURE * torch.eye(len(counts)).repeat_interleave(torch.tensor(counts), dim=0)


def gaussian(n: int, seed: int, at: float = 0.0) -> torch.Tensor:
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed)) + torch.tensor([at, 0.0])


# --- Entropy, SND, BNM


@quick
@given(samples, st.integers(2, 8), floats)
def test_entropy_is_log_k_where_nothing_is_known(N, K, level):
    assert entropy(torch.full((N, K), level)) == pytest.approx(math.log(K), rel=1e-5)  # float32


@quick
@given(st.lists(st.integers(1, 9), min_size=2, max_size=6))
def test_entropy_is_zero_for_certain_predictions(counts):
    assert entropy(one_hot(counts)) == 0


def test_entropy_is_a_mean_over_samples():
    logits = torch.tensor([[0.25, 0.75], [0.5, 0.5]]).log()
    by_hand = (-0.25 * math.log(0.25) - 0.75 * math.log(0.75) + math.log(2)) / 2
    assert entropy(logits) == pytest.approx(by_hand, rel=1e-5)  # float32


@quick
@given(samples, st.lists(floats, min_size=2, max_size=6))
def test_snd_of_identical_predictions_is_log_of_the_others(N, logits):
    # 1e-4: similarities in float32 are divided by a temperature of 0.05
    assert soft_neighbourhood_density(torch.tensor([logits] * N)) == pytest.approx(math.log(N - 1), abs=1e-4)


@quick
@given(st.integers(1, 12), st.integers(1, 12), st.sampled_from([0.05, 0.3, 1.0]))
def test_snd_of_two_certain_classes(a, b, temperature):
    """A sample's similarity is 1 to each other one of its class and 0 to the rest: a softmax of two values."""

    def of_one(own: int, other: int) -> float:
        near, far = math.exp(1 / temperature), 1.0
        total = own * near + other * far
        return -sum(n * p / total * math.log(p / total) for n, p in ((own, near), (other, far)))

    by_hand = (a * of_one(a - 1, b) + b * of_one(b - 1, a)) / (a + b)
    assert soft_neighbourhood_density(one_hot([a, b]), temperature) == pytest.approx(by_hand, abs=1e-5)  # float32


@quick
@given(st.integers(1, 9), st.integers(2, 6))
def test_bnm_is_one_for_certain_and_balanced_predictions(n, K):
    assert batch_nuclear_norm(one_hot([n] * K)) == pytest.approx(1, rel=1e-5)  # float32


@quick
@given(st.lists(st.integers(0, 9), min_size=2, max_size=6).filter(any))
def test_bnm_of_certain_predictions(counts):
    """Columns are orthogonal, so the singular values are the roots of the class counts."""
    N, K = sum(counts), len(counts)
    by_hand = sum(math.sqrt(n) for n in counts) / math.sqrt(N * min(N, K))
    assert batch_nuclear_norm(one_hot(counts)) == pytest.approx(by_hand, rel=1e-4)  # float32 SVD


@quick
@given(samples, st.integers(2, 6))
def test_bnm_where_nothing_is_known(N, K):
    """One singular value, the Frobenius norm sqrt(N / K)."""
    by_hand = 1 / math.sqrt(K * min(N, K))
    assert batch_nuclear_norm(torch.zeros(N, K)) == pytest.approx(by_hand, rel=1e-4)  # float32 SVD


# --- Importance weights, IW and DEV


@pytest.mark.parametrize("far", [0.5, 1.0])
def test_importance_weights_of_shifted_gaussians_are_the_density_ratio(far):
    """N(μ, 1) over N(0, 1) is exp(μx - μ²/2), which a logistic regression can express."""
    source, target, x = gaussian(4000, 0), gaussian(4000, 1, far), gaussian(500, 2)
    weights = importance_weights(source, target, x)
    ratio = (far * x[:, 0] - far**2 / 2).double().exp()
    assert np.corrcoef(weights, ratio)[0, 1] > 0.98
    # the mean of a density ratio under the source is 1; 4,000 samples fit it within 5 %, 500 measure it within 15 %
    assert weights.mean() == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize(("n", "m"), [(4000, 1000), (1000, 4000)])
def test_importance_weights_do_not_depend_on_how_many_samples_there_are(n, m):
    """Two samples of one distribution have a density ratio of 1, however many there are of either."""
    weights = importance_weights(gaussian(n, 0), gaussian(m, 1), gaussian(500, 2))
    assert weights.mean() == pytest.approx(1, abs=0.1)


def test_importance_weights_are_finite_where_domains_do_not_overlap():
    """Far out the target's share of the samples rounds to 1, and the odds would be infinite."""
    weights = importance_weights(gaussian(50, 0), gaussian(50, 1, 100.0), gaussian(50, 2, 1e6))
    assert bool(weights.isfinite().all())
    assert weights.min() > 1e5


pairs = st.lists(st.tuples(floats, floats), min_size=2, max_size=20)


def columns(values: list[tuple[float, ...]]) -> list[torch.Tensor]:
    return [torch.tensor(column, dtype=torch.float64) for column in zip(*values, strict=True)]


@quick
@given(pairs)
def test_weighted_risk_by_hand(values):
    losses, weights = columns(values)
    assert weighted_risk(losses, weights) == pytest.approx(sum(a * b for a, b in values) / len(values))


@quick
@given(pairs, st.floats(0.5, 2.0))
def test_dev_of_constant_losses_is_that_constant(values, loss):
    """All of the weighted losses' variance is the weights' own, and the control variate removes it."""
    weights = columns(values)[0] + torch.arange(len(values))  # not all equal
    assert deep_embedded_validation(torch.full_like(weights, loss), weights) == pytest.approx(loss, rel=1e-6)


@quick
@given(pairs)
def test_dev_by_hand(values):
    losses, weights = columns(values)
    weights = weights + torch.arange(len(values))
    assume(bool((weights != weights[0]).any()))
    w, risk = weights.numpy(), (weights * losses).numpy()
    eta = -np.cov(risk, w)[0, 1] / np.var(w, ddof=1)
    assert deep_embedded_validation(losses, weights) == pytest.approx(risk.mean() + eta * (w.mean() - 1), abs=1e-6)


@quick
@given(st.lists(floats, min_size=2, max_size=20))
def test_weights_of_one_make_dev_the_plain_mean(losses):
    losses = torch.tensor(losses, dtype=torch.float64)
    assert deep_embedded_validation(losses, torch.ones_like(losses)) == pytest.approx(float(losses.mean()))


def test_equal_weights_make_dev_the_weighted_risk():
    for n in range(2, 30):
        losses = torch.linspace(0, 1, n, dtype=torch.float64).square()
        for value in (0.1, 0.3, 0.7):
            weights = torch.full_like(losses, value)
            assert deep_embedded_validation(losses, weights) == pytest.approx(weighted_risk(losses, weights))


# --- Proxy A-distance


def test_proxy_a_distance_of_equal_clouds_is_near_zero():
    # 1,000 samples a side are tested: an accuracy of 50 % has a deviation of 1.1 %, the distance four times that
    assert proxy_a_distance(gaussian(2000, 0), gaussian(2000, 1)) < 0.15


def test_proxy_a_distance_of_clouds_far_apart_is_two():
    assert proxy_a_distance(gaussian(200, 0), gaussian(100, 1, 20.0)) == 2


@pytest.mark.parametrize("far", [1.0, 2.0])
def test_proxy_a_distance_of_gaussians_at_a_distance(far):
    """The best linear classifier errs on Φ(-δ/2) of the samples."""
    error = (1 + math.erf(-far / 2 / math.sqrt(2))) / 2
    measured = proxy_a_distance(gaussian(4000, 0), gaussian(4000, 1, far))
    assert measured == pytest.approx(2 * (1 - 2 * error), abs=0.12)  # four deviations of an accuracy over 2,000


def test_proxy_a_distance_does_not_depend_on_which_domain_is_larger():
    """Both domains weigh the same: one of nine tenths is not found by always naming the larger one."""
    assert proxy_a_distance(gaussian(1800, 0), gaussian(200, 1)) < 0.4  # 100 samples: a deviation of 5 %, four times
