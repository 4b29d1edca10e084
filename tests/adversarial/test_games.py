"""Games: what is played and judged, and the probe that finds a critic which a single pass cannot serve."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from adversarial.games import Batch, GenerationGame, Play, couples_samples, packed
from adversarial.objectives import OBJECTIVES
from adversarial.updates import CRITIC, GENERATOR
from models import dcgan
from tests.adversarial.toy_games import (
    CLASSES,
    LATENT,
    PLANS,
    SHAPE,
    SeededDraw,
    image_batch,
    image_game,
    play_turns,
    relative_error,
    separate_passes,
)

# --- the generation game -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("conditional", [False, True], ids=["unconditional", "conditional"])
def test_play_is_a_function_of_batch_and_draw(conditional):
    game, batch = image_game(conditional=conditional), image_batch()
    play, again = game.play(batch, SeededDraw(4)), game.play(batch, SeededDraw(4))
    assert play.real == (batch.x,)
    assert torch.equal(play.fake[0], again.fake[0])
    assert not torch.equal(play.fake[0], game.play(batch, SeededDraw(4).fork("other")).fake[0])
    assert play.fake[0].shape == (4, *SHAPE)
    assert play.task_loss is None
    # A fake has the label of the real sample at its place; a game without a condition keeps the data's labels out.
    assert (play.condition is batch.label) == conditional
    assert conditional or play.condition is None


@pytest.mark.parametrize("conditional", [False, True], ids=["unconditional", "conditional"])
@pytest.mark.parametrize("norm", ["none", "group"])
def test_together_or_apart_gives_the_same_scores(norm, conditional):
    """Where the critic judges each sample on its own, one call on both halves is only a matter of speed."""
    together, apart = (image_game(norm, conditional, together=t) for t in (True, False))
    play = together.play(image_batch(), SeededDraw(4))
    with torch.no_grad():
        scores, expected = together.judge(play), apart.judge(play)
    for (a,), (b,) in zip((*scores, together.judge_fake(play)), (*expected, expected[1]), strict=True):
        assert a.shape == (4,)
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_batch_norm_sees_real_and_fake_apart():
    """Radford et al. 2016 give the critic a batch of each: its statistics, and so its scores, are another's."""
    game = image_game("batch", together=False)
    play = game.play(image_batch(), SeededDraw(4))
    with torch.no_grad():
        (real,), (fake,) = game.judge(play)
        assert torch.equal(real, game.critic(*play.real))
        assert torch.equal(fake, game.critic(*play.fake))
        mixed = game.critic(torch.cat([*play.real, *play.fake]))
    assert not torch.allclose(torch.cat([real, fake]), mixed, rtol=1e-2)


def test_the_condition_reaches_both_players():
    game = image_game(conditional=True)
    batch = image_batch()
    other = batch._replace(label=(batch.label + 1) % CLASSES)
    play = game.play(batch, SeededDraw(4))
    assert not torch.allclose(play.fake[0], game.play(other, SeededDraw(4)).fake[0])
    relabelled = Play(play.real, play.fake, other.label)
    for (a,), (b,) in zip(game.judge(play), game.judge(relabelled), strict=True):
        assert not torch.allclose(a, b)


# --- the probe for batch coupling ------------------------------------------------------------------------------------


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


def test_game_takes_any_generator_and_critic():
    """``GenerationGame`` asks nothing of its networks but their calls."""
    game = GenerationGame(nn.Bilinear(LATENT, 1, 2), nn.Bilinear(2, 1, 1), LATENT, conditional=True, together=True)
    batch = Batch(torch.randn(4, 2), torch.ones(4, 1))
    play = game.play(batch, SeededDraw(4, dtype=torch.float32))
    assert [scores.shape for (scores,) in game.judge(play)] == [(4, 1), (4, 1)]


# --- packs and augmentations -------------------------------------------------------------------------------------


@settings(derandomize=True, deadline=None, max_examples=30)
@given(pack=st.integers(1, 4), packs=st.integers(1, 3), shape=st.lists(st.integers(1, 3), min_size=1, max_size=3))
def test_a_pack_is_samples_in_a_row_side_by_side(pack, packs, shape):
    x = torch.randn(pack * packs, *shape)
    together = packed(x, pack)
    assert together.shape == (packs, pack * shape[0], *shape[1:])
    for i, sample in enumerate(x):
        begin = i % pack * shape[0]
        assert torch.equal(together[i // pack, begin : begin + shape[0]], sample)


def test_real_and_fake_are_looked_at_by_numbers_of_their_own():
    seen = []

    def augment(draw, stream, p):
        seen.append((stream, p))
        return lambda x: 2 * x if stream == "augment real" else 3 * x

    p = torch.tensor(0.25)
    game = image_game(augment=augment, memory={"augment_p": p})
    play = game.play(image_batch(), SeededDraw(4))
    assert seen == [("augment real", p), ("augment fake", p)]
    (real,), (fake,) = game.judge(play)
    torch.testing.assert_close(real, game.critic(2 * play.real[0]))
    torch.testing.assert_close(fake, game.critic(3 * play.fake[0]))
    p.fill_(1)
    assert play.report["augment_p"].item() == 0.25  # as it was when the game was played
