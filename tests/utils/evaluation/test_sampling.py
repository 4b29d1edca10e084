"""Samples are a function of (weights, latent, label); latents are a function of the seed."""

import math

import pytest
import torch
from torch import nn

from models import stylegan2
from utils.data.randomness import seeded
from utils.evaluation import sampling
from utils.evaluation.sampling import evaluating, every_class, latents, loop, mixtures, sample, walks

ROUND = torch.finfo(torch.float32).eps


def interpolation(rows: int, columns: int, dimension: int, seed: int) -> torch.Tensor:
    return walks(latents(2 * rows, dimension, seed), columns)


# --- Latents


@pytest.mark.parametrize("truncation", [None, 0.5])
def test_latents_are_a_function_of_the_seed(truncation):
    torch.manual_seed(1)
    first = latents(5, 3, seed=0, truncation=truncation)
    torch.manual_seed(2)
    assert torch.equal(latents(5, 3, seed=0, truncation=truncation), first)
    assert not torch.equal(latents(5, 3, seed=1, truncation=truncation), first)
    assert first.shape == (5, 3)


@pytest.mark.parametrize("truncation", [None, 0.5])
def test_latents_leave_the_global_generator_alone(truncation):
    before = torch.random.get_rng_state()
    latents(5, 3, seed=0, truncation=truncation)
    interpolation(2, 3, 4, seed=0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_latents_are_standard_normal():
    """Within 5 standard errors of mean 0 and variance 1."""
    z = latents(1000, 50, seed=0).double()
    assert abs(float(z.mean())) < 5 / math.sqrt(z.numel())
    assert abs(float(z.var()) - 1) < 5 * math.sqrt(2 / z.numel())


@pytest.mark.parametrize("truncation", [0.01, 0.5, 1.0, 2.0])
def test_truncation_is_a_bound_that_is_used(truncation):
    z = latents(1000, 20, seed=0, truncation=truncation)
    assert float(z.abs().max()) <= truncation
    # That all 20,000 numbers stay within 99 % of it has a chance of 0.998^20000 = e^-45 at ±2, and less below.
    assert float(z.abs().max()) > 0.99 * truncation


def test_a_wide_truncation_is_none():
    """Variance 1 within 5 standard errors: at ±8 nothing is cut."""
    z = latents(1000, 50, seed=0, truncation=8.0).double()
    assert abs(float(z.var()) - 1) < 5 * math.sqrt(2 / z.numel())


# --- Labels


def test_every_class_in_turn():
    assert every_class(7, 3).tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_no_classes_no_labels():
    assert every_class(7, 0) is None


# --- Walks


@pytest.mark.parametrize(("rows", "columns", "dimension"), [(1, 2, 3), (4, 8, 32), (3, 5, 100), (2, 7, 2), (3, 4, 1)])
def test_a_walk_begins_and_ends_at_latents(rows, columns, dimension):
    """Each end is (sin θ · a + 0 · b) / sin θ: two roundings, and one in each of the two sines."""
    walk = interpolation(rows, columns, dimension, seed=0).view(rows, columns, dimension)
    ends = latents(2 * rows, dimension, seed=0)
    for got, want in ((walk[:, 0], ends[:rows]), (walk[:, -1], ends[rows:])):
        assert bool(((got - want).abs() <= 4 * ROUND * want.abs()).all())


@pytest.mark.parametrize("dimension", [16, 100, 512])
def test_the_norms_on_a_walk_stay_between_those_of_its_ends(dimension):
    """On a great circle between a and b, with c = cos θ and m ≤ M the squared norms of the ends,
    |v|² = (s²|a|² + t²|b|² + 2st·c·|a||b|) / sin²θ, where s² + t² + 2stc = sin²θ: a mean of the ends for c ≥ 0; for
    c < 0 it leaves [m, M] by at most 2st|c|(M - m) / sin²θ ≤ |c| / (1 + c) · (M - m), because st ≤ sin²(θ/2).
    """
    walk = interpolation(8, 9, dimension, seed=0).view(8, 9, dimension).double()
    a, b = walk[:, 0], walk[:, -1]
    c = nn.functional.cosine_similarity(a, b)[:, None]
    square = walk.square().sum(2)
    low, high = (torch.minimum, torch.maximum)
    m, M = (pick(square[:, :1], square[:, -1:]) for pick in (low, high))
    slack = (-c).clamp(min=0) / (1 + c) * (M - m) + 100 * ROUND * M  # and rounding in float32
    assert bool((square >= m - slack).all())
    assert bool((square <= M + slack).all())
    assert float(slack.max()) < 0.2 * float(M.max())  # it says something: a straight line falls to half


def test_a_walk_of_one_picture_is_its_beginning():
    assert interpolation(3, 1, 8, seed=0).shape == (3, 8)


def test_rows_walk_between_latents_of_their_own():
    walk = interpolation(2, 3, 8, seed=0).view(2, 3, 8)
    assert not torch.equal(walk[0], walk[1])


@pytest.mark.parametrize("dimension", [1, 2, 3, 7])
def test_a_walk_in_few_dimensions_is_straight(dimension):
    walk = interpolation(200, 5, dimension, seed=0).view(200, 5, dimension)
    torch.testing.assert_close(walk[:, 1:].diff(dim=1), walk[:, :-1].diff(dim=1), rtol=0, atol=16 * ROUND)
    farther = torch.maximum(walk[:, 0].norm(dim=1), walk[:, -1].norm(dim=1))[:, None]
    assert bool((walk.norm(dim=2) <= farther * (1 + 4 * ROUND)).all())


def test_a_walk_in_eight_dimensions_stays_about_as_far_out_as_its_ends():
    """Few of 2,000 walks go half as far out again, and their middle is no nearer, as a straight line's would be."""
    walk = interpolation(2000, 5, 8, seed=0).view(2000, 5, 8).norm(dim=2)
    farther = torch.maximum(walk[:, 0], walk[:, -1])[:, None]
    assert int((walk > 1.5 * farther).any(1).sum()) <= 2
    assert float(walk[:, 2].median()) == pytest.approx(float(walk[:, [0, -1]].median()), rel=0.05)


# --- Styles


@pytest.fixture(params=[0, 3], ids=["plain", "classes"])
def styled(request):
    with seeded(0, "test"):
        config = stylegan2.Config(latent_dim=6, mapping_layers=2, channel_max=4)
        generator = stylegan2.Generator(config, (1, 8, 8), request.param)
        for block in generator.blocks:
            for layer in block.layers:
                nn.init.ones_(layer.strength)  # noise that the latent does not explain
    return generator, request.param


def test_styles_make_the_samples(styled):
    generator, classes = styled
    z, label = latents(9, 6, seed=0), every_class(9, classes)
    w = sampling.styles(generator, z, label)
    assert torch.equal(w, sampling.styles(generator, z, label, truncation=1.0))
    torch.testing.assert_close(sampling.synthesise(generator, w), sample(generator, z, label), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("psi", [0.0, 0.3, 1.5])
def test_truncation_moves_styles_to_the_mean_of_their_class(styled, psi):
    """Against the mean over other latents: 5 standard errors of the difference of two means of 10,000."""
    generator, classes = styled
    z, label = latents(9, 6, seed=1), every_class(9, classes)
    w, got = (sampling.styles(generator, z, label, truncation) for truncation in (None, psi))
    for k in range(classes or 1):
        others = sampling.styles(generator, latents(10_000, 6, seed=2), torch.full((10_000,), k) if classes else None)
        mean, error = others.mean(0), others.std(0) * math.sqrt(2 / 10_000)
        mine = slice(k, None, classes or 1)
        assert bool(((got[mine] - (mean + psi * (w[mine] - mean))).abs() <= 5 * abs(1 - psi) * error).all())


def test_at_0_all_samples_of_a_class_are_the_same(styled):
    generator, classes = styled
    label = every_class(9, classes)
    w = sampling.styles(generator, latents(9, 6, seed=1), label, truncation=0.0)
    images = sampling.synthesise(generator, w)
    for k in range(classes or 1):
        mine = slice(k, None, classes or 1)
        assert torch.equal(w[mine], w[k].expand_as(w[mine]))
        torch.testing.assert_close(images[mine], images[k].expand_as(images[mine]), rtol=1e-5, atol=1e-5)
    if classes:
        assert float((images[0] - images[1]).abs().max()) > 1e-2


def test_walks_of_styles_are_straight_in_any_dimension():
    ends = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(0)).repeat_interleave(2, dim=0)
    walk = sampling.straight_walks(ends, 5).view(2, 5, 3, 16)
    want = torch.stack([ends[:2] + t * (ends[2:] - ends[:2]) for t in (0.0, 0.25, 0.5, 0.75, 1.0)], dim=1)
    torch.testing.assert_close(walk, want, rtol=1e-5, atol=1e-5)


# --- Samples


class Coupled(nn.Module):
    """In training mode a sample depends on its batch, as with BatchNorm; in evaluation mode it is exact arithmetic."""

    def __init__(self, scale: float = 2.0):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.sizes: list[int] = []

    def forward(self, z, label=None):
        self.sizes.append(len(z))
        x = z * self.scale if label is None else z * self.scale + label[:, None]
        return x - x.mean(0) if self.training else x


@pytest.fixture
def z():
    return latents(2 * sampling.BATCH + 7, 3, seed=0)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_the_module_is_kept(z, training):
    module = Coupled().train(training)
    assert torch.equal(sample(module, z, None), 2 * z)
    assert module.training is training


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_kept_after_an_error(training):
    module = Coupled().train(training)
    with pytest.raises(RuntimeError), evaluating(module):
        assert not module.training
        raise RuntimeError
    assert module.training is training


def test_a_sample_does_not_depend_on_its_batch(z):
    module = Coupled()
    whole = sample(module, z, None)
    assert max(module.sizes) <= sampling.BATCH
    for count in (1, 2, sampling.BATCH, sampling.BATCH + 1):
        assert torch.equal(sample(module, z[:count], None), whole[:count])
    assert torch.equal(sample(module, z.flip(0), None), whole.flip(0))


def test_labels_go_with_their_latents(z):
    label = every_class(len(z), 3)
    assert torch.equal(sample(Coupled(), z, label), 2 * z + label[:, None])


def test_samples_carry_no_graph_and_are_floats_on_the_cpu(z):
    got = sample(Coupled().bfloat16(), z.bfloat16(), None)
    assert got.dtype == torch.float32
    assert not got.requires_grad
    assert got.device == torch.device("cpu")


def test_running_statistics_do_not_move(z):
    module = nn.BatchNorm1d(3).train()
    module.forward_ = module.forward
    module.forward = lambda z, label: module.forward_(z)
    sample(module, z, None)
    assert module.num_batches_tracked.item() == 0
    assert module.running_mean.tolist() == [0, 0, 0]


def test_a_loop_goes_through_both_ends_and_comes_back():
    """a, b, -a, -b: but for the rounding of sines and cosines of whole quarters, which is 2e-16 at most."""
    a, b = latents(6, 4, seed=0).chunk(2)
    for latent, want in zip(loop(torch.cat([a, b]), 4), (a, b, -a, -b), strict=True):
        torch.testing.assert_close(latent, want, rtol=0, atol=1e-14)


def test_every_coarse_style_meets_every_fine_one():
    coarse, fine = torch.zeros(2, 3, 1), torch.ones(3, 3, 1)
    coarse[1], fine[2] = 5, 7
    mixed = mixtures(coarse, fine, layers=1)[..., 0].tolist()
    assert mixed == [[x, y, y] for x in (0, 5) for y in (1, 1, 7)]


@pytest.mark.parametrize("dimension", [1, 3, 100])
@pytest.mark.parametrize("truncation", [None, 0.5, 3.0])
def test_a_latent_does_not_depend_on_how_many_there_are(dimension, truncation):
    many = latents(200, dimension, 0, truncation)
    assert all(torch.equal(latents(count, dimension, 0, truncation), many[:count]) for count in (1, 15, 64, 65, 131))
