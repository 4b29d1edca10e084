"""Networks: shapes, initialisation, parameter counts, errors."""

import copy
from typing import get_args, get_type_hints

import pytest
import torch

from models import FAMILIES, auxiliary, dcgan, dense, domain, lenet, mlp, resnet, resnet_gan, stylegan2
from tests.models.image_pairs import away_from_zero, without_gradient
from utils.config.checks import OF_LABELS
from utils.data.randomness import seeded


@pytest.mark.parametrize("classes", [0, 3], ids=["unconditional", "conditional"])
@pytest.mark.parametrize("norm", dcgan.NORMS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("resolution", dcgan.RESOLUTIONS)
def test_dcgan_shapes(resolution, channels, norm, classes):
    shape = (channels, resolution, resolution)
    config = dcgan.Config(latent_dim=5, generator_width=2, critic_width=2, generator_norm=norm, critic_norm=norm)
    generator, critic = dcgan.Generator(config, shape, classes), dcgan.Critic(config, shape, classes)
    label = torch.tensor([0, 2]) if classes else None
    images = generator(torch.randn(2, 5), label)
    assert images.shape == (2, *shape)
    assert images.abs().max() <= 1
    assert critic(images, label).shape == (2,)


# For each key of each family that makes samples, another value than that of a small pair of networks.
OTHER_VALUES = {
    "mlp": ({"width": 4}, {"latent_dim": 3, "width": 5, "depth": 2}),
    "dcgan": (
        {"latent_dim": 5, "generator_width": 2, "critic_width": 2},
        {"latent_dim": 6, "generator_width": 3, "critic_width": 3, "generator_norm": "group", "critic_norm": "group"},
    ),
    "resnet_gan": (
        {"latent_dim": 8, "generator_width": 2, "critic_width": 2},
        {
            "layout": "biggan", "latent_dim": 12, "generator_width": 3, "critic_width": 3, "generator_norm": "layer",
            "critic_norm": "layer", "generator_spectral": True, "attention": [16], "hierarchical": True,
            "shared_embedding": 3, "initialisation": "normal",
        },
    ),
    "r3gan": (
        {"latent_dim": 5, "widths": [8, 8, 8, 8], "group_width": 4},
        {"latent_dim": 6, "widths": [16, 8, 8, 8], "blocks": 1, "expansion": 1, "group_width": 8},
    ),
    "stylegan2": (
        {"latent_dim": 5, "mapping_layers": 2, "label_layers": 2, "channel_max": 4},
        {
            "latent_dim": 6, "mapping_layers": 1, "label_layers": 1, "channel_base": 32, "channel_max": 5,
            "mixing": 0.0, "critic": "plain", "minibatch_std": 1,
        },
    ),
}  # fmt: skip


def of_a_pair(family: str, classes: int, **fields) -> list[torch.Tensor]:
    """Samples in training and the critic's scores of noise, all drawn from the same random state."""
    shape = (2,) if family == "mlp" else (1, 32, 32)
    config = FAMILIES[family].config(**fields)
    label = torch.arange(4) % classes if classes else None
    with seeded(0, "networks"):
        generator = away_from_zero(FAMILIES[family].generator(config, shape, classes))
        critic = away_from_zero(FAMILIES[family].critic(config, shape, classes))
    with seeded(0, "inputs"):
        return [generator(torch.randn(4, config.latent_dim), label), critic(torch.randn(4, *shape), label)]


@pytest.mark.parametrize("family", [name for name, family in FAMILIES.items() if family.generator])
def test_every_key_of_a_family_does_something(family):
    """With labels; without, all but those that are refused there (``utils.config.checks``)."""
    small, others = OTHER_VALUES[family]
    assert others.keys() == vars(FAMILIES[family].config()).keys() - {"name"}
    for classes in (3, 0):
        before = of_a_pair(family, classes, **small)
        after = {key: of_a_pair(family, classes, **{**small, key: value}) for key, value in others.items()}
        idle = [key for key, made in after.items() if all(map(torch.equal, made, before))]
        assert idle == ([] if classes else [key for key in others if key in OF_LABELS])


@pytest.mark.parametrize("family", [name for name, family in FAMILIES.items() if family.generator])
def test_label_changes_sample_and_score(family):
    shape = (1, 32, 32)
    config = FAMILIES[family].config()
    generator = away_from_zero(FAMILIES[family].generator(config, shape, 3)).eval()  # some tables of labels start at 0
    critic = FAMILIES[family].critic(config, shape, 3)
    z = torch.randn(1, config.latent_dim)
    images = [generator(z, torch.tensor([k])) for k in range(2)]
    assert images[0].shape == (1, *shape)
    assert not torch.equal(*images)
    assert critic(images[0], torch.tensor([0])) != critic(images[0], torch.tensor([1]))


RECTANGLES = {
    "dcgan": {"generator_width": 4, "critic_width": 4},
    "r3gan": {"widths": [8, 8, 8], "group_width": 4},
    "stylegan2": {"channel_max": 4, "latent_dim": 8},
}


@pytest.mark.parametrize("size", [(24, 16), (16, 20)])
@pytest.mark.parametrize("family", RECTANGLES)
def test_rectangles_whose_shorter_side_is_a_resolution(family, size):
    """The coarsest map is longer by as much, so that every layer is the square's but those that read or make it."""
    config = FAMILIES[family].config(**RECTANGLES[family])
    pairs = [
        [make(config, (3, *shape), 0) for make in (FAMILIES[family].generator, FAMILIES[family].critic)]
        for shape in (size, (16, 16))
    ]
    generator, critic = pairs[0][0], away_from_zero(pairs[0][1])
    images = generator(torch.randn(4, config.latent_dim))
    assert images.shape == (4, 3, *size)
    assert critic(images).shape == (4,)
    assert without_gradient(critic, critic(images)) == []
    for network, square in zip(*pairs, strict=True):
        shapes = {name: p.shape for name, p in square.named_parameters()}
        assert sum(p.shape != shapes[name] for name, p in network.named_parameters()) <= 2


def test_dcgan_64_has_the_published_layers():
    """Radford et al. 2016, figure 1: 4x4x1024 to 64x64x3 by four transposed convolutions; the critic mirrors it.

    Weights of the generator's convolutions are then 16 · (1024·512 + 512·256 + 256·128 + 128·3).
    """
    config = dcgan.Config(latent_dim=100, generator_width=128, critic_width=128)
    generator, critic = dcgan.Generator(config, (3, 64, 64), 0), dcgan.Critic(config, (3, 64, 64), 0)
    kernels = [p for p in generator.parameters() if p.ndim == 4]
    assert [tuple(k.shape[:2]) for k in kernels] == [(1024, 512), (512, 256), (256, 128), (128, 3)]
    assert sum(k.numel() for k in kernels) == 16 * (1024 * 512 + 512 * 256 + 256 * 128 + 128 * 3)
    assert generator.layers[0].weight.shape == (4 * 4 * 1024, 100)
    assert [tuple(p.shape[:2]) for p in critic.parameters() if p.ndim == 4] == [
        (128, 3),
        (256, 128),
        (512, 256),
        (1024, 512),
    ]


def test_dcgan_initialisation():
    """N(0, 0.02²): over 131,072 numbers the standard deviation is within 5 / sqrt(2n) = 1 % of 0.02 at five sigma."""
    generator = dcgan.Generator(dcgan.Config(), (3, 32, 32), 0)
    weight = generator.layers[4].weight
    assert weight.numel() == 256 * 128 * 16
    assert weight.std().item() == pytest.approx(0.02, rel=0.01)
    assert all((p == 0).all() for name, p in generator.named_parameters() if name.endswith("bias"))


def test_spectral_norm_has_largest_singular_value_one():
    torch.manual_seed(0)
    critic = dcgan.Critic(dcgan.Config(critic_width=4, critic_norm="spectral"), (1, 16, 16), 0)
    for _ in range(200):  # power iterations, one a forward
        critic(torch.randn(2, 1, 16, 16))
    critic.eval()
    for layer in (critic.features[0], critic.features[2], critic.last):
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=1e-3)


WRONG = {
    "resolution": ((3, 48, 48), {}, "48x48"),
    "no multiple": ((3, 32, 60), {}, "32x60"),
    "critic's norm": ((3, 32, 32), {"critic_norm": "layer"}, "'layer' is unknown"),
    "generator's norm": ((3, 32, 32), {"generator_norm": "instance"}, "'instance' is unknown"),
    "points": ((2,), {}, "makes images, not samples"),
}


@pytest.mark.parametrize("case", WRONG)
def test_dcgan_refuses_what_it_does_not_offer(case):
    shape, fields, message = WRONG[case]
    config = dcgan.Config(**fields)
    with pytest.raises(ValueError, match=message):
        dcgan.Generator(config, shape, 0), dcgan.Critic(config, shape, 0)


def test_mlp_shapes_and_size():
    config = mlp.Config(latent_dim=2, width=16, depth=2)
    generator, critic = mlp.Generator(config, (2,), 0), mlp.Critic(config, (2,), 4)
    points = generator(torch.randn(7, 2))
    assert points.shape == (7, 2)
    assert critic(points, torch.arange(7) % 4).shape == (7,)
    assert sum(p.numel() for p in generator.parameters()) == (2 * 16 + 16) + (16 * 16 + 16) + (16 * 2 + 2)


def test_auxiliary_critic_reads_the_class_from_the_features():
    torch.manual_seed(0)
    config = dcgan.Config(critic_width=4, critic_norm="batch")
    inner = dcgan.Critic(config, (1, 8, 8), 0)
    before = copy.deepcopy(inner.state_dict())
    critic = auxiliary.Critic(inner, (1, 8, 8), 5)
    assert all(torch.equal(value, before[name]) for name, value in inner.state_dict().items())
    assert inner.training
    critic.eval()
    x, label = torch.randn(6, 1, 8, 8), torch.arange(6) % 5
    out = critic(x, label)
    features = inner.features(x)
    torch.testing.assert_close(out[:, 0], inner(x))
    p = critic.head(features).softmax(1)[range(6), label]
    torch.testing.assert_close(out[:, 1], p.log() - (1 - p).log())


def test_auxiliary_head_needs_features():
    with pytest.raises(ValueError, match="no features"):
        auxiliary.Critic(mlp.Critic(mlp.Config(), (2,), 0), (2,), 3)


@pytest.mark.parametrize(
    ("config", "name", "offered"),
    [
        (dcgan.Config, "generator_norm", dcgan.NORMS), (dcgan.Config, "critic_norm", dcgan.NORMS),
        (resnet_gan.Config, "layout", resnet_gan.LAYOUTS), (resnet_gan.Config, "generator_norm", resnet_gan.NORMS),
        (resnet_gan.Config, "critic_norm", resnet_gan.CRITIC_NORMS),
        (resnet_gan.Config, "initialisation", resnet_gan.INITIALISATIONS),
        (stylegan2.Config, "critic", stylegan2.CRITICS), (dense.Config, "activation", dense.ACTIVATIONS),
        (dense.Config, "critic_norm", domain.NORMS), (lenet.Config, "norm", lenet.NORMS),
        (resnet.Config, "network", resnet.NETWORKS),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)  # fmt: skip
def test_the_choices_of_a_field_are_what_its_network_offers(config, name, offered):
    assert get_args(get_type_hints(config)[name]) == tuple(offered)
