"""The probe that finds a critic which a single pass cannot serve."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from adversarial.coupling import couples_samples
from adversarial.objectives import OBJECTIVES
from adversarial.penalties import CRITIC, GENERATOR
from models import dcgan
from tests.adversarial.textbook import separate_passes
from tests.adversarial.toy_games import (
    CLASSES,
    PLANS,
    SHAPE,
    SeededDraw,
    image_batch,
    image_game,
    play_turns,
    relative_error,
)


class Vectors(nn.Module):
    """A critic of images: a layer that may couple samples, between two that do not."""

    def __init__(self, middle: nn.Module):
        super().__init__()
        size = math.prod(SHAPE)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(size, 8), middle, nn.LeakyReLU(0.2))
        self.score = nn.LazyLinear(1)
        self(torch.zeros(8, *SHAPE))  # tells the lazy layer its size

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        return self.score(self.layers(x)).squeeze(1)


class MinibatchStddev(nn.Module):
    """Appends the mean standard deviation over groups of the batch (Karras et al. 2018, section 3). StyleGAN's groups
    are interleaved: samples i, i + N/group, ...
    """

    def __init__(self, group: int | None = None):
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        grouped = x.unflatten(0, (self.group or len(x), -1))
        spread = (grouped.var(0, unbiased=False) + 1e-8).sqrt().mean(1)
        return torch.cat([x, spread.repeat(len(grouped))[:, None]], dim=1)


class GhostBatchNorm(nn.Module):
    """BatchNorm over neighbouring samples (Hoffer et al. 2017): parts of a batch that do not see each other."""

    def __init__(self, features: int, size: int):
        super().__init__()
        self.norm, self.size = nn.BatchNorm1d(features), size

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.norm(part) for part in x.split(self.size)])


class Residual(nn.Module):
    """x + γ · f(x) with γ = 0 at first (ReZero, SAGAN's attention): f has no effect until training moves γ."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner, self.gain = inner, nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gain * self.inner(x)


class BatchMean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(0, keepdim=True).expand_as(x)


def dcgan_critic(norm: str, classes: int = 0) -> nn.Module:
    return dcgan.Critic(dcgan.Config(critic_width=4, critic_norm=norm), SHAPE, classes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("n", [2, 3, 8])
@pytest.mark.parametrize(
    "critic",
    {
        "plain": lambda: dcgan_critic("none"),
        "group": lambda: dcgan_critic("group"),
        "spectral": lambda: dcgan_critic("spectral"),
        "layer": lambda: Vectors(nn.LayerNorm(8)),
        "dropout": lambda: Vectors(nn.Dropout(0.5)),
        "instance": lambda: nn.Sequential(nn.InstanceNorm2d(1, affine=True), *Vectors(nn.Identity()).layers),
    }.items(),
    ids=lambda item: item[0],
)
def test_independent_critics_pass_the_probe(critic, n, dtype):
    """Exactly zero, in either precision: no tolerance that a weak coupling could hide under."""
    torch.manual_seed(0)
    name, build = critic
    network = build()
    if name == "instance":
        network = nn.Sequential(*network, nn.Linear(8, 1), nn.Flatten(0))
    assert not couples_samples(network.to(dtype), image_batch(n, dtype=dtype).x)


@pytest.mark.parametrize("norm", ["none", "group", "spectral"])
def test_independent_conditional_critics_pass_the_probe(norm):
    torch.manual_seed(0)
    assert not couples_samples(dcgan_critic(norm, CLASSES), *image_batch(dtype=torch.float32)[:2])


COUPLING = {
    "batch-norm": lambda: Vectors(nn.BatchNorm1d(8)),
    "dcgan-batch-norm": lambda: dcgan_critic("batch"),
    "minibatch-stddev": lambda: Vectors(MinibatchStddev()),
    "minibatch-stddev-interleaved-groups": lambda: Vectors(MinibatchStddev(4)),
    "minibatch-stddev-pairs": lambda: Vectors(MinibatchStddev(2)),
    "ghost-batch-norm": lambda: Vectors(GhostBatchNorm(8, size=4)),
    "ghost-batch-norm-pairs": lambda: Vectors(GhostBatchNorm(8, size=2)),
    "zero-initialised-gain": lambda: Vectors(Residual(BatchMean())),
    "zero-initialised-gain-of-a-batch-norm": lambda: Vectors(Residual(nn.BatchNorm1d(8))),
}


@pytest.mark.parametrize("critic", COUPLING)
def test_coupling_critics_are_found(critic):
    """Whatever the samples are grouped by, and also where a layer at zero hides the coupling until training begins."""
    torch.manual_seed(0)
    assert couples_samples(COUPLING[critic](), image_batch(8, dtype=torch.float32).x)


def test_coupling_conditional_critic_is_found():
    torch.manual_seed(0)
    assert couples_samples(dcgan_critic("batch", CLASSES), *image_batch(dtype=torch.float32)[:2])


def test_coupling_is_found_in_a_critic_that_is_in_evaluation_mode():
    """The question is how it will judge in training."""
    assert couples_samples(dcgan_critic("batch").eval(), image_batch(dtype=torch.float32).x)


@pytest.mark.parametrize("norm", ["batch", "spectral"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_probe_leaves_everything_as_it_was(norm, training):
    """Running statistics, power iteration, modes, flags, gradients, random numbers, the batch: a run with the probe and
    one without it must go the same way.
    """
    critic = dcgan_critic(norm).train(training)
    critic.features[0].requires_grad_(False)
    batch = image_batch(dtype=torch.float32)
    state, x = copy.deepcopy(critic.state_dict()), batch.x.clone()
    flags = {name: p.requires_grad for name, p in critic.named_parameters()}
    random = torch.get_rng_state()

    couples_samples(critic, batch.x)

    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, state[name]) for name, value in critic.state_dict().items())
    assert {name: p.requires_grad for name, p in critic.named_parameters()} == flags
    assert all(p.grad is None for p in critic.parameters())
    assert all(module.training == training for module in critic.modules())
    assert torch.equal(batch.x, x)
    assert not batch.x.requires_grad


def test_probe_says_the_same_whatever_the_random_state():
    batch = image_batch(dtype=torch.float32)
    for seed in range(3):
        torch.manual_seed(seed)
        assert not couples_samples(dcgan_critic("none"), batch.x)
        assert couples_samples(dcgan_critic("batch"), batch.x)


def test_probe_works_where_gradients_are_switched_off():
    with torch.no_grad():
        assert couples_samples(dcgan_critic("batch"), image_batch(dtype=torch.float32).x)


@pytest.mark.parametrize(
    ("shape", "critic"),
    {
        r"\(4, 1\)": nn.Sequential(nn.Flatten(), nn.Linear(math.prod(SHAPE), 1)),
        r"\(4, 2\)": nn.Sequential(nn.Flatten(), nn.Linear(math.prod(SHAPE), 2)),
        r"\(16,\)": nn.Sequential(nn.Conv2d(1, 1, 4, stride=4), nn.Flatten(0)),
    }.items(),
    ids=["column", "two-scores", "patches"],
)
def test_probe_refuses_anything_but_one_score_per_sample(shape, critic):
    """A column [N, 1] would broadcast against [N] into N² losses, and nobody would notice."""
    with pytest.raises(ValueError, match=shape + r" for 4 samples, not \(4,\)"):
        couples_samples(critic, image_batch(dtype=torch.float32).x)


def test_probe_needs_two_samples():
    with pytest.raises(ValueError, match="at least 2 samples"):
        couples_samples(dcgan_critic("none"), torch.zeros(1, *SHAPE))


@pytest.mark.parametrize("objective", ["non_saturating", "least_squares", "relativistic"])
def test_why_a_single_pass_refuses_such_critics(objective):
    """Through BatchNorm the gradient that reaches a fake is a mixture of all c_j: no factor per sample unmixes it.

    The critic's own gradient is right, as is that of the simultaneous rule, which carries g_i instead.
    """
    game, batch, draw = image_game("batch", together=False), image_batch(), SeededDraw(4)
    rule = OBJECTIVES[objective]
    want = separate_passes("single_pass", game, rule, batch, draw)
    wrong = play_turns(PLANS["single_pass"](game, rule, [(batch, draw)]), game)
    assert relative_error(wrong[CRITIC], want[CRITIC]) <= 1e-12
    assert relative_error(wrong[GENERATOR], want[GENERATOR]) > 1e-2
    right = play_turns(PLANS["simultaneous"](game, rule, [(batch, draw)]), game)
    assert relative_error(right[GENERATOR], want[GENERATOR]) <= 1e-12
