"""R3GAN: shapes, published sizes, initialisation, derivatives, errors."""

import math

import pytest
import torch

from models import r3gan
from tests.models.image_pairs import away_from_zero, check_second_derivative, couples, parameters, without_gradient


def pair(resolution=16, classes=0, channels=3, **fields):
    stages = int(math.log2(resolution)) - 1
    config = r3gan.Config(**{"latent_dim": 5, "widths": [8] * (stages - 1) + [4], "group_width": 4, **fields})
    shape = (channels, resolution, resolution)
    return r3gan.Generator(config, shape, classes), r3gan.Critic(config, shape, classes)


@pytest.mark.parametrize("classes", [0, 3], ids=["unconditional", "conditional"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("resolution", r3gan.RESOLUTIONS)
def test_shapes(resolution, channels, classes):
    generator, critic = pair(resolution, classes, channels)
    label = torch.tensor([0, 2]) if classes else None
    images = generator(torch.randn(2, 5), label)
    assert images.shape == (2, channels, resolution, resolution)
    assert critic.features(images).shape == (2, 8)
    scores = critic(images, label)
    assert scores.shape == (2,)
    assert torch.equal(scores, critic.score(critic.features(images), label))


PUBLISHED = {  # data set: resolution, classes, fields, parameters of G and D in millions
    "Stacked MNIST": (32, 0, {}, (20.73, 20.68)),
    "CIFAR-10": (32, 10, {}, (20.78, 21.28)),
    "FFHQ-256": (256, 0, {"widths": [768] * 4 + [384, 192, 96]}, (23.06, 23.01)),
    "FFHQ-64": (64, 0, {"widths": [768] * 4 + [384]}, (22.43, 22.38)),
    "ImageNet-32": (32, 1000, {"widths": [1536] * 4, "group_width": 32}, (82.91, 86.55)),
    "ImageNet-64": (64, 1000, {"widths": [1536] * 5, "group_width": 32}, (103.57, 107.21)),
}


@pytest.mark.parametrize("data", PUBLISHED)
def test_as_many_parameters_as_published(data):
    """Huang et al. 2024, table 9."""
    resolution, classes, fields, millions = PUBLISHED[data]
    config, shape = r3gan.Config(**fields), (3, resolution, resolution)
    with torch.device("meta"):
        networks = r3gan.Generator(config, shape, classes), r3gan.Critic(config, shape, classes)
    assert tuple(round(parameters(network) / 1e6, 2) for network in networks) == millions


def test_as_many_groups_as_published():
    """Huang et al. 2024, table 9: FFHQ-256 has 12, 24, 48 and four times 96 from the image down."""
    config = r3gan.Config(widths=[768] * 4 + [384, 192, 96])
    with torch.device("meta"):
        critic = r3gan.Critic(config, (3, 256, 256), 0)
    blocks = [module for module in critic.modules() if isinstance(module, r3gan.Block)]
    assert [block.layers[2].groups for block in blocks[::2]] == [12, 24, 48, 96, 96, 96, 96]


def test_blocks_start_as_the_identity_and_their_layers_by_fix_up():
    """Huang et al. 2024, section 3: the last layer at zero, the others scaled down by L^(-1/4), L = 8 blocks."""
    torch.manual_seed(0)
    block = r3gan.Block(r3gan.Config(widths=[256] * 4), 256)
    x = torch.randn(2, 256, 4, 4)
    assert torch.equal(block(x), x)
    for layer, fan_in in ((block.layers[0], 256), (block.layers[2], 16 * 9)):
        want = math.sqrt(2 / (1 + 0.2**2) / fan_in) * 8**-0.25
        assert layer.weight.std().item() == pytest.approx(want, rel=0.01)
        assert not layer.bias.any()


@pytest.mark.parametrize("classes", [0, 3], ids=["unconditional", "conditional"])
def test_gradients_reach_every_parameter(classes):
    generator, critic = (away_from_zero(network) for network in pair(classes=classes))
    label = torch.tensor([0, 1, 2]) if classes else None
    images = generator(torch.randn(3, 5), label)
    assert without_gradient(generator, images) == []
    assert without_gradient(critic, critic(images.detach(), label)) == []


def test_second_derivative():
    critic = away_from_zero(pair(classes=3)[1]).double()
    check_second_derivative(critic, torch.randn(3, 3, 16, 16, dtype=torch.float64), torch.tensor([0, 1, 2]))


def test_samples_are_judged_one_by_one():
    assert not couples(pair()[1], 16)


def test_bf16_and_channels_last_change_only_the_rounding():
    generator, critic = (away_from_zero(network) for network in pair())
    z = torch.randn(4, 5)
    want = critic(generator(z))
    for network in (generator, critic):
        network.to(memory_format=torch.channels_last)
    torch.testing.assert_close(critic(generator(z)), want)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(critic(generator(z)).float(), want, rtol=0.1, atol=0.1 * want.std().item())


WRONG = {
    "resolution": ((3, 48, 48), {}, "48x48"),
    "no multiple": ((3, 32, 60), {}, "32x60"),
    "points": ((2,), {}, "makes images, not samples"),
    "stages": ((3, 64, 64), {}, r"64 pixels are made in 5 stages.*4 entries"),
    "groups": ((3, 8, 8), {"widths": [16, 12]}, "width 12 times expansion 2 does not divide.*group_width 16"),
    "no channels": ((3, 8, 8), {"widths": [16, 0]}, "width 0"),
}


@pytest.mark.parametrize("network", [r3gan.Generator, r3gan.Critic])
@pytest.mark.parametrize("case", WRONG)
def test_refuses_what_it_does_not_offer(case, network):
    shape, fields, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        network(r3gan.Config(**fields), shape, 0)
