"""Images to files: PNGs in a folder or a zip, in forms that ``utils.data.image_files`` and others read."""

import io
import json
import shutil
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from utils.errors import UserError

NO_FOLDERS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tar", ".gz", ".npy", ".npz", ".csv")


def check_destination(option: str, text: str, path: Path) -> None:
    """Raise UserError unless ``path``, which ``option`` gives as ``text``, is new (or an empty folder), and can be a
    folder or a zip.
    """
    if path.suffix.lower() in NO_FOLDERS:
        raise UserError(
            f"{option} is '{text}' and must be a folder or end in .zip: images are written as PNG, which loses nothing."
        )
    empty = path.is_dir() and not path.is_symlink() and not any(path.iterdir()) and path.suffix.lower() != ".zip"
    if (path.exists() or path.is_symlink()) and not empty:
        raise UserError(f"{option} is '{text}', which is there already: remove it or name another.")


def save_images(batches: Iterable[tuple[Tensor, Tensor | None]], count: int, classes: int, path: Path) -> Path:
    """Write ``count`` uint8 images, which come in batches ``[n, C, H, W]`` with labels ``[n]`` or None, and return the
    path: all of them, or there is nothing of that name.

    In a folder they are ``3/000012.png``, 3 being the class and 12 the number; without labels ``000012.png``. A path
    that ends in .zip has StyleGAN's format: ``00000/img00000012.png``, with all labels in ``dataset.json``.
    """
    partial = path.with_name(f".{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove(partial)  # of a process that was killed
    try:
        with tqdm(total=count, desc=f"writing {path.name}", unit="image", disable=None, leave=False) as bar:
            write = _to_zip if path.suffix.lower() == ".zip" else _to_folder
            write(_numbered(batches, bar.update), classes, partial)
        return partial.rename(path)
    except BaseException:
        _remove(partial)
        raise


Numbered = Iterable[tuple[int, bytes, int | None]]  # number, PNG, class


def _numbered(batches: Iterable[tuple[Tensor, Tensor | None]], written: Callable[[int], object]) -> Numbered:
    number = 0
    for images, label in batches:
        labels = [None] * len(images) if label is None else label.tolist()
        for image, y in zip(images, labels, strict=True):
            yield number, png(image), y
            number += 1
        written(len(images))


def png(image: Tensor) -> bytes:
    """A uint8 image ``[1, H, W]`` or ``[3, H, W]`` as a PNG file."""
    from PIL import Image  # here for a fast start-up

    file = io.BytesIO()
    Image.fromarray((image[0] if len(image) == 1 else image.permute(1, 2, 0)).numpy()).save(file, format="PNG")
    return file.getvalue()


def _to_folder(images: Numbered, classes: int, folder: Path) -> None:
    folder.mkdir()
    digits = len(str(classes - 1))  # as many for all: readers sort names of classes as text
    for number, content, y in images:
        place = folder if y is None else folder / f"{y:0{digits}}"
        place.mkdir(exist_ok=True)
        (place / f"{number:06}.png").write_bytes(content)


def _to_zip(images: Numbered, classes: int, path: Path) -> None:
    labels = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:  # PNGs cannot be packed any further
        for number, content, y in images:
            name = f"{number // 1000:05}/img{number:08}.png"
            file.writestr(name, content)
            labels.append([name, y])
        file.writestr("dataset.json", json.dumps({"labels": labels if classes else None}))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
