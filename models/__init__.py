"""Networks. One file per family, readable alone; a family is a config and the networks that play one kind of game.

To add a family: write its file and one line in ``FAMILIES``. A pair for generation is built as
``Generator(config, shape, classes)`` and ``Critic(config, shape, classes)`` and called as ``generator(latent, label)``
and ``critic(x, label)``; a critic with ``features(x)`` and ``score(features, label)`` can be given a head that names
classes (``auxiliary``). Networks that recognise are built as ``Features(config, shape)``; head and critics are the same
for all of them (``domain``).
"""

from typing import NamedTuple

from torch import nn

from models import dcgan, dense, lenet, mlp, r3gan, resnet, resnet_gan, stylegan2


class Family(NamedTuple):
    """The typed fields of ``model.*`` and the networks that they describe."""

    config: type
    generator: type[nn.Module] | None = None
    critic: type[nn.Module] | None = None
    features: type[nn.Module] | None = None


FAMILIES = {
    "mlp": Family(mlp.Config, mlp.Generator, mlp.Critic),
    "dcgan": Family(dcgan.Config, dcgan.Generator, dcgan.Critic),
    "resnet_gan": Family(resnet_gan.Config, resnet_gan.Generator, resnet_gan.Critic),
    "r3gan": Family(r3gan.Config, r3gan.Generator, r3gan.Critic),
    "stylegan2": Family(stylegan2.Config, stylegan2.Generator, stylegan2.Critic),
    "dense": Family(dense.Config, features=dense.Features),
    "lenet": Family(lenet.Config, features=lenet.Features),
    "resnet": Family(resnet.Config, features=resnet.Features),
}
