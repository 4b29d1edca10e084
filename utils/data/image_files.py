"""Data sets of image files: a folder, or a zip as StyleGAN2-ADA, StyleGAN3, EDM and R3GAN read it."""

import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
from annotated_types import Ge, Lt
from torch import Tensor
from tqdm import tqdm

from utils.data import held_out
from utils.data.decoding import open_image
from utils.data.files import Files, folder_files, reason, shown, zip_files
from utils.data.fitting import ImageFiles, Images, fit
from utils.data.samples import DataSet, Resident, Samples, Streamed
from utils.data.survey import Survey, survey
from utils.errors import UserError
from utils.paths import path_of

CLASSES_SHOWN = 20
FEW = 100  # images of the smallest sets that DiffAugment's paper trains on (Zhao et al. 2020, section 4.4)


@dataclass
class OwnImages(ImageFiles):
    """Fields of ``data.*`` for image files that a GAN trains on."""

    validation: Annotated[float, Ge(0), Lt(1)] = 0.05  # share held out, but 50 of 500 images and more; 0: none


def folder(config: OwnImages, seed: int) -> DataSet:
    """Images below a folder; the first level of sub-folders names the classes if no image lies outside of them.

    Sub-folders called ``train`` and ``test`` (or ``val``) are no classes but a split, perhaps with classes inside.
    """
    root = path_of(config.root)
    if root.is_file():
        hint = "data.name=zip" if zipfile.is_zipfile(root) else "data.root to the folder that holds the images"
        raise UserError(f"data.root '{root}' is a file where data.name=folder needs a folder; set {hint}.")
    if not root.is_dir():
        raise UserError(f"The folder '{root}' does not exist; set data.root to the folder that holds the images.")
    found = survey(folder_files(root), config.background)
    names = found.files.names
    if held_out.by_folder(names):
        names = [name.partition("/")[2] for name in names]
    classes = class_folders(names)
    label = folder_labels(classes, names) if classes else None
    data = _data_set(config, found, label, tuple(classes))
    return replace(data, notes=(*data.notes, *_on_stray_images(names)))


def class_folders(names: list[str]) -> list[str]:
    """The first level of sub-folders, sorted; empty if an image lies outside of them."""
    if not all("/" in name for name in names):
        return []
    return sorted({name.split("/")[0] for name in names})


def folder_labels(classes: list[str], names: list[str]) -> Tensor:
    """The class ``[n]`` of each file: the index of its first folder in ``classes``."""
    index = {name: i for i, name in enumerate(classes)}
    return torch.tensor([index[name.split("/")[0]] for name in names])


def _on_stray_images(names: list[str]) -> Iterator[str]:
    stray = [name for name in names if "/" not in name]
    folders = {name.split("/")[0] for name in names if "/" in name}
    if stray and folders:
        yield (
            f"No classes: {shown(stray)} lie outside of the sub-folders ({shown(sorted(folders))}); move them there "
            "for classes."
        )


def zip_file(config: OwnImages, seed: int) -> DataSet:
    """A zip of images with an optional ``dataset.json`` of labels."""
    root = path_of(config.root)
    if root.is_dir():
        raise UserError(f"data.root '{root}' is a folder where data.name=zip needs a .zip file; set data.name=folder.")
    if not root.exists():
        raise UserError(f"The file '{root}' does not exist; set data.root to the path of the .zip file.")
    files, has_labels = zip_files(root)
    found = survey(files, config.background)
    return _data_set(config, found, _zip_labels(found.files) if has_labels else None, ())


def _zip_labels(files: Files) -> Tensor | None:
    where = f"dataset.json in '{files.root}'"
    try:
        pairs = json.loads(files.read("dataset.json"))["labels"]
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


def _data_set(config: OwnImages, found: Survey, label: Tensor | None, class_names: tuple[str, ...]) -> DataSet:
    files = found.files
    samples = image_samples(config, files, label, 1 if found.gray else 3)
    own = held_out.by_folder(files.names)
    train, test = (samples.part(part) for part in own or held_out.at_random(len(samples), label, config.validation))
    if own:
        note = f"Held out: the {len(test):,} images outside of the folder 'train'."
    elif len(test):
        note = f"Held out: {len(test):,} images (data.validation={config.validation:g}), the same for every seed."
    else:
        note = f"Nothing is held out: data.validation is {config.validation:g}, of {len(samples):,} images."
    classes = 0 if label is None else int(label.max()) + 1
    return DataSet(
        config.name, samples.shape, classes, train, test if len(test) else None, class_names=class_names,
        notes=(*files.notes, *_on_classes(label, class_names), note, *_on_few_images(len(train))),
        aspect=found.aspect if config.fit == "stretch" else None,
    )  # fmt: skip


def _on_classes(label: Tensor | None, names: tuple[str, ...]) -> Iterator[str]:
    if label is None:
        return
    counts = torch.bincount(label).tolist()
    listed = [f"{names[i] if names else i} {count:,}" for i, count in enumerate(counts[:CLASSES_SHOWN])]
    more = f", and {len(counts) - CLASSES_SHOWN:,} more" if len(counts) > CLASSES_SHOWN else ""
    yield f"{len(counts):,} classes, with images of each: {', '.join(listed)}{more}."


def _on_few_images(count: int) -> Iterator[str]:
    if count < FEW:
        yield (
            f"warning: {count} images are few to train on: the critic may learn them by heart and the generator copy "
            f"them; collect {FEW} or more, and augment them (augment.name=diffaugment)."
        )


def image_samples(
    config: ImageFiles, files: Files, label: Tensor | None, channels: int, attribute: Tensor | None = None
) -> Samples:
    """Image files as samples: Resident if their pixels fit in ``data.resident_gib``, otherwise Streamed.

    Raises UserError for the first file that cannot be used, if all are decoded here.
    """
    streamed = Streamed(files, label, channels, config, attribute)
    if len(streamed) * torch.Size(streamed.shape).numel() > config.resident_gib * 2**30:
        return streamed
    x = torch.empty(len(streamed), *streamed.shape, dtype=torch.uint8)
    for i in tqdm(range(len(streamed)), "decoding images", disable=None, leave=False):
        image = streamed[i]
        if isinstance(image, UserError):
            raise image
        x[i] = image
    return Resident(x, label, attribute, files)


def read_image(path: Path, shape: tuple[int, ...], config: Images) -> Tensor:
    """One image file as a network sees it that was trained with ``config``: uint8 ``shape`` (C, H, W).

    Where the data set has no ``data.fit`` the image is cropped. Raises UserError if it cannot be used.
    """
    from torchvision.transforms.v2 import functional as tv  # here for a fast start-up

    if not path.is_file():
        raise UserError(f"There is no image file '{path}': check the name.")
    image = open_image(Files(str(path.parent), [path.name]), path.name, getattr(config, "background", "black"))
    pixels = tv.pil_to_tensor(image.convert("L" if shape[0] == 1 else "RGB"))
    return fit(pixels, shape[1:], getattr(config, "fit", "crop"), f"The image '{path}'")
