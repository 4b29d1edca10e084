"""What a GAN trains on: the registry of data sets.

A set is a function ``(config, seed) -> DataSet``, and the annotation of ``config`` is the dataclass of its keys of
``data.*``. A set of labelled images is added to ``utils.data.image_sets.IMAGE_SETS``, so that it can be a domain, too;
any other takes a line of ``DATASETS``.
"""

from collections.abc import Callable
from typing import Any

from utils.data.fitting import Images, check_size
from utils.data.image_files import folder, zip_file
from utils.data.image_sets import IMAGE_SETS, stacked_mnist
from utils.data.points import grid, ring
from utils.data.samples import DataSet
from utils.errors import check_name

DATASETS: dict[str, Callable[[Any, int], DataSet]] = {
    **IMAGE_SETS,
    "ring": ring,
    "grid": grid,
    "stacked_mnist": stacked_mnist,
    "folder": folder,
    "zip": zip_file,
}


def load(config: Any, seed: int) -> DataSet:
    """Return the data set that ``config`` names; only ring, grid, stacked_mnist and mnist_m depend on the seed.

    Raises UserError if the name is unknown, or the data cannot be read or brought to ``data.resolution``.
    """
    check_name("data.name", config.name, DATASETS)
    if isinstance(config, Images):
        check_size(config)
    return DATASETS[config.name](config, seed)
