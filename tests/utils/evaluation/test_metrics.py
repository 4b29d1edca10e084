"""Metrics against closed formulas and against counting by hand."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from utils.data.datasets import Modes
from utils.evaluation import metrics
from utils.evaluation.classifier import Classifier
from utils.evaluation.metrics import coverage, frechet_distance, probabilities, recognition

# --- Fréchet distance


@pytest.fixture(scope="module")
def network() -> Classifier:
    """Untrained, in float64: nothing but the formula is left to differ."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Classifier((1, 4, 4), 3).double().eval().requires_grad_(False)


def images(seed: int, n: int, shift: float = 0.0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.rand(n, 1, 4, 4, generator=draw, dtype=torch.float64) * 2 - 1 + shift


def moments(network: Classifier, x: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    features = network.features(x).numpy()
    return features.mean(0), np.cov(features, rowvar=False)


def closed_formula(network: Classifier, a: torch.Tensor, b: torch.Tensor) -> tuple[float, float]:
    """|μ - ν|² + tr(S + T - 2·√(ST)), and how far from it eigenvalues in double precision may lead.

    ST is known up to E with |E| ≤ d·ε·|S||T|. With eigenvectors V an eigenvalue λ moves by at most δ = cond(V)·|E|
    (Bauer and Fike), and its root by at most δ/√λ. The formula takes off twice the d roots, and two ways of computing
    it may both be that far off.
    """
    (mean, S), (other, T) = moments(network, a), moments(network, b)
    root = scipy.linalg.sqrtm(S @ T)
    value = float(((mean - other) ** 2).sum() + np.trace(S + T - 2 * root.real))
    eigenvalue, V = np.linalg.eig(S @ T)
    delta = np.linalg.cond(V) * len(S) * np.finfo(float).eps * np.linalg.norm(S, 2) * np.linalg.norm(T, 2)
    assert delta < np.abs(eigenvalue).min() / 10  # no feature is always 0: there the root has no derivative
    return value, 2 * 2 * float((delta / np.sqrt(np.abs(eigenvalue))).sum())


@pytest.mark.parametrize("n", [300, metrics.BATCH + 100], ids=["one-batch", "two-batches"])
@pytest.mark.parametrize("shift", [0.0, 0.1, 0.3])
def test_the_frechet_distance_is_the_closed_formula(network, n, shift):
    a, b = images(0, 400), images(1, n, shift)
    want, slack = closed_formula(network, a, b)
    got = frechet_distance(network, a, b)
    assert want > 0
    assert slack < 0.01 * want  # it says something
    assert abs(got - want) <= slack


def test_the_frechet_distance_of_a_set_to_itself_is_0(network):
    a = images(0, 300)
    _, slack = closed_formula(network, a, a)
    assert slack < 1e-9
    assert abs(frechet_distance(network, a, a)) <= slack


def test_the_frechet_distance_grows_with_the_difference(network):
    a = images(0, 300)
    distances = [frechet_distance(network, a, images(1, 300, shift)) for shift in (0.0, 0.2, 0.5, 1.0)]
    assert distances == sorted(distances)


def test_the_frechet_distance_does_not_care_which_is_which_nor_about_order(network):
    a, b = images(0, 300), images(1, 300, 0.3)
    _, slack = closed_formula(network, a, b)
    want = frechet_distance(network, a, b)
    assert abs(frechet_distance(network, b, a) - want) <= slack
    assert abs(frechet_distance(network, a, b.flip(0)) - want) <= slack


def test_images_are_not_scaled_on_the_way_to_the_features():
    """Torchmetrics would turn images for its own Inception network into bytes."""
    seen = []

    class Spy(torch.nn.Module):
        num_features = 2

        def features(self, x):
            seen.append(x)
            return x.flatten(1)[:, :2]

    a, b = images(0, 5), images(1, 6)
    frechet_distance(Spy(), a, b)
    assert torch.equal(torch.cat(seen), torch.cat([a, b]))


# --- Recognition


def test_probabilities_are_those_of_the_network(network):
    x = images(0, metrics.BATCH + 3)
    got = probabilities(network, x)
    assert got.shape == (len(x), 3)
    # Two batches and one may sum in another order: 16 rounding errors per layer are more than enough for 4 layers.
    assert float((got - network(x).softmax(1)).abs().max()) < 64 * torch.finfo(torch.float64).eps * 16
    assert float((got.sum(1) - 1).abs().max()) < 8 * torch.finfo(torch.float64).eps


def test_recognition_by_hand():
    probability = torch.tensor([[0.95, 0.05, 0.0], [0.5, 0.3, 0.2], [0.0, 1.0, 0.0], [0.2, 0.75, 0.05]])
    read = recognition(probability, threshold=0.7)
    assert read == metrics.Recognition(confident=0.75, rarest=0.0, shares=[0.5, 0.5, 0.0])


def test_recognition_at_the_threshold_is_not_above_it():
    assert recognition(torch.tensor([[0.5, 0.5]]), threshold=0.5).confident == 0.0


def test_recognition_of_a_balanced_set():
    read = recognition(torch.eye(4).repeat(2, 1))
    assert read == metrics.Recognition(confident=1.0, rarest=0.25, shares=[0.25] * 4)


def test_recognition_of_one_class_only():
    read = recognition(torch.eye(4)[:1].expand(5, 4))
    assert read == metrics.Recognition(confident=1.0, rarest=0.0, shares=[1.0, 0.0, 0.0, 0.0])


# --- Coverage

SIGMA = 0.01


@pytest.fixture
def ring() -> Modes:
    angle = torch.arange(8) * (2 * math.pi / 8)
    return Modes(torch.stack([angle.cos(), angle.sin()], dim=1), SIGMA)


def at(modes: Modes, counts: list[int], off: float = 0.0) -> torch.Tensor:
    """So many points at each mode, ``off`` away from it."""
    return torch.cat([centre.expand(n, 2) for centre, n in zip(modes.centres, counts, strict=True)]) + torch.tensor(
        [off, 0.0]
    )


def test_every_mode_alike(ring):
    """The sum of 8 logarithms rounds 8 times."""
    got = coverage(at(ring, [5] * 8), ring)
    assert (got.modes, got.high_quality) == (8, 1.0)
    assert abs(got.reverse_kl) <= 8 * math.log(8) * torch.finfo(torch.float64).eps


def test_missing_modes(ring):
    got = coverage(at(ring, [5, 0, 5, 0, 0, 5, 5, 0]), ring)
    assert (got.modes, got.high_quality) == (4, 1.0)
    assert got.reverse_kl == pytest.approx(math.log(2), abs=8 * math.log(8) * torch.finfo(torch.float64).eps)


def test_a_single_mode(ring):
    got = coverage(at(ring, [0, 7, 0, 0, 0, 0, 0, 0]), ring)
    assert (got.modes, got.high_quality, got.reverse_kl) == (1, 1.0, math.log(8))


def test_uneven_modes(ring):
    """KL = Σ p·ln(8p) for p = 1/2, 1/4, 1/8, 1/8: ln 2 + ¼·ln 2 + 0 + 0 - that is ln 8 less the entropy 7/4·ln 2."""
    got = coverage(at(ring, [4, 2, 1, 1, 0, 0, 0, 0]), ring)
    assert got.modes == 4
    assert got.reverse_kl == pytest.approx(math.log(8) - 7 / 4 * math.log(2), abs=8 * math.log(8) * 2**-52)


def test_points_within_three_sigma_are_good(ring):
    inside, outside = at(ring, [1] * 8, off=2.9 * SIGMA), at(ring, [3] * 8, off=3.1 * SIGMA)
    assert coverage(inside, ring).high_quality == 1.0
    got = coverage(torch.cat([inside, outside]), ring)
    assert (got.modes, got.high_quality) == (8, 0.25)


def test_bad_points_do_not_count_for_a_mode(ring):
    good, bad = at(ring, [1, 0, 0, 0, 0, 0, 0, 0]), at(ring, [0, 3, 0, 0, 0, 0, 0, 0], off=0.1)
    got = coverage(torch.cat([good, bad]), ring)
    assert (got.modes, got.high_quality, got.reverse_kl) == (1, 0.25, math.log(8))


@pytest.mark.parametrize("where", [0.0, 50.0, float("nan"), float("inf")])
def test_all_bad(ring, where):
    got = coverage(torch.full((4, 2), where), ring)
    assert (got.modes, got.high_quality, got.reverse_kl) == (0, 0.0, None)


def test_far_modes_are_measured_exactly():
    """A distance by way of scalar products in float32 would be off by more than σ here."""
    modes = Modes(torch.tensor([[1000.0, 1000.0], [-1000.0, 1000.0]]), SIGMA)
    assert coverage(modes.centres.clone(), modes).high_quality == 1.0


def test_many_points(ring):
    """cdist takes another way for more than 25 rows."""
    got = coverage(at(ring, [100] * 8, off=2.5 * SIGMA), ring)
    assert (got.modes, got.high_quality) == (8, 1.0)
