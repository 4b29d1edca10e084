"""Digits on patches of photographs: |patch - digit|, as MNIST-M was made (Ganin et al. 2016, section 5.2.4)."""

import torch
from torch import Tensor

from adversarial.draws import rng
from utils.data.decoding import open_image
from utils.data.files import folder_files
from utils.errors import UserError
from utils.paths import path_of


def read_photographs(photos: str, size: tuple[int, int]) -> list[Tensor]:
    """The photographs below the folder ``data.photos``: uint8 ``[3, H, W]`` each.

    Raises UserError if the folder does not exist, or a photograph is smaller than ``size`` (H, W).
    """
    from torchvision.transforms.v2 import functional as tv  # here for a fast start-up

    folder = path_of(photos)
    if not photos or not folder.is_dir():
        raise UserError(f"mnist_m needs photographs: there is no folder data.photos='{photos}'; set it to one.")
    files = folder_files(folder)
    decoded = [tv.pil_to_tensor(open_image(files, name).convert("RGB")) for name in files.names]
    for name, photo in zip(files.names, decoded, strict=True):
        if photo.shape[1] < size[0] or photo.shape[2] < size[1]:
            raise UserError(
                f"The photograph '{name}' in '{folder}' is smaller than data.resolution={max(size)}; remove it."
            )
    return decoded


def sample_photographs() -> list[Tensor]:
    """Scikit-learn's two photographs: uint8 ``[3, 427, 640]`` each."""
    from sklearn.datasets import load_sample_images  # here for a fast start-up

    return [torch.tensor(image).permute(2, 0, 1) for image in load_sample_images().images]


def blend(x: Tensor, photos: list[Tensor], *names: int | str) -> Tensor:
    """|patch - digit| per channel for gray images ``[n, 1, H, W]`` and random patches of ``photos``, ``[3, h, w]``.

    Returns uint8 ``[n, 3, H, W]``, a function of the names. Raises UserError if a photograph is smaller than H x W.
    """
    draw, (H, W) = rng(*names, "patches"), x.shape[-2:]
    if any(photo.shape[1] < H or photo.shape[2] < W for photo in photos):
        least = min(min(photo.shape[1:]) for photo in photos)
        raise UserError(
            f"data.resolution={max(H, W)} is larger than a photograph behind the digits ({least} pixels); lower it."
        )
    which = torch.randint(len(photos), (len(x),), generator=draw).tolist()
    at = torch.rand(len(x), 2, generator=draw).tolist()
    patches = torch.empty(len(x), 3, H, W, dtype=torch.uint8)
    for i, (photo, (v, u)) in enumerate(zip(which, at, strict=True)):
        _, h, w = photos[photo].shape
        top, left = int(v * (h - H + 1)), int(u * (w - W + 1))
        patches[i] = photos[photo][:, top : top + H, left : left + W]
    return (patches.int() - x.int()).abs().to(torch.uint8)  # int: uint8 would wrap around below 0
