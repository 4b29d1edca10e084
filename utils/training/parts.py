"""Parts of networks by name: layers that do not learn (``init.freeze``), and learning rates (``optimizer.scale``).

A name such as ``critic.features.0`` is that of a player, a layer or a parameter, and means all that is in it.
"""

import difflib
from collections.abc import Iterable
from typing import Any

from torch import nn

from adversarial.passes import trainable
from utils.errors import UserError

Networks = dict[str, nn.Module]  # by player


def freeze(networks: Networks, names: list[str]) -> None:
    """Have the parts of these names not learn (FreezeD: Mo et al. 2020), nor change their buffers.

    Raises UserError for an unknown name, and where nothing of a player is left to learn.
    """
    check_names("init.freeze", names, networks)
    for player, network in networks.items():
        for name, parameter in network.named_parameters(prefix=player):
            if covering(name, names):
                parameter.requires_grad_(False)
        for name, module in network.named_modules(prefix=player):
            if covering(name, names) and any(True for _ in module.buffers(recurse=False)):
                module.training = False  # spectral norm's vectors and BatchNorm's statistics keep still
        if names and not trainable(network):
            raise UserError(
                f"init.freeze={names} leaves nothing of the {player} to learn: name fewer of its layers, such as "
                f"{player}.{next(name for name, _ in network.named_parameters()).rpartition('.')[0]}."
            )


def groups(player: str, network: nn.Module, scale: dict[str, float]) -> list[dict[str, Any]]:
    """The parameters that learn, as an optimiser's groups, each with the ``scale`` of its learning rate.

    Of several names that cover a parameter the longest counts; 1 where there is none.
    """
    found: dict[float, list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters(prefix=player):
        if parameter.requires_grad:
            found.setdefault(scale.get(covering(name, scale), 1.0), []).append(parameter)
    return [{"params": parameters, "scale": factor} for factor, parameters in found.items()]


def covering(name: str, names: Iterable[str]) -> str:
    """The longest of ``names`` that is ``name`` or the name of something around it; "" if there is none."""
    return max((part for part in names if f"{name}.".startswith(f"{part}.")), key=len, default="")


def check_names(key: str, names: Iterable[str], networks: Networks) -> None:
    """Raise UserError, which has the nearest valid ones, for a name that no part of the networks has."""
    valid = [
        name
        for player, network in networks.items()
        for kind in (network.named_modules(prefix=player), network.named_parameters(prefix=player))
        for name, _ in kind
    ]
    for name in names:
        if name not in valid:
            close = difflib.get_close_matches(name, valid, n=4, cutoff=0)
            raise UserError(f"{key} names {name!r}, which no part of the networks has; near it are {', '.join(close)}.")
