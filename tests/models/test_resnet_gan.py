"""ResNet GANs: shapes, published parameter counts, what reaches what, second derivatives, errors."""

import itertools

import pytest
import torch
from torch import nn

from adversarial.coupling import couples_samples
from models.resnet_gan import LAYOUTS, Attention, Config, Critic, Generator, Norm, Table
from tests.models.image_pairs import away_from_zero, parameters
from tests.untrained import sizes_alone

SAGAN = {"generator_spectral": True}
BIGGAN = {**SAGAN, "hierarchical": True, "shared_embedding": 128, "initialisation": "orthogonal"}
SAGAN_128 = {**SAGAN, "layout": "biggan", "attention": [64]}
BIGGAN_128 = {**BIGGAN, "layout": "biggan", "attention": [64], "latent_dim": 120}
SMALL = {"generator_width": 2, "critic_width": 2}
MEMBERS = {
    **{f"sngan-{size}": (size, {}) for size in LAYOUTS["sngan"]},
    "wgan_gp-32": (32, {"layout": "wgan_gp", "critic_norm": "none"}),
    "wgan_gp-64": (64, {"layout": "wgan_gp", "critic_norm": "layer"}),
    "sagan-32": (32, {**SAGAN, "attention": [16]}),
    "sagan-64": (64, {**SAGAN, "attention": [32], "layout": "biggan"}),
    "sagan-128": (128, SAGAN_128),
    "biggan-32": (32, {**BIGGAN, "attention": [16], "layout": "biggan", "latent_dim": 80}),
    "biggan-64": (64, {**BIGGAN, "attention": [32], "layout": "biggan", "latent_dim": 100}),
    "biggan-128": (128, BIGGAN_128),
    "no norms": (32, {"generator_norm": "none", "critic_norm": "none", "initialisation": "normal"}),
    "layer norms": (32, {"generator_norm": "layer", "critic_norm": "layer", "hierarchical": True}),
}
LITTLE = [name for name, (size, _) in MEMBERS.items() if size == 32] + ["wgan_gp-64"]


def pair(member: str, classes: int, channels: int = 3, **fields) -> tuple[Generator, Critic]:
    torch.manual_seed(0)
    size, own = MEMBERS[member]
    config, shape = Config(**{**SMALL, **own, **fields}), (channels, size, size)
    return Generator(config, shape, classes), Critic(config, shape, classes)


def attend(*networks: nn.Module) -> None:
    """Let attention take part, which it does not at first."""
    for network in networks:
        for module in network.modules():
            if isinstance(module, Attention):
                nn.init.ones_(module.gamma)


def latents(member: str, count: int) -> torch.Tensor:
    return torch.randn(count, MEMBERS[member][1].get("latent_dim", 128))


@pytest.mark.parametrize("classes", [0, 3], ids=["unconditional", "conditional"])
@pytest.mark.parametrize("member", MEMBERS)
def test_shapes(member, classes):
    size, _ = MEMBERS[member]
    for channels in (1, 3):
        generator, critic = pair(member, classes, channels)
        label = torch.tensor([0, 2]) if classes else None
        images = generator(latents(member, 2), label)
        assert images.shape == (2, channels, size, size)
        assert images.abs().max() <= 1
        features = critic.features(images)
        assert features.shape == (2, critic.feature_size)
        assert critic(images, label).shape == critic.score(features, label).shape == (2,)


# --- Parameter counts


PUBLISHED = {
    # google/compare_gan, resnet_biggan_test.py ("matches the original BigGAN architecture"): ImageNet, ch 96.
    "biggan-128": (128, 1000, BIGGAN_128, 96, 70433988, 87982370),
    # What its author notes in the history of ajbrock/BigGAN-PyTorch, for the paper's table 1: 81.5, 173.5 and 160.6
    # million in both networks. The third leaves out the embedding, 1000 vectors of 128.
    "baseline-128": (128, 1000, SAGAN_128, 64, 42017412, 39448258),
    "wider-128": (128, 1000, SAGAN_128, 96, 85556164, 87982370),
    "shared-128": (128, 1000, {**SAGAN_128, "shared_embedding": 128}, 96, 72664516 + 128000, 87982370),
    # The rest is printed in PyTorch-StudioGAN's logs: CIFAR10/{SNGAN-train-2020_09_18, SAGAN-train-2020_09_18,
    # BigGAN-train-2021_01_15}, TINY_IMAGENET/{SNGAN-train-2021_01_15, BigGAN-train-2021_01_18} and
    # IMAGENET/SNGAN-train-2021_02_05.
    "sngan-32": (32, 10, {}, 64, 4304387, 1055105),
    "sagan-32": (32, 10, {**SAGAN, "attention": [16]}, 64, 4386308, 1075586),
    "biggan-32": (32, 10, {**BIGGAN, "attention": [16], "latent_dim": 80}, 96, 9416196, 2415170),
    # At 64 pixels its generators have SNGAN's layout. Its critics are wide, as BigGAN's, where the official SNGAN's are
    # not, and for the latter no count is published; None is for a network that it does not have.
    "sngan-64 generator": (64, 200, {}, 64, 13366915, None),
    "sngan-64 critic": (64, 200, {"layout": "biggan"}, 64, None, 19747521),
    "biggan-64 generator": (64, 200, {**BIGGAN, "attention": [32], "latent_dim": 100}, 80, 17335204, None),
    "biggan-64 critic": (64, 200, {"layout": "biggan", "attention": [32]}, 80, None, 30796722),
    "sngan-128": (128, 1000, {"layout": "biggan"}, 64, 41996931, 39443137),
    # CIFAR10/WGAN-GP-train-2020_09_16: SNGAN's generator without labels; its critic has batch norm, as none has here.
    "unconditional-32": (32, 0, {}, 64, 4276739, None),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_counts_are_the_published_ones(name):
    size, classes, fields, width, *published = PUBLISHED[name]
    config = Config(generator_width=width, critic_width=width, **fields)
    with sizes_alone():
        networks = [network(config, (3, size, size), classes) for network in (Generator, Critic)]
    for network, number in zip(networks, published, strict=True):
        assert number is None or parameters(network) == number


SNGAN_CRITICS = {  # channels of the blocks' outputs, and how many of them halve the image
    48: ((64, 128, 256, 512, 1024), 4),  # Miyato et al. 2018, appendix B, STL-10
    64: ((64, 128, 256, 512, 1024), 5),  # snresnet_64.py of pfnet-research/sngan_projection
    128: ((64, 128, 256, 512, 1024, 1024), 5),  # snresnet.py there
}


@pytest.mark.parametrize("size", SNGAN_CRITICS)
def test_sngan_critics_have_the_official_layers(size):
    """No count is published. A block of a to b channels has convolutions a to a and a to b, a shortcut where it changes
    channels or size; the first has 3 to b and b to b.
    """
    channels, halvings = SNGAN_CRITICS[size]
    with sizes_alone():
        critic = Critic(Config(), (3, size, size), 5)
    a, b = 3, channels[0]
    want = (9 * a * b + b) + (9 * b * b + b) + (a * b + b)
    for i, (a, b) in enumerate(itertools.pairwise(channels), 1):
        shortcut = a * b + b if a != b or i < halvings else 0
        want += (9 * a * a + a) + (9 * a * b + b) + shortcut
    assert parameters(critic) == want + (1024 + 1) + 5 * 1024
    assert sum(isinstance(block.down, nn.AvgPool2d) for block in critic.blocks) == halvings


def test_wgan_gp_32_has_the_published_layers():
    """Gulrajani et al. 2017: 128 channels everywhere. No count is published: this one follows from gan_cifar_resnet.py
    of igul222/improved_wgan_training, without labels.
    """
    generator, critic = pair("wgan_gp-32", 0, generator_width=64, critic_width=64)
    conv, shortcut, norm = 128 * 128 * 9 + 128, 128 * 128 + 128, 2 * 128
    linear, image = 128 * 2048 + 2048, 128 * 3 * 9 + 3
    assert parameters(generator) == linear + 3 * (2 * conv + shortcut + 2 * norm) + norm + image
    first = (3 * 128 * 9 + 128) + conv + (3 * 128 + 128)
    assert parameters(critic) == first + (2 * conv + shortcut) + 2 * 2 * conv + (128 + 1)


def test_wgan_gp_64_has_the_official_layers():
    """gan_64x64.py of igul222/improved_wgan_training: "GoodGenerator" and "GoodDiscriminator", with 64 channels."""
    generator, critic = pair("wgan_gp-64", 0, generator_width=64, critic_width=64)
    shapes = [tuple(p.shape[:2]) for name, p in critic.named_parameters() if "conv" in name and p.ndim == 4]
    assert shapes == [(64, 64), (128, 64), (128, 128), (256, 128), (256, 256), (512, 256), (512, 512), (512, 512)]
    assert critic.stem.weight.shape == (64, 3, 3, 3)
    assert critic.linear.weight.shape == (1, 4 * 4 * 512)
    assert [block.conv2.weight.shape[0] for block in generator.blocks] == [512, 256, 128, 64]
    assert sum(isinstance(module, nn.GroupNorm) for module in critic.modules()) == 8


# --- What reaches what


@pytest.mark.parametrize("member", LITTLE)
def test_critic_judges_each_sample_on_its_own(member):
    size, _ = MEMBERS[member]
    _, critic = pair(member, 3)
    attend(critic)
    assert not couples_samples(critic, torch.randn(4, 3, size, size), torch.tensor([0, 1, 2, 0]))


@pytest.mark.parametrize("member", LITTLE)
def test_label_changes_sample_and_score(member):
    generator, critic = (away_from_zero(network).eval() for network in pair(member, 3))  # some tables start at 0
    z = latents(member, 1)
    images = [generator(z, torch.tensor([k])) for k in range(3)]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(images, 2))
    assert len({critic(images[0], torch.tensor([k])).item() for k in range(3)}) == 3


def test_score_adds_the_projection():
    """Miyato and Koyama 2018, eq. 3: an inner product with the features beside the score without a label."""
    _, critic = pair("no norms", 3)
    x, label = torch.randn(2, 3, 32, 32), torch.tensor([2, 0])
    features = critic.features(x)
    expected = critic.linear(features)[:, 0] + torch.einsum("nd,nd->n", critic.embed.weight[label], features)
    torch.testing.assert_close(critic(x, label), expected)


@pytest.mark.parametrize("classes", [0, 3], ids=["unconditional", "conditional"])
def test_every_part_of_a_hierarchical_latent_reaches_its_block(classes):
    """By the gains and biases of the two norms in it, and by no other block's."""
    generator, _ = pair("biggan-32", classes)
    seen = {}
    for i, block in enumerate(generator.blocks):
        block.register_forward_hook(lambda module, given, out, i=i: seen.update({i: given[1]}))
    z, label = torch.randn(2, 80), torch.tensor([0, 2]) if classes else None
    generator(z, label)
    for i in range(3):
        known = [generator.embed(label)] if classes else []
        assert torch.equal(seen[i], torch.cat([*known, z[:, 20 * (i + 1) : 20 * (i + 2)]], dim=1))
    for part in range(4):
        other = z.clone()
        other[:, 20 * part : 20 * (part + 1)] += 1
        assert not torch.equal(generator.eval()(z, label), generator(other, label))


def test_blocks_share_one_embedding_or_have_their_own():
    shared, _ = pair("biggan-32", 5)
    own, _ = pair("sngan-32", 5)
    assert shared.embed.weight.shape == (5, 128)
    assert {module.gain.in_features for module in shared.modules() if isinstance(module, Norm)} == {128 + 20}
    assert own.embed is None
    assert {module.gain.in_features for module in own.modules() if isinstance(module, Norm)} == {5}


def test_conditional_norm():
    """Batch statistics of the whole batch, then gain and bias of each sample's own label."""
    norm = Norm("batch", 2, condition=3)
    x, condition = torch.randn(4, 2, 5, 5), nn.functional.one_hot(torch.tensor([0, 1, 2, 0]), 3).float()
    plain = nn.BatchNorm2d(2, affine=False)(x)
    for i, k in enumerate([0, 1, 2, 0]):
        gain, shift = (layer.weight[:, k, None, None] for layer in (norm.gain, norm.shift))
        torch.testing.assert_close(norm(x, condition)[i], plain[i] * (1 + gain) + shift)


# --- Attention


def test_attention_starts_as_identity():
    layer, x = Attention(16), torch.randn(2, 16, 8, 8)
    assert torch.equal(layer(x), x)


def test_attention_is_the_published_sum():
    """Zhang et al. 2019, eqs. 1 to 3, one position at a time; keys and values pooled 2x2."""
    torch.manual_seed(0)
    layer, x = Attention(16), torch.randn(2, 16, 6, 6)
    nn.init.constant_(layer.gamma, 0.5)
    queries, keys, values = layer.query(x), nn.functional.max_pool2d(layer.key(x), 2), layer.value(x)
    values = nn.functional.max_pool2d(values, 2)
    mixed = torch.empty(2, 8, 6, 6)
    for n, i, j in itertools.product(range(2), range(6), range(6)):
        weights = torch.einsum("c,chw->hw", queries[n, :, i, j], keys[n]).flatten().softmax(0).reshape(3, 3)
        mixed[n, :, i, j] = torch.einsum("hw,chw->c", weights, values[n])
    torch.testing.assert_close(layer(x), x + 0.5 * layer.out(mixed))


@pytest.mark.parametrize("size", [8, 16])
def test_attention_sits_where_it_was_asked_for(size):
    generator, critic = pair("sagan-32", 0, attention=[size])
    assert [isinstance(layer, Attention) for layer in generator.attention] == [size == 8, size == 16, False]
    assert [isinstance(layer, Attention) for layer in critic.attention] == [size == 16, size == 8, False, False]


# --- Gradients


@pytest.mark.parametrize("member", LITTLE)
def test_gradients_reach_every_parameter(member):
    generator, critic = pair(member, 3)
    attend(generator, critic)
    label = torch.tensor([0, 1, 2, 2])
    images = generator(latents(member, 4), label)
    (critic(images, label) * torch.randn(4)).sum().backward()
    for network in (generator, critic):
        idle = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
        assert idle == []


@pytest.mark.parametrize("member", LITTLE)
def test_critic_has_second_derivatives(member):
    """∂/∂θ of ‖∂s/∂x‖² against its difference quotient along a direction, as R1 and WGAN-GP need it; float64."""
    size, _ = MEMBERS[member]
    _, critic = pair(member, 3)
    attend(critic)
    critic.double().eval()  # spectral norm then keeps its vectors: the same function at every call
    x, label = torch.randn(2, 3, size, size, dtype=torch.float64, requires_grad=True), torch.tensor([0, 2])
    weights = [p for name, p in critic.named_parameters() if p.ndim == 4 or "gamma" in name]
    directions = [torch.randn_like(p) for p in weights]

    def penalty() -> torch.Tensor:
        (gradient,) = torch.autograd.grad(critic(x, label).sum(), x, create_graph=True)
        return gradient.square().sum()

    def moved(step: float) -> torch.Tensor:
        with torch.no_grad():
            for p, direction in zip(weights, directions, strict=True):
                p.add_(direction, alpha=step)
        value = penalty().detach()
        with torch.no_grad():
            for p, direction in zip(weights, directions, strict=True):
                p.sub_(direction, alpha=step)
        return value

    slopes = torch.autograd.grad(penalty(), weights, allow_unused=True)
    given = [(s * d).sum() for s, d in zip(slopes, directions, strict=True) if s is not None]
    step = 1e-7  # the ReLUs' kinks are not crossed
    torch.testing.assert_close(sum(given), (moved(step) - moved(-step)) / (2 * step), rtol=1e-4, atol=1e-9)


def test_generator_has_second_derivatives():
    """A path length penalty needs them."""
    generator, _ = pair("biggan-32", 3)
    attend(generator)
    z = torch.randn(2, 80, requires_grad=True)
    (slope,) = torch.autograd.grad(generator(z, torch.tensor([0, 1])).square().sum(), z, create_graph=True)
    slope.square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in generator.parameters() if p.grad is not None)


# --- Precision and memory layout


@pytest.mark.parametrize("member", ["sngan-32", "biggan-32", "wgan_gp-64"])
def test_bf16_and_channels_last_give_about_the_same(member):
    networks = [network.eval() for network in pair(member, 3)]
    attend(*networks)
    z, label = latents(member, 2), torch.tensor([0, 2])
    images = networks[0](z, label)
    scores = networks[1](images, label)
    generator, critic = (network.to(memory_format=torch.channels_last) for network in networks)
    torch.testing.assert_close(generator(z, label), images, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(critic(images, label), scores, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert (generator(z, label).float() - images).abs().mean() < 0.02
        torch.testing.assert_close(critic(images, label).float(), scores, rtol=0.05, atol=0.05)


# --- Initialisation and spectral norm


def test_glorot_gains_are_the_official_ones():
    """Uniform in ±gain · sqrt(6 / (fan in + fan out)), gain √2 in blocks, else 1: SNGAN's and WGAN-GP's code."""
    _, critic = pair("wgan_gp-32", 0, critic_width=32)
    block = critic.blocks[1]
    for conv, gain in ((block.conv1, 2**0.5), (block.conv2, 2**0.5), (block.shortcut, 1.0)):
        bound = gain * (6 / (2 * conv.weight[0].numel())) ** 0.5
        assert conv.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
        assert (conv.bias == 0).all()


def test_orthogonal_weights():
    _, critic = pair("no norms", 0, initialisation="orthogonal")
    weight = critic.blocks[1].conv1.weight.flatten(1)
    torch.testing.assert_close(weight @ weight.T, torch.eye(len(weight)))


def test_spectral_norm_is_on_all_weights_that_it_should_be_on():
    generator, critic = pair("biggan-32", 3)
    kinds = nn.Conv2d | nn.Linear | nn.Embedding
    bare = [
        name
        for network in (generator, critic)
        for name, module in network.named_modules()
        if isinstance(module, kinds) and not nn.utils.parametrize.is_parametrized(module, "weight")
    ]
    assert bare == ["embed"]  # the generator's: "for some reason" it cripples G there, says BigGAN's author
    generator, _ = pair("sagan-32", 3)
    tables = [module for module in generator.modules() if isinstance(module, Table)]
    assert len(tables) == 12  # gains and biases of two norms in each of three blocks
    assert not any(module.weight.any() or nn.utils.parametrize.is_parametrized(module) for module in tables)
    assert all(nn.utils.parametrize.is_parametrized(block.conv1) for block in generator.blocks)
    generator, critic = pair("wgan_gp-32", 3)
    assert not any(nn.utils.parametrize.is_parametrized(m) for n in (generator, critic) for m in n.modules())


# --- Errors


WRONG = {
    "resolution": ((3, 16, 16), {}, "32, 48, 64, 128 pixels"),
    "resolution of a layout": ((3, 48, 48), {"layout": "biggan"}, "32, 64, 128 pixels"),
    "not square": ((3, 32, 64), {}, "32, 64"),
    "points": ((2,), {}, "square images"),
    "layout": ((3, 32, 32), {"layout": "stylegan"}, "layout 'stylegan' is unknown; valid are: sngan, wgan_gp, biggan"),
    "critic's norm": ((3, 32, 32), {"critic_norm": "batch"}, "critic_norm 'batch' is unknown; valid are: none, spec"),
    "generator's norm": ((3, 32, 32), {"generator_norm": "spectral"}, "generator_norm 'spectral' is unknown"),
    "initialisation": ((3, 32, 32), {"initialisation": "he"}, "initialisation 'he' is unknown"),
    "attention": ((3, 32, 32), {"attention": [16, 12]}, r"\[12\] is no size of the generator's .* \[8, 16, 32\]"),
    "critic's attention": ((3, 32, 32), {"attention": [32]}, r"\[32\] is no size of the critic's .* \[8, 16\]"),
    "latent": ((3, 64, 64), {"hierarchical": True}, "latent_dim 128 cannot be split into 5 equal parts"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_refuses_what_it_does_not_offer(case):
    shape, fields, message = WRONG[case]
    config = Config(**SMALL, **fields)
    with pytest.raises(ValueError, match=message):
        Generator(config, shape, 0), Critic(config, shape, 0)
