"""Networks in files of their own: ``config.json``, which describes a network, and ``model.safetensors``, its weights.

``load`` needs the folders ``models/`` and ``adversarial/`` of a clone, torch and safetensors, and nothing else.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from models import FAMILIES
from models.domain import Recogniser

FORMAT = "flipside-1"
CONFIG, WEIGHTS = "config.json", "model.safetensors"


@dataclass(frozen=True)
class Description:
    """What a network is built from."""

    network: str  # generator or recogniser
    family: str  # key of models.FAMILIES
    model: dict[str, Any]  # fields of the family's config
    shape: tuple[int, ...]  # of a sample
    classes: int  # of a generator that takes labels (0: it takes none), or that a recogniser tells apart

    def to_json(self, **more: Any) -> str:
        """The text of ``config.json``; ``more`` keys are for people."""
        return json.dumps({"format": FORMAT, **dataclasses.asdict(self), **more}, indent=1) + "\n"


def load(folder: str | Path, device: torch.device | str = "cpu") -> nn.Module:
    """The exported network in a folder, in evaluation mode: a generator or a ``models.domain.Recogniser``.

    Raises ValueError for a ``config.json`` of another form, and what torch raises for weights that do not fit.
    """
    network = build(read(Path(folder) / CONFIG), load_file(Path(folder) / WEIGHTS))
    return network.to(device).eval()


def read(path: Path) -> Description:
    """A ``config.json``. Raises ValueError unless it is one of a network that was exported."""
    content = json.loads(path.read_text(encoding="utf-8"))
    names = [field.name for field in dataclasses.fields(Description)]
    if not isinstance(content, dict) or content.get("format") != FORMAT or not set(names) <= content.keys():
        raise ValueError(f"{path} does not describe an exported network of format {FORMAT}")
    if not isinstance(content["model"], dict) or not isinstance(content["shape"], list):
        raise ValueError(f"{path} has no fields of a network, or no shape of its samples")
    found = Description(**{name: content[name] for name in names})
    return dataclasses.replace(found, shape=tuple(found.shape))


def build(description: Description, weights: Mapping[str, Tensor]) -> nn.Module:
    """The network of a description, with these weights; the global random state is as before."""
    family = FAMILIES[description.family]
    config = family.config(**description.model)
    with torch.random.fork_rng(devices=[]):  # a network is made with random weights first
        if description.network == "generator":
            network = family.generator(config, description.shape, description.classes)
        else:
            network = Recogniser(family.features(config, description.shape), description.classes)
    network.load_state_dict(weights)
    return network
