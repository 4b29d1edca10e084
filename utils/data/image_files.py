"""Data sets of image files: a folder, or a zip as StyleGAN2-ADA, StyleGAN3, EDM and R3GAN read it."""

import json
import zipfile
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor
from tqdm import tqdm

from utils.data.files import GRAY_MODES, Files, folder_files, open_image, reason, zip_files
from utils.data.fitting import FittedImages
from utils.data.samples import DataSet, Resident, Samples, Streamed
from utils.errors import UserError
from utils.paths import path_of


@dataclass
class ImageFiles(FittedImages):
    """Fields of ``data.*`` for image files."""

    root: str = "data"  # folder (or .zip file) that holds the images
    workers: Annotated[int, Ge(0), Le(1024)] = 2  # loader processes for sets too large to hold decoded
    resident_gib: Annotated[float, Ge(0)] = 4.0  # sets whose pixels fit in this are kept on the device, others streamed


def folder(config: ImageFiles, seed: int) -> DataSet:
    """Images below a folder; the first level of sub-folders names the classes if no image lies outside of them."""
    root = path_of(config.root)
    if root.is_file():
        hint = "data.name=zip" if zipfile.is_zipfile(root) else "data.root to the folder that holds the images"
        raise UserError(f"data.root '{root}' is a file where data.name=folder needs a folder; set {hint}.")
    if not root.is_dir():
        raise UserError(f"The folder '{root}' does not exist; set data.root to the folder that holds the images.")
    files = folder_files(root)
    classes = class_folders(files)
    label = folder_labels(classes, files.names) if classes else None
    return _data_set(config, files, label, tuple(classes))


def class_folders(files: Files) -> list[str]:
    """The first level of sub-folders, sorted; empty if an image lies outside of them."""
    if not all("/" in name for name in files.names):
        return []
    return sorted({name.split("/")[0] for name in files.names})


def folder_labels(classes: list[str], names: list[str]) -> Tensor:
    """The class ``[n]`` of each file: the index of its first folder in ``classes``."""
    index = {name: i for i, name in enumerate(classes)}
    return torch.tensor([index[name.split("/")[0]] for name in names])


def zip_file(config: ImageFiles, seed: int) -> DataSet:
    """A zip of images with an optional ``dataset.json`` of labels."""
    root = path_of(config.root)
    if root.is_dir():
        raise UserError(f"data.root '{root}' is a folder where data.name=zip needs a .zip file; set data.name=folder.")
    if not root.exists():
        raise UserError(f"The file '{root}' does not exist; set data.root to the path of the .zip file.")
    files, has_labels = zip_files(root)
    return _data_set(config, files, _zip_labels(files) if has_labels else None, ())


def _zip_labels(files: Files) -> Tensor | None:
    where = f"dataset.json in '{files.root}'"
    try:
        pairs = json.loads(files.read(files.root, "dataset.json"))["labels"]
        if pairs is None:
            return None
        labels = dict(pairs)
    except Exception as error:  # damaged zip, no JSON, JSON of another form
        raise UserError(
            f'{where} cannot be read ({reason(error)}); it must be JSON of the form {{"labels": [["a.png", 0], ...]}} '
            f'or {{"labels": null}}.'
        ) from error
    for name in files.names:
        if name not in labels:
            raise UserError(f"{where} has no label for '{name}'; add one, or write {{\"labels\": null}}.")
        if type(labels[name]) is not int or labels[name] < 0:  # type: True is an int to isinstance
            raise UserError(
                f"{where} gives '{name}' the label {str(labels[name])[:40]}; write class numbers 0, 1, 2, ..., "
                f"no vectors or other values."
            )
    return torch.tensor([labels[name] for name in files.names])


def _data_set(config: ImageFiles, files: Files, label: Tensor | None, class_names: tuple[str, ...]) -> DataSet:
    channels = 1 if open_image(files, files.names[0]).mode in GRAY_MODES else 3
    samples = image_samples(config, files, label, channels)
    classes = 0 if label is None else int(label.max()) + 1
    return DataSet(config.name, samples.shape, classes, samples, None, class_names=class_names)


def image_samples(
    config: ImageFiles, files: Files, label: Tensor | None, channels: int, attribute: Tensor | None = None
) -> Samples:
    """Image files as samples: Resident if their pixels fit in ``data.resident_gib``, otherwise Streamed.

    Raises UserError for the first file that cannot be used, if all are decoded here.
    """
    streamed = Streamed(files, label, channels, config, attribute)
    if len(streamed) * channels * config.resolution**2 > config.resident_gib * 2**30:
        return streamed
    x = torch.empty(len(streamed), *streamed.shape, dtype=torch.uint8)
    for i in tqdm(range(len(streamed)), "decoding images", disable=None, leave=False):
        image = streamed[i]
        if isinstance(image, UserError):
            raise image
        x[i] = image
    return Resident(x, label, attribute, files)
