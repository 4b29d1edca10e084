"""Image files in a folder or a zip: listing them, reading their bytes, decoding them."""

import contextlib
import functools
import hashlib
import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from utils.errors import UserError

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
GRAY_MODES = ("1", "L", "LA", "La")  # Pillow's modes without colours


def _size_in_folder(root: str, name: str) -> int:
    return Path(root, name).stat().st_size


class Files(NamedTuple):
    """Image files in a folder or a zip: ``read(root, name)`` returns the bytes of one."""

    root: str
    names: list[str]
    read: Callable[[str, str], bytes]
    size: Callable[[str, str], int] = _size_in_folder  # of a file in bytes, without reading it

    def part(self, index: "Tensor") -> "Files":
        """The files at ``index``."""
        return self._replace(names=[self.names[i] for i in index.tolist()])

    def digest(self) -> str:
        """A sha256 of all names, of up to 1,000 sizes and of the bytes of up to 100 files, spread evenly.

        To read a million would take a cluster minutes. Raises UserError for a file that cannot be read.
        """
        found = hashlib.sha256(repr(self.names).encode())
        try:
            for name in self.names[:: len(self.names) // 1000 + 1]:
                found.update(self.size(self.root, name).to_bytes(8, "big"))
            for name in self.names[:: len(self.names) // 100 + 1]:
                found.update(self.read(self.root, name))
        except Exception as error:  # zipfile raises OSError, BadZipFile, KeyError, zlib.error and more
            raise UserError(
                f"The image '{name}' in '{self.root}' cannot be read ({reason(error)}); replace or remove it."
            ) from error
        return found.hexdigest()


def folder_files(root: Path) -> Files:
    """The images below a folder, sorted by their path in it. Raises UserError if there is none."""

    def fail(error: OSError) -> None:  # os.walk says nothing about folders that it cannot enter
        raise UserError(f"The folder '{error.filename}' cannot be listed ({reason(error)}); mend or remove it.")

    names = []
    for where, _, inside in os.walk(root, onerror=fail, followlinks=True):  # class folders are often links on a cluster
        names += [(Path(where) / name).relative_to(root).as_posix() for name in inside]
    return Files(str(root), _image_names(names, root), _read_in_folder)


def _read_in_folder(root: str, name: str) -> bytes:
    return Path(root, name).read_bytes()


def zip_files(root: Path) -> tuple[Files, bool]:
    """The images in a zip, sorted by name, and whether it holds a ``dataset.json``.

    Raises UserError if it holds no image, or is no complete zip.
    """
    try:
        inside = _archive(str(root), os.getpid()).namelist()
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"'{root}' is not a complete zip file ({reason(error)}); copy or make it again.") from error
    return Files(str(root), _image_names(inside, root), _read_in_zip, _size_in_zip), "dataset.json" in inside


@functools.cache
def _archive(path: str, process: int) -> zipfile.ZipFile:
    """Open a zip once per process: a handle that came through a fork would share its file position with the parent."""
    return zipfile.ZipFile(path)


def _read_in_zip(root: str, name: str) -> bytes:
    return _archive(root, os.getpid()).read(name)


def _size_in_zip(root: str, name: str) -> int:
    return _archive(root, os.getpid()).getinfo(name).file_size


def _image_names(names: list[str], root: Path) -> list[str]:
    found = sorted(filter(_is_image, names))
    if not found:
        raise UserError(f"'{root}' holds no image ({', '.join(SUFFIXES)}); set data.root to where the images are.")
    return found


def _is_image(name: str) -> bool:
    path = PurePosixPath(name)
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)  # macOS adds ._a.png, which is no image
    return path.suffix.lower() in SUFFIXES and not hidden


def open_image(files: Files, name: str) -> "Image.Image":
    """Decode a file in full, so that a truncated one is found, and turn it upright as its EXIF data say.

    Raises UserError if it cannot be decoded or has more than 8 bits a pixel.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError  # here for a fast start-up

    try:
        image = Image.open(io.BytesIO(files.read(files.root, name)), formats=FORMATS)
        image.load()
        with contextlib.suppress(SyntaxError):  # Pillow's error for EXIF data that cannot be read
            ImageOps.exif_transpose(image, in_place=True)
    except Exception as error:  # Pillow and zipfile raise OSError, SyntaxError, EOFError, zlib.error and more
        # Pillow's own sentence would name a BytesIO object, not the file.
        unknown = isinstance(error, UnidentifiedImageError)
        why = f"no {' or '.join(FORMATS)} file" if unknown else reason(error)
        raise UserError(
            f"The image '{name}' in '{files.root}' cannot be decoded ({why}); replace or remove it."
        ) from error
    if image.mode.startswith(("I", "F")):
        raise UserError(f"The image '{name}' in '{files.root}' has more than 8 bits a pixel; convert it to 8 bits.")
    return image


def reason(error: Exception) -> str:
    """The first sentence of an exception, to be quoted in another."""
    if isinstance(error, KeyError):
        return f"no {error}"
    first = str(error).strip().partition("\n")[0].partition(". ")[0]
    return first.rstrip(".:") or type(error).__name__
