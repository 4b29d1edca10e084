"""Objectives against formulas written down by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adversarial.objectives import OBJECTIVES, Auxiliary, confusion, log_odds, log_odds_of_all


def log_sigmoid(t):
    return -math.log1p(math.exp(-t)) if t > -30 else t


# (critic, generator with constant reals, generator that moves the reals) for one pair of scores.
FORMULAS = {
    "minimax": (
        lambda r, f: -log_sigmoid(r) - log_sigmoid(-f),
        lambda f: log_sigmoid(-f),
        lambda r, f: log_sigmoid(-f) + log_sigmoid(r),
    ),
    "non_saturating": (
        lambda r, f: -log_sigmoid(r) - log_sigmoid(-f),
        lambda f: -log_sigmoid(f),
        lambda r, f: -log_sigmoid(f) - log_sigmoid(-r),
    ),
    "hinge": (lambda r, f: max(0, 1 - r) + max(0, 1 + f), lambda f: -f, lambda r, f: r - f),
    "least_squares": (
        lambda r, f: ((r - 1) ** 2 + f**2) / 2,
        lambda f: (f - 1) ** 2 / 2,
        lambda r, f: ((f - 1) ** 2 + r**2) / 2,
    ),
    "confusion": (
        lambda r, f: -log_sigmoid(r) - log_sigmoid(-f),
        lambda f: -(log_sigmoid(f) + log_sigmoid(-f)) / 2,
        lambda r, f: -(log_sigmoid(f) + log_sigmoid(-f) + log_sigmoid(r) + log_sigmoid(-r)) / 2,
    ),
    "wasserstein": (lambda r, f: f - r, lambda f: -f, lambda r, f: r - f),
    "relativistic": (lambda r, f: -log_sigmoid(r - f), None, lambda r, f: -log_sigmoid(f - r)),
}


@settings(derandomize=True, deadline=None, max_examples=30)
@given(pairs=st.lists(st.tuples(st.floats(-20, 20), st.floats(-20, 20)), min_size=1, max_size=5))
@pytest.mark.parametrize("name", OBJECTIVES)
def test_losses_are_the_formulas_per_sample(name, pairs):
    real, fake = (torch.tensor(column, dtype=torch.float64) for column in zip(*pairs, strict=True))
    critic, alone, both = FORMULAS[name]
    objective = OBJECTIVES[name]

    def check(got, want):
        assert got.shape == (len(pairs),)
        # Two roundings per logarithm, and softplus is exact up to e^-20 beyond its threshold of 20.
        assert torch.allclose(got, torch.tensor(want, dtype=torch.float64), rtol=1e-14, atol=3e-9)

    check(objective.critic_loss(real, fake), [critic(r, f) for r, f in pairs])
    check(objective.generator_loss(real, fake), [both(r, f) for r, f in pairs])
    assert objective.pairs == (alone is None)
    if alone is not None:
        check(objective.generator_loss(None, fake), [alone(f) for f in fake.tolist()])


@pytest.mark.parametrize("name", OBJECTIVES)
def test_players_pull_in_opposite_directions(name):
    """Where the critic is right the critic lowers a fake's score and the generator raises it, and so for reals."""
    objective = OBJECTIVES[name]
    between = (0.7, (objective.boundary or 0) - 0.3)
    scores = [torch.full((3,), s, dtype=torch.float64, requires_grad=True) for s in between]
    critic = torch.autograd.grad(objective.critic_loss(*scores).sum(), scores)
    generator = torch.autograd.grad(objective.generator_loss(*scores).sum(), scores)
    for c, g, sign in zip(critic, generator, (-1, 1), strict=True):
        assert (sign * c > 0).all()
        assert (sign * g < 0).all()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_zero_sum_objective_is_told_as_one(name):
    """On either side alone, on both, and weighed."""
    objective = OBJECTIVES[name]
    real, fake, *weights = torch.randn(4, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sides = [(real, fake)] if objective.pairs else [(real, fake), (real, None), (None, fake)]
    sums = [objective.critic_loss(*s, weights) + objective.generator_loss(*s, weights) for s in sides]
    assert objective.zero_sum == all(bool((x.abs() < 1e-15).all()) for x in sums)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("real", [-1e4, 1e4])
@pytest.mark.parametrize("fake", [-1e4, 1e4])
def test_far_scores_stay_finite(name, real, fake):
    scores = [torch.full((2,), value, requires_grad=True) for value in (real, fake)]
    for loss in (OBJECTIVES[name].critic_loss, OBJECTIVES[name].generator_loss):
        value = loss(*scores).sum()
        gradients = torch.autograd.grad(value, scores)
        assert all(torch.isfinite(t).all() for t in (value, *gradients))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_weights_multiply_each_sample_of_their_side(name):
    objective = OBJECTIVES[name]
    draw = torch.Generator().manual_seed(0)
    real, fake, a, b = torch.rand(4, 6, generator=draw, dtype=torch.float64)
    for loss in (objective.critic_loss, objective.generator_loss):
        if objective.pairs:  # a pair weighs as the mean of its two
            torch.testing.assert_close(loss(real, fake, (a, b)), (a + b) / 2 * loss(real, fake))
        else:
            torch.testing.assert_close(loss(real, fake, (a, b)), a * loss(real, None) + b * loss(None, fake))


def test_log_odds_turn_k_classes_into_one_score():
    """-log σ(score) is the cross-entropy, -log(1 - σ(score)) that of not being the class."""
    logits = 5 * torch.randn(50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    label = torch.arange(50) % 4
    score, p = log_odds(logits, label), logits.softmax(1)[range(50), label]
    critic = OBJECTIVES["minimax"].critic_loss
    torch.testing.assert_close(critic(score, None), torch.nn.functional.cross_entropy(logits, label, reduction="none"))
    torch.testing.assert_close(critic(None, score), -torch.log1p(-p))


def test_confusion_over_k_classes_is_cross_entropy_to_the_uniform_distribution():
    logits = torch.randn(50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    label = torch.arange(50) % 4
    scores = log_odds_of_all(logits, label)
    torch.testing.assert_close(scores[:, 0], log_odds(logits, label))
    torch.testing.assert_close(confusion(scores), -logits.log_softmax(1).mean(1))
    own = OBJECTIVES["confusion"].critic_loss(scores, None)
    torch.testing.assert_close(own, torch.nn.functional.cross_entropy(logits, label, reduction="none"))


def test_confusion_over_two_classes_needs_one_score_only():
    logits = torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    label = torch.arange(50) % 2
    torch.testing.assert_close(confusion(log_odds(logits, label)), confusion(log_odds_of_all(logits, label)))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_auxiliary_adds_the_cross_entropy_of_the_class_for_both_players(name):
    torch.manual_seed(0)
    logits, label = torch.randn(2, 5, 4, dtype=torch.float64), torch.arange(5) % 4
    scores = torch.randn(2, 5, dtype=torch.float64)
    both = [torch.stack([s, log_odds(z, label)], dim=1) for s, z in zip(scores, logits, strict=True)]
    entropy = [torch.nn.functional.cross_entropy(z, label, reduction="none") for z in logits]
    objective, plain = Auxiliary(OBJECTIVES[name], 0.5), OBJECTIVES[name]
    torch.testing.assert_close(
        objective.critic_loss(*both), plain.critic_loss(*scores) + 0.5 * entropy[0] + 0.5 * entropy[1]
    )
    torch.testing.assert_close(objective.generator_loss(*both), plain.generator_loss(*scores) + 0.5 * entropy[1])
    assert (objective.pairs, objective.boundary) == (plain.pairs, plain.boundary)
