"""The Fréchet distance against its closed formula."""

import numpy as np
import pytest
import scipy.linalg
import torch

from utils.evaluation.classifier import EVALUATED_AT_ONCE, Classifier
from utils.evaluation.distances import frechet_distance


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


@pytest.mark.parametrize("n", [300, EVALUATED_AT_ONCE + 100], ids=["one-batch", "two-batches"])
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
