"""The keys of ``data.*``, which differ from set to set."""

from typing import get_type_hints

from utils.data.datasets import DATASETS
from utils.data.domains import DOMAINS
from utils.errors import check_name

REGISTRIES = {"generation": DATASETS, "adaptation": DOMAINS, "invariance": DOMAINS}


def data_section(name: str, game: str) -> type:
    """The dataclass of the keys of the data set ``name`` in a ``game``: what the set's function says it takes.

    Raises UserError, with the nearest valid names, for an unknown name of either.
    """
    check_name("game.name", game, REGISTRIES)
    check_name("data.name", name, REGISTRIES[game])
    return get_type_hints(REGISTRIES[game][name])["config"]
