"""Which images of a set are held out, so that a generator is measured on images that it has not seen."""

from pathlib import PurePosixPath

import torch
from torch import Tensor

from adversarial.draws import rng

TRAIN = ("train", "training")
HELD_OUT = ("test", "testing", "val", "valid", "validation")
LEAST, TENTH = 50, 10  # images held out, at least, but never more than a tenth of a set for that reason

Split = tuple[Tensor, Tensor]  # indices of what is trained on and of what is held out, both ascending


def by_folder(names: list[str]) -> Split | None:
    """The split that a set comes with: all files lie in a folder ``train``, or in one called ``test`` or ``val``.

    None for a set of another form.
    """
    top = [PurePosixPath(name).parts[0].lower() if "/" in name else "" for name in names]
    folders = set(top)
    if not (folders & set(TRAIN) and folders & set(HELD_OUT) and folders <= {*TRAIN, *HELD_OUT}):
        return None
    trained_on = torch.tensor([folder in TRAIN for folder in top])
    return trained_on.nonzero().flatten(), (~trained_on).nonzero().flatten()


def at_random(count: int, label: Tensor | None, share: float) -> Split:
    """A split of ``count`` images that holds out a ``share``, or 50 images if that is more and at most a tenth of all:
    from 500 images on there are 50. No image is held out of fewer than 20, nor with a share of 0.

    It is the same in every run, whatever its seed, so that runs are measured on the same images. Of each class of
    ``label [count]`` about the same share is held out, and never the only image.
    """
    least = min(LEAST, count // TENTH)
    held = max(round(share * count), least) if share > 0 and least > 1 else 0
    mixed = torch.randperm(count, generator=rng("held-out"))
    if label is not None:
        mixed = mixed[label[mixed].argsort(stable=True)]
        alone = torch.bincount(label)[label[mixed]] == 1
        mixed = mixed[~alone]
    held = min(held, len(mixed))
    # Every so many-th of the images in the order of their classes.
    chosen = torch.zeros(count, dtype=torch.bool)
    chosen[mixed[torch.arange(held) * len(mixed) // max(held, 1)]] = True
    return (~chosen).nonzero().flatten(), chosen.nonzero().flatten()
