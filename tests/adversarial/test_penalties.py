"""Penalties on critics whose gradients are known, and what they keep from step to step."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from adversarial.games import Pair, Play, Side
from adversarial.penalties import (
    CRITIC,
    GENERATOR,
    PENALTIES,
    Consistency,
    Dragan,
    GradientPenalty,
    LeCam,
    PathLength,
    clip_weights,
    one_centred,
    path_lengths,
    take_slopes,
    zero_centred,
)
from tests.adversarial.textbook import TEXTBOOK
from tests.adversarial.toy_games import GAMMAS, SeededDraw

BOTH = (CRITIC, GENERATOR)


def mean(x):
    return x


def test_every_penalty_has_a_textbook_formula_and_a_strength():
    """The exactness tests run over the registry; this says what to write for a new one."""
    on_critic = {name for name, penalty in PENALTIES.items() if penalty.acts_on != GENERATOR}
    assert TEXTBOOK.keys() == on_critic
    assert GAMMAS.keys() == PENALTIES.keys()


def judged(score, x: Tensor) -> Side:
    """A side that a critic has scored."""
    side = Side(x, cut=x)
    side.score = score(x)
    return side


def scored(*scores: float) -> Side:
    return Side(torch.zeros(len(scores), 1), score=torch.tensor(scores))


def test_linear_critic_has_its_weight_as_gradient():
    critic = nn.Linear(6, 1).double()
    x = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    side = judged(lambda x: critic(x.flatten(1)).squeeze(1), x)
    take_slopes([side])
    weight = critic.weight.detach()
    assert torch.equal(side.slope, weight.reshape(1, 2, 3).expand(4, 2, 3))
    penalty = zero_centred(side.slope.flatten(1))
    assert penalty.shape == (4,)
    # A sum of six squares, in any order.
    assert torch.allclose(penalty, (weight**2).sum().expand(4) / 2, rtol=1e-14)


def test_penalty_reaches_the_weights():
    """d/dw of |w|²/2 is w."""
    critic = nn.Linear(3, 1, bias=False).double()
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    side = judged(lambda x: critic(x).squeeze(1), x)
    take_slopes([side])
    zero_centred(side.slope).mean().backward()
    assert torch.allclose(critic.weight.grad, critic.weight, rtol=1e-14)


def test_several_inputs_at_once():
    """s = x³ has the gradient 3x², sample by sample, however many inputs share the pass."""
    inputs = [torch.randn(n, 1, dtype=torch.float64, requires_grad=True) for n in (2, 3)]
    sides = [judged(lambda x: x.pow(3).sum(1), x) for x in inputs]
    take_slopes(sides)
    for x, side in zip(inputs, sides, strict=True):
        assert torch.allclose(side.slope, 3 * x**2, rtol=1e-14)


def test_one_centred_is_zero_for_a_critic_of_slope_one():
    slope = torch.tensor([[0.6, 0.8], [3.0, 4.0], [0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(one_centred(slope), torch.tensor([0.0, 16.0, 1.0], dtype=torch.float64))


class Fixed(SeededDraw):
    """The same numbers whatever is drawn."""

    def __init__(self, *values: float):
        super().__init__(len(values))
        self.values = torch.tensor(values)

    def uniform(self, stream: str, shape: tuple[int, ...] = ()) -> Tensor:
        return self.values

    def noise(self, stream: str, shape: tuple[int, ...]) -> Tensor:
        return self.values[:, None].expand(-1, *shape)


def test_points_between_and_around_are_leaves():
    real, fake = torch.ones(3, 2, requires_grad=True), torch.zeros(3, 2, requires_grad=True)
    play = Play([Pair(Side(real), Side(fake))])
    (between,) = GradientPenalty().pairs(play, Fixed(0.0, 0.5, 1.0))
    assert between.fake.cut.tolist() == [[0, 0], [0.5, 0.5], [1, 1]]
    (around,) = Dragan(noise=0.5).pairs(play, Fixed(0.5, 0.5, 0.5))
    assert bool((around.fake.cut == 1.25).all())
    for points in (between, around):
        assert points.real is None
        assert points.fake.cut.is_leaf
        assert points.fake.cut.requires_grad


def test_lecam_holds_each_side_to_the_other_sides_average():
    """Averages -1 and 3 (0.5 of the weight): (1 - -1)², (2 - -1)² over reals and (5 - 3)², (0 - 3)² over fakes."""
    penalty = LeCam()
    for name, value in (("lecam_real", 1.5), ("lecam_fake", -0.5), ("lecam_weight", 0.5)):
        penalty.state[name].fill_(value)
    value = penalty.term(Play([Pair(scored(1.0, 2.0), scored(5.0, 0.0))]), [])
    assert value.item() == (4 + 9) / 2 + (4 + 9) / 2


def test_lecam_before_the_first_step_holds_scores_to_zero():
    assert LeCam().term(Play([Pair(scored(2.0), scored(-1.0))]), []).item() == 5


def test_consistency():
    play, changed = Play([Pair(scored(1.0, 2.0), scored(3.0))]), [Pair(scored(2.0, 3.0), scored(1.0))]
    assert Consistency().term(play, changed).item() == 1 + 4


def test_path_length_of_a_linear_generator():
    """J is A itself: ‖A^T y‖ for images of one pixel, whatever w is."""
    A = torch.randn(4, 3, dtype=torch.float64)
    w = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    noise = torch.randn(5, 4, 1, 1, dtype=torch.float64)
    lengths = path_lengths((w @ A.T)[:, :, None, None], w, noise)
    torch.testing.assert_close(lengths, (noise.flatten(1) @ A).norm(dim=1))


def test_path_length_over_layers_is_their_root_mean_square():
    A = torch.randn(2, 4, 3, dtype=torch.float64)
    w = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    noise = torch.randn(5, 4, 2, 2, dtype=torch.float64)
    images = torch.einsum("lcd,nld->nc", A, w)[:, :, None, None].expand(-1, -1, 2, 2)
    slopes = torch.einsum("nc,lcd->nld", noise.sum((2, 3)) / 2, A)  # 4 pixels: y / √4
    torch.testing.assert_close(path_lengths(images, w, noise), slopes.square().sum(2).mean(1).sqrt())


def test_clipped_weights():
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[5.0, -0.001], [-7.0, 0.01]]))
    clip_weights(layer, 0.01)
    torch.testing.assert_close(layer.weight.detach(), torch.tensor([[0.01, -0.001], [-0.01, 0.01]]))
    assert layer.weight.requires_grad


def test_nothing_is_clipped_to_zero():
    layer = nn.Linear(2, 2)
    before = layer.weight.detach().clone()
    clip_weights(layer, 0)
    assert torch.equal(layer.weight, before)


# --- state -----------------------------------------------------------------------------------------------------------


@settings(derandomize=True, deadline=None, max_examples=30)
@given(scores=st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=1, max_size=9))
def test_score_averages_are_averages_from_the_first_step_on(scores):
    """Weighted by 0.99 to the power of their age (in float32)."""
    penalty = LeCam()
    for step, (real, fake) in enumerate(scores):
        report = {"real_score": torch.tensor([real - 1, real + 1]), "fake_score": torch.tensor([fake])}
        penalty.update(step, (CRITIC,), report, mean)
        penalty.update(step, (GENERATOR,), {}, mean)
    weights = [0.99**age for age in range(len(scores))][::-1]
    for i, side in enumerate(("real", "fake")):
        want = sum(w * pair[i] for w, pair in zip(weights, scores, strict=True)) / sum(weights)
        assert (penalty.state[f"lecam_{side}"] / penalty.state["lecam_weight"]).item() == pytest.approx(want, abs=1e-4)


def test_path_mean_follows_the_steps_that_measure_it():
    penalty = PathLength(decay=0.75)
    a = penalty.state["path_mean"]
    penalty.update(0, BOTH, {"path_length": torch.tensor(4.0)}, mean)
    penalty.update(1, BOTH, {}, mean)
    assert a.item() == 1
    penalty.update(2, BOTH, {"path_length": torch.tensor(4.0)}, lambda x: x + 1)
    assert a.item() == 2


def test_two_runs_do_not_share_state():
    for penalty in PENALTIES.values():
        first, second = penalty(), penalty()
        assert all(first.state[name] is not second.state[name] for name in first.state)
