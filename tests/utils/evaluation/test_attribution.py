"""Attributions of scores whose gradients are known."""

import pytest
import torch
from torch import nn

from utils.errors import UserError
from utils.evaluation import attribution
from utils.evaluation.attribution import ATTRIBUTIONS, baseline

X = torch.linspace(-1, 1, 2 * 3 * 4).reshape(2, 1, 3, 4).double()
WEIGHTS = torch.arange(-6.0, 6.0).reshape(1, 3, 4).double()


def test_of_a_linear_score_each_is_the_weights():
    """Integrated gradients are that times the way from black; no rectifier is there to be guided."""
    for name, attribute in ATTRIBUTIONS.items():
        want = (X + 1) * WEIGHTS if name == "integrated gradients" else WEIGHTS.expand_as(X)
        torch.testing.assert_close(attribute(lambda x: (x * WEIGHTS).sum((1, 2, 3)), X), want, msg=name)


def quadratic(x):
    return x.square().sum((1, 2, 3))


def test_of_a_quadratic_score():
    """By hand: 2x; x² - b² on a straight way with b = -1; with noise ε, 2(x + ε), whose mean error is known."""
    torch.testing.assert_close(attribution.gradient(quadratic, X), 2 * X)
    torch.testing.assert_close(attribution.integrated_gradients(quadratic, X), X.square() - 1)
    off = attribution.smoothgrad(quadratic, X) - 2 * X
    sigma = 2 * attribution.NOISE * 2 / attribution.STEPS**0.5  # of the mean of 2ε, the range of X being 2
    assert 0 < off.abs().max() < 5 * sigma
    assert 0.5 * sigma < off.std() < 2 * sigma  # 24 values: its relative error is 15 %


@pytest.mark.parametrize("shape", [(2, 1, 3, 4), (2, 12)], ids=["images", "vectors"])
def test_integrated_gradients_sum_to_the_change_of_the_score(shape):
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Flatten(), nn.Linear(12, 32), nn.Tanh(), nn.Linear(32, 1), nn.Flatten(0)).double()
    x = X.reshape(shape)
    assert bool((baseline(x) == (-1 if len(shape) == 4 else 0)).all())
    total = attribution.integrated_gradients(layers, x).flatten(1).sum(1)
    # The midpoint rule is off by at most |f'''| / (24 STEPS²), 4e-5 of a third derivative of the order of 1.
    torch.testing.assert_close(total, layers(x) - layers(baseline(x)), rtol=0, atol=2e-4)


def test_guided_backpropagation_sees_rectifiers():
    def score(x):
        return -torch.relu(x).sum((1, 2, 3))

    assert attribution.gradient(score, X).min() == -1
    assert not attribution.guided(score, X).any()


def test_smoothgrad_is_the_same_every_time():
    assert torch.equal(attribution.smoothgrad(quadratic, X), attribution.smoothgrad(quadratic, X))


NOT_DIFFERENTIABLE = {
    "detached": (lambda x: quadratic(x.detach()), "no gradient by its input"),
    "detached, with weights": (lambda x: quadratic(x.detach()) * torch.ones(2, requires_grad=True), "no gradient"),
    "without graph": (torch.no_grad()(quadratic), "no gradient by its input"),
    "infinite": (lambda x: (x + 1).sqrt().sum((1, 2, 3)), "NaN or infinite"),
}  # fmt: skip


@pytest.mark.parametrize("case", NOT_DIFFERENTIABLE)
def test_a_score_that_is_not_differentiable_is_one_sentence(case):
    score, message = NOT_DIFFERENTIABLE[case]
    with pytest.raises(UserError, match=message) as caught:
        attribution.gradient(score, X)
    assert "\n" not in str(caught.value)


class TwoMaps(nn.Module):
    """A score that is 3 times the sum of one map of a layer, minus twice that of another."""

    def __init__(self):
        super().__init__()
        self.maps = nn.Conv2d(1, 2, 1, bias=False).double()
        self.flat = nn.Flatten()
        self.maps.weight.data = torch.tensor([1.0, -1.0]).double().reshape(2, 1, 1, 1)

    def forward(self, x):
        first, second = self.maps(x[:, :, ::2, ::2]).unbind(1)
        return (3 * self.flat(first) - 2 * self.flat(second)).sum(1)


def test_grad_cam_by_hand():
    """A map's weight is its mean gradient: 3 and -2. So it shows 3 x - 2 (-x) at every other pixel."""
    network, x = TwoMaps(), torch.linspace(-1, 1, 2 * 4 * 4).reshape(2, 1, 4, 4).double()
    got = attribution.grad_cam(network, x, network.maps)
    want = nn.functional.interpolate(5 * x[:, :, ::2, ::2], size=(4, 4), mode="bilinear")
    torch.testing.assert_close(got, want)
    assert not network.maps._forward_hooks


def test_grad_cam_of_a_pack_is_that_of_each_of_its_images():
    network, x = TwoMaps(), X.repeat(2, 1, 1, 1)
    got = attribution.grad_cam(lambda x: network(x[::2] + x[1::2]), x, network.maps)
    assert torch.equal(got[::2], got[1::2])
    torch.testing.assert_close(got[::2], attribution.grad_cam(network, x[::2] + x[1::2], network.maps))


def test_grad_cam_is_blank_where_a_layer_is_not_passed():
    got = attribution.grad_cam(quadratic, X, nn.Conv2d(1, 1, 1))
    assert got.shape == X.shape
    assert not got.any()


def test_layers_that_give_maps():
    network = nn.ModuleDict({"critic": TwoMaps(), "other": nn.Conv2d(1, 1, 1)})
    assert attribution.layers_with_maps(network["critic"], X, network).keys() == {"critic.maps"}
    assert attribution.layers_with_maps(lambda x: x.sum(1), X.flatten(1), network) == {}


def test_it_works_where_gradients_are_off():
    with torch.no_grad():
        assert attribution.gradient(quadratic, X).any()
