"""Torchvision's ResNets with a bottleneck of features: the usual networks for Office-31, Office-Home, VisDA, DomainNet
(Long et al. 2018: ResNet-50, 256 features).
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from models.domain import CriticConfig

Network = Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
NETWORKS = get_args(Network)


@dataclass
class Config(CriticConfig):
    """Fields of ``model.*``."""

    name: str = "resnet"  # family of networks: a key of models.FAMILIES
    network: Network = "resnet50"  # resnet18, resnet34, resnet50, resnet101 or resnet152
    weights: str = "none"  # none, or ImageNet's as torchvision names them (DEFAULT, IMAGENET1K_V1): a download, cached
    width: Annotated[int, Ge(1)] = 256  # units of the bottleneck, which are the features
    critic_width: Annotated[int, Ge(1)] = 1024  # units in each hidden layer of a critic
    critic_depth: Annotated[int, Ge(0), Le(1000)] = 2  # hidden layers of a critic; 0: logistic regression


class Features(nn.Module):
    """RGB images ``[N, 3, R, R]`` in [-1, 1] to pooled features of every stage and the bottleneck's, each ``[N, d]``.

    Raises ValueError for an unknown network or for images that are not RGB.
    """

    def __init__(self, config: Config, shape: tuple[int, ...]):
        super().__init__()
        if config.network not in NETWORKS:
            raise ValueError(f"network '{config.network}' is unknown; valid are: {', '.join(NETWORKS)}")
        if len(shape) != 3 or shape[0] != 3:
            raise ValueError(f"resnet reads RGB images, not samples of shape {tuple(shape)}")
        self.config = config
        from torchvision.models import get_model  # here, for it takes a second that the other families need not wait

        self.network = get_model(config.network)
        stages = [self.network.layer1, self.network.layer2, self.network.layer3, self.network.layer4]
        sizes = [[m for m in stage.modules() if isinstance(m, nn.BatchNorm2d)][-1].num_features for stage in stages]
        self.network.fc = nn.Sequential(nn.Linear(sizes[-1], config.width), nn.ReLU())
        self.sizes = [*sizes, config.width]
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet in [0, 1], which the weights expect
        self.register_buffer("mean", 2 * torch.tensor(mean).reshape(3, 1, 1) - 1, persistent=False)
        self.register_buffer("std", 2 * torch.tensor(std).reshape(3, 1, 1), persistent=False)

    def start(self) -> None:
        """Take over the weights that a fresh run begins with; a resumed run has its own. Raises ValueError."""
        if self.config.weights == "none":
            return
        try:
            theirs = _pretrained(self.config.network, self.config.weights)
            theirs = {name: value for name, value in theirs.items() if not name.startswith("fc.")}
            missing = self.network.load_state_dict(theirs, strict=False).missing_keys
            if absent := [name for name in missing if not name.startswith("fc.")]:
                raise ValueError(f"they lack {absent[0]}")
        except Exception as error:  # no such weights, no network, a damaged file: each raises another
            reason = str(error).partition("\n")[0].rstrip(".")
            raise ValueError(f"weights '{self.config.weights}' cannot be had ({reason})") from None

    def normalise(self, x: Tensor) -> Tensor:
        """Images in [-1, 1] as the weights expect them; torchvision's own transform would wait for the device."""
        return (x - self.mean) / self.std

    def forward(self, x: Tensor) -> list[Tensor]:
        net = self.network
        x = net.maxpool(net.relu(net.bn1(net.conv1(self.normalise(x)))))
        features = []
        for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
            x = stage(x)
            features.append(net.avgpool(x).flatten(1))
        return [*features, net.fc(features[-1])]


def _pretrained(network: str, weights: str) -> dict[str, Tensor]:
    """Torchvision's ``weights`` of a network: from torch's cache, or fetched into it.

    Raises ValueError for a cached file that is not the one that its name says, and what torch raises. No code of the
    file is run.
    """
    from torchvision.models import get_model_weights

    chosen = get_model_weights(network).verify(weights)
    path = Path(torch.hub.get_dir(), "checkpoints", chosen.url.rpartition("/")[2])
    begin = path.stem.rpartition("-")[2]  # of the file's sha256, which torch compares after a download alone
    if path.exists():
        with open(path, "rb") as file:
            if not hashlib.file_digest(file, "sha256").hexdigest().startswith(begin):
                raise ValueError(f"{path} is damaged: delete it, so that it is fetched again")
    return chosen.get_state_dict(check_hash=True, weights_only=True)
