"""The keys of ``data.*``, which differ from set to set."""

from collections.abc import Callable
from typing import get_type_hints

from utils.errors import check_name


def data_section(name: str, registry: dict[str, Callable]) -> type:
    """The dataclass of the keys of the data set ``name`` in a registry: what the set's function says it takes.

    Raises UserError, with the nearest valid names, for an unknown name.
    """
    check_name("data.name", name, registry)
    return get_type_hints(registry[name])["config"]
