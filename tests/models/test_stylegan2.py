"""StyleGAN2: shapes, published sizes, modulation, noise and mixing, derivatives, errors."""

import pytest
import torch
from torch.nn.functional import conv2d, conv_transpose2d

from models import stylegan2
from models.resampling import Blur
from tests.models.image_pairs import away_from_zero, check_second_derivative, couples, parameters, without_gradient

TINY = {"latent_dim": 6, "mapping_layers": 2, "label_layers": 2, "channel_max": 4}


def pair(resolution=16, classes=0, channels=3, **fields):
    config, shape = stylegan2.Config(**{**TINY, **fields}), (channels, resolution, resolution)
    return stylegan2.Generator(config, shape, classes), stylegan2.Critic(config, shape, classes)


@pytest.mark.parametrize("classes", [0, 3], ids=["unconditional", "conditional"])
@pytest.mark.parametrize("critic", stylegan2.CRITICS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("resolution", [8, 16, 32, 64, 128, 256])
def test_shapes(resolution, channels, critic, classes):
    generator, critic = pair(resolution, classes, channels, critic=critic)
    label = torch.tensor([0, 2]) if classes else None
    latent = torch.randn(2, 6)
    images = generator(latent, label)
    assert images.shape == (2, channels, resolution, resolution)
    w = generator.map(latent, label)
    assert w.shape == (2, 2 * len(generator.blocks), 6)
    assert generator.synthesise(w).shape == images.shape
    assert critic.features(images).shape == (2, 4)
    scores = critic(images, label)
    assert scores.shape == (2,)
    assert torch.equal(scores, critic.score(critic.features(images), label))


PRINTED = {  # resolution, fields, parameters of G and D
    "1024, auto": (1024, {"channel_base": 32768, "mapping_layers": 2}, (28_794_124, 29_012_513)),
    "32": (32, {}, (21_523_475, 21_507_073)),
}


@pytest.mark.parametrize("case", PRINTED)
def test_as_many_parameters_as_the_official_code_prints(case):
    """What stylegan2-ada-pytorch prints before training, as users have shown it (public READMEs with its output)."""
    resolution, fields, want = PRINTED[case]
    assert sizes(resolution, **fields) == want


def test_as_many_parameters_as_published():
    """At 256 pixels: Huang et al. 2024, table 2, config A, "identical to" StyleGAN2-ADA's: 24.767M and 24.001M."""
    assert [round(n / 1e6, 3) for n in sizes(256)] == [24.767, 24.001]


def test_the_cifar_networks_differ_from_the_printed_ones_by_their_own_layers():
    """StyleGAN2-ADA's CIFAR-10 is printed nowhere that we know of. It has six mapping layers less, and the label in
    the first; its critic has no shortcuts, and scores a projection of size 512 on a label mapped by eight layers.
    """
    layer, embed, shortcut = 512 * 512 + 512, 512 * 10 + 512, 512 * 512
    generator, critic = PRINTED["32"][2]
    assert sizes(32, classes=10, mapping_layers=2, critic="plain") == (
        generator - 6 * layer + embed + 512 * 512,
        critic - 3 * shortcut - 513 + layer + embed + 8 * layer,
    )


def sizes(resolution, classes=0, **fields):
    config, shape = stylegan2.Config(**fields), (3, resolution, resolution)
    with torch.device("meta"):
        networks = stylegan2.Generator(config, shape, classes), stylegan2.Critic(config, shape, classes)
    return tuple(parameters(network) for network in networks)


def kernels_per_sample(x, weight, style, blur):
    """Karras et al. 2020a, eq. 1 and 3, to the letter: a kernel for each sample, scaled and demodulated."""
    kernels = style[:, None, :, None, None] * weight
    kernels = kernels * torch.rsqrt(kernels.square().sum((2, 3, 4), keepdim=True) + 1e-8)
    if blur is None:
        return torch.cat([conv2d(x[i : i + 1], kernels[i], padding=1) for i in range(len(x))])
    parts = [conv_transpose2d(x[i : i + 1], kernels[i].transpose(0, 1), stride=2) for i in range(len(x))]
    return blur(torch.cat(parts))


@pytest.mark.parametrize("blur", [None, Blur(padding=1, gain=4.0).double()], ids=["same size", "doubled"])
def test_modulation_is_a_kernel_for_each_sample(blur):
    torch.manual_seed(0)
    x, weight, style = (torch.randn(s, dtype=torch.float64) for s in ((3, 4, 8, 8), (5, 4, 3, 3), (3, 4)))
    made = stylegan2.modulated(x, weight, style, blur)
    assert made.shape == (3, 5, *((8, 8) if blur is None else (16, 16)))
    torch.testing.assert_close(made, kernels_per_sample(x, weight, style, blur), rtol=1e-12, atol=1e-12)


def test_demodulation_gives_unit_variance():
    """Whatever the style, for white inputs; away from the border, where a kernel's weights meet zeros."""
    torch.manual_seed(0)
    x, weight, style = torch.randn(2, 64, 34, 34), torch.randn(64, 64, 3, 3), 30 * torch.randn(2, 64)
    made = stylegan2.modulated(x, weight, style)[:, :, 1:-1, 1:-1]
    assert made.var((1, 2, 3)).tolist() == pytest.approx([1, 1], rel=0.03)


def test_a_fresh_generator_makes_the_same_image_whatever_the_scale_of_z():
    generator = pair()[0].eval()
    z = torch.randn(2, 6)
    torch.testing.assert_close(generator(z), generator(7 * z))


def test_noise_is_fixed_in_evaluation_and_follows_the_global_seed_in_training():
    generator = away_from_zero(pair(mixing=0.0)[0])
    w = generator.map(torch.randn(1, 6)).expand(2, -1, -1)
    made = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        made.append(generator.synthesise(w))
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])
    assert not torch.equal(made[0][0], made[0][1])  # each sample has noise of its own
    generator.eval()
    fixed = generator.synthesise(w)
    torch.testing.assert_close(fixed[0], fixed[1])
    assert torch.equal(fixed, generator.synthesise(w))


def test_mixing_takes_the_finer_layers_of_some_samples_from_another_style():
    torch.manual_seed(0)
    generator = pair(mixing=0.5)[0]
    w, other = torch.zeros(400, generator.styles, 6), torch.ones(400, generator.styles, 6)
    mixed = generator._mix(w, other)[:, :, 0]
    assert bool((mixed.diff(dim=1) >= 0).all())  # from one layer on
    assert not mixed[:, 0].any()  # never all of them
    assert mixed[:, -1].mean().item() == pytest.approx(0.5, abs=0.1)
    assert mixed.mean(0).diff().min() > 0  # from any layer on


def test_styles_are_mixed_in_training_alone():
    """In ``map``, so that path lengths are of mixed styles, too, as in the authors' code."""
    generator = pair(mixing=1.0)[0]  # the strength of the noise is still 0
    z = torch.randn(3, 6)
    torch.manual_seed(0)
    mixed = generator.map(z)
    assert (mixed[:, 0] != mixed[:, -1]).any(dim=1).all()
    torch.manual_seed(0)
    assert torch.equal(generator(z), generator.synthesise(mixed))
    plain = generator.eval().map(z)
    assert torch.equal(plain, plain[:, :1].expand_as(plain))
    assert torch.equal(plain[:, 0], mixed[:, 0])
    assert torch.equal(generator(z), generator.synthesise(plain))


@pytest.mark.parametrize("critic", stylegan2.CRITICS)
@pytest.mark.parametrize("classes", [0, 3], ids=["unconditional", "conditional"])
def test_gradients_reach_every_parameter(classes, critic):
    generator, critic = (away_from_zero(network) for network in pair(classes=classes, critic=critic))
    label = torch.tensor([0, 1, 2]) if classes else None
    images = generator(torch.randn(3, 6), label)
    assert without_gradient(generator, images) == []
    assert without_gradient(critic, critic(images.detach(), label)) == []


@pytest.mark.parametrize("group", [1, 3])
def test_second_derivative_of_the_critic(group):
    critic = away_from_zero(pair(classes=3, minibatch_std=group)[1]).double()
    check_second_derivative(critic, torch.randn(3, 3, 16, 16, dtype=torch.float64), torch.tensor([0, 1, 2]))


def test_the_image_has_a_derivative_by_the_style_that_can_be_derived_again():
    """As path length needs it (Karras et al. 2020a, section 3.2): checked against differences in float64."""
    generator = away_from_zero(pair(8)[0]).double().eval()
    w = generator.map(torch.randn(2, 6, dtype=torch.float64)).detach().requires_grad_()
    assert torch.autograd.gradgradcheck(generator.synthesise, (w,), fast_mode=True)


def test_minibatch_deviation_couples_samples():
    assert couples(pair()[1], 16)
    assert not couples(pair(minibatch_std=1)[1], 16)


@pytest.mark.parametrize(("samples", "groups"), [(8, 2), (4, 1), (3, 1), (6, 2), (7, 7)])
def test_minibatch_deviation_of_groups(samples, groups):
    """At most 4 samples a group, as many as divide the batch; a group is every ``groups``-th sample."""
    torch.manual_seed(0)
    x = torch.randn(samples, 2, 4, 4)
    made = stylegan2.MinibatchDeviation(4)(x)
    assert torch.equal(made[:, :2], x)
    for i in range(samples):
        group = x[i % groups :: groups]
        want = (group.var(0, correction=0) + 1e-8).sqrt().mean()
        torch.testing.assert_close(made[i, 2], want.expand(4, 4))


def test_bf16_and_channels_last_change_only_the_rounding():
    generator, critic = (away_from_zero(network).eval() for network in pair())
    z = torch.randn(4, 6)
    want = critic(generator(z))
    for network in (generator, critic):
        network.to(memory_format=torch.channels_last)
    torch.testing.assert_close(critic(generator(z)), want, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        image = generator(z)
        assert image.dtype == torch.float32  # its parts are summed in float32
        torch.testing.assert_close(critic(image), want, rtol=0.1, atol=0.1 * want.std().item())


WRONG = {
    "resolution": ((3, 48, 48), {}, "48x48"),
    "no multiple": ((3, 32, 60), {}, "32x60"),
    "points": ((2,), {}, "makes images, not samples"),
    "no channels": ((3, 64, 64), {"channel_base": 32}, "channel_base 32 leaves no channel at 64 pixels"),
    "mixing": ((3, 8, 8), {"mixing": 1.5}, "mixing is 1.5"),
    "critic": ((3, 8, 8), {"critic": "skip"}, "'skip' is unknown; valid are: residual, plain"),
}


@pytest.mark.parametrize("case", WRONG)
def test_refuses_what_it_does_not_offer(case):
    shape, fields, message = WRONG[case]
    config = stylegan2.Config(**{**TINY, **fields})
    with pytest.raises(ValueError, match=message):
        stylegan2.Generator(config, shape, 0), stylegan2.Critic(config, shape, 0)
