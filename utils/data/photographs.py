"""Digits on patches of photographs: |patch - digit|, as MNIST-M was made (Ganin et al. 2016, section 5.2.4)."""

import torch
from torch import Tensor

from adversarial.draws import rng
from utils.data.files import folder_files, open_image
from utils.errors import UserError
from utils.paths import path_of


def read_photographs(photos: str, resolution: int) -> list[Tensor]:
    """The photographs below the folder ``data.photos``: uint8 ``[3, H, W]`` each.

    Raises UserError if the folder does not exist, or a photograph has a side below ``resolution``.
    """
    from torchvision.transforms.v2 import functional as tv  # here for a fast start-up

    folder = path_of(photos)
    if not photos or not folder.is_dir():
        raise UserError(f"mnist_m needs photographs: there is no folder data.photos='{photos}'.")
    files = folder_files(folder)
    decoded = [tv.pil_to_tensor(open_image(files, name).convert("RGB")) for name in files.names]
    for name, photo in zip(files.names, decoded, strict=True):
        if min(photo.shape[1:]) < resolution:
            raise UserError(
                f"The photograph '{name}' in '{folder}' is smaller than data.resolution={resolution}; remove it."
            )
    return decoded


def sample_photographs() -> list[Tensor]:
    """Scikit-learn's two photographs: uint8 ``[3, 427, 640]`` each."""
    from sklearn.datasets import load_sample_images  # here for a fast start-up

    return [torch.tensor(image).permute(2, 0, 1) for image in load_sample_images().images]


def blend(x: Tensor, photos: list[Tensor], *names: int | str) -> Tensor:
    """|patch - digit| per channel for gray images ``[n, 1, R, R]`` and random patches of ``photos`` ``[3, H, W]``.

    Returns uint8 ``[n, 3, R, R]``, a function of the names. Raises UserError if a photograph has a side below R.
    """
    draw, R = rng(*names, "patches"), x.shape[-1]
    if (least := min(min(photo.shape[1:]) for photo in photos)) < R:
        raise UserError(
            f"data.resolution={R} is larger than a photograph behind the digits ({least} pixels); lower it."
        )
    which = torch.randint(len(photos), (len(x),), generator=draw).tolist()
    at = torch.rand(len(x), 2, generator=draw).tolist()
    patches = torch.empty(len(x), 3, R, R, dtype=torch.uint8)
    for i, (photo, (v, u)) in enumerate(zip(which, at, strict=True)):
        _, H, W = photos[photo].shape
        top, left = int(v * (H - R + 1)), int(u * (W - R + 1))
        patches[i] = photos[photo][:, top : top + R, left : left + R]
    return (patches.int() - x.int()).abs().to(torch.uint8)  # int: uint8 would wrap around below 0
