"""Folders of images as domains: one folder a domain, with one folder a class inside."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from annotated_types import Gt, Lt

from utils.data.files import Files, folder_files
from utils.data.fitting import ImageFiles
from utils.data.image_files import class_folders, folder_labels, image_samples
from utils.data.pairs import Domain, Pair, check_classes, check_target_classes
from utils.data.survey import survey
from utils.errors import UserError, check_name
from utils.paths import path_of


@dataclass
class DomainFolders(ImageFiles):
    """Fields of ``data.*`` for folders as domains."""

    source: str = ""  # the labelled domain: a folder in root; several may be joined, as "a+b"
    target: str = ""  # the unlabelled domain: a folder in root
    validation: Annotated[float, Gt(0), Lt(1)] = 0.1  # share of the source held out


def domain_folders(config: DomainFolders, seed: int) -> Pair:
    """``data.root/<domain>/<class>/*.jpg`` (Office-31, Office-Home, VisDA, DomainNet, PACS).

    ``data.source`` may name several domains, as "art+photo": they become the attribute. A target without class folders
    has no labels.
    """
    root = path_of(config.root)
    if not root.is_dir():
        raise UserError(f"The folder '{root}' does not exist; set data.root to the folder that holds the domains.")
    available = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    names = list(dict.fromkeys(config.source.split("+")))
    for key, chosen in (("source", names), ("target", [config.target])):
        for name in chosen:
            check_name(f"data.{key} (a folder in '{root}')", name, available)
    *sources, target = (survey(folder_files(root / name), config.background).files for name in (*names, config.target))
    classes = class_folders(sources[0].names)
    for name, files in zip(names[1:], sources[1:], strict=True):
        if classes and not class_folders(files.names):
            raise UserError(f"The source '{name}' in '{root}' has no folders of classes, and '{names[0]}' has.")
        check_classes(names[0], classes, name, class_folders(files.names))
    check_target_classes(names[0], classes, config.target, class_folders(target.names))
    attributes = tuple(names) if len(names) > 1 else ()
    return Pair(
        _source(config, root, names, sources, classes), _target(config, target, classes), tuple(classes), attributes
    )


def _source(config: DomainFolders, root: Path, names: list[str], parts: list[Files], classes: list[str]) -> Domain:
    """The files of all source domains as one domain, which of them each comes from as its attribute."""
    paths = [f"{name}/{x}" for name, part in zip(names, parts, strict=True) for x in part.names]
    in_domain = [x for part in parts for x in part.names]
    label = folder_labels(classes, in_domain) if classes else None
    attribute = torch.cat([torch.full((len(part.names),), i) for i, part in enumerate(parts)])
    notes = tuple(note for part in parts for note in part.notes)
    files = parts[0]._replace(root=str(root), names=paths, notes=notes)
    return Domain("+".join(names), image_samples(config, files, label, 3, attribute))


def _target(config: DomainFolders, files: Files, classes: list[str]) -> Domain:
    label = folder_labels(classes, files.names) if classes and class_folders(files.names) else None
    return Domain(config.target, image_samples(config, files, label, 3))
