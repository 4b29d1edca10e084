"""Networks. One file per family, readable alone; a family is a config, a generator and a critic.

To add a family: write its file and one line in ``FAMILIES``. Networks are built as
``Generator(config, shape, classes)`` and called as ``generator(latent, label)`` and ``critic(x, label)``.
"""

from typing import NamedTuple

from torch import nn

from models import dcgan, mlp


class Family(NamedTuple):
    """The typed fields of ``model.*`` and the two networks that they describe."""

    config: type
    generator: type[nn.Module]
    critic: type[nn.Module]


FAMILIES = {
    "mlp": Family(mlp.Config, mlp.Generator, mlp.Critic),
    "dcgan": Family(dcgan.Config, dcgan.Generator, dcgan.Critic),
}
