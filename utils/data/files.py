"""Image files in a folder or a zip: listing them and reading their bytes."""

import functools
import hashlib
import os
import zipfile
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from utils.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".pbm", ".pnm",
)  # fmt: skip
SHOWN = 3  # files that a sentence names


def _open_in_folder(root: str, name: str) -> BinaryIO:
    return Path(root, name).open("rb")


def _size_in_folder(root: str, name: str) -> int:
    return Path(root, name).stat().st_size


class Files(NamedTuple):
    """Image files in a folder or a zip: ``open(root, name)`` opens one to read its bytes."""

    root: str
    names: list[str]
    open: Callable[[str, str], BinaryIO] = _open_in_folder
    size: Callable[[str, str], int] = _size_in_folder  # of a file in bytes, without reading it
    notes: tuple[str, ...] = ()  # sentences on what was found, and what was left out

    def read(self, name: str) -> bytes:
        """The bytes of a file."""
        with self.open(self.root, name) as file:
            return file.read()

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
                found.update(self.read(name))
        except Exception as error:  # zipfile raises OSError, BadZipFile, KeyError, zlib.error and more
            raise UserError(
                f"The image '{name}' in '{self.root}' cannot be read ({reason(error)}); replace or remove it."
            ) from error
        return found.hexdigest()


def folder_files(root: Path) -> Files:
    """The images below a folder, sorted by their path in it. Raises UserError if there is none.

    Links are followed, for class folders are often links on a cluster, but every file counts once, however many links
    lead to it.
    """
    names, again = [], 0
    seen = set()
    for path, key in _walk(root):
        if key in seen:
            again += 1
            continue
        seen.add(key)
        names.append(path.relative_to(root).as_posix())
    files = _image_files(Files(str(root), names))
    note = f"{_counted(again, 'file')} reached a second time through links: each counts once."
    return files._replace(notes=(*files.notes, note)) if again else files


def _walk(root: Path) -> Iterator[tuple[Path, tuple[int, int]]]:
    """All files below a folder, each with its device and inode; what is there itself before what links lead to.

    Every folder is entered once, so that a link to a folder above it ends. Raises UserError for a folder that cannot
    be listed.
    """
    waiting, entered, linked = deque([root]), set(), []
    while waiting:
        folder = waiting.popleft()
        try:
            if (key := _key(folder.stat())) in entered:
                continue
            entered.add(key)
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            raise UserError(
                f"The folder '{error.filename}' cannot be listed ({reason(error)}); mend or remove it."
            ) from error
        inside = []
        for entry in entries:
            if _is_hidden(entry.name):
                continue
            path = folder / entry.name
            if entry.is_dir():
                (waiting if entry.is_symlink() else inside).append(path)
            elif entry.is_symlink():
                linked.append(path)
            else:
                yield path, (key[0], entry.inode())
        waiting.extendleft(reversed(inside))
    for path in linked:
        # A link to nothing has no file behind it, but is left out with a word if it is called as an image is.
        yield path, _key(path.stat() if path.exists() else path.lstat())


def _key(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def zip_files(root: Path) -> tuple[Files, bool]:
    """The images in a zip, sorted by name, and whether it holds a ``dataset.json``.

    Raises UserError if it holds no image, or is no complete zip.
    """
    try:
        inside = _archive(str(root), os.getpid()).namelist()
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"'{root}' is not a complete zip file ({reason(error)}); copy or make it again.") from error
    names = [name for name in inside if not name.endswith("/") and name != "dataset.json"]
    return _image_files(Files(str(root), names, _open_in_zip, _size_in_zip)), "dataset.json" in inside


@functools.cache
def _archive(path: str, process: int) -> zipfile.ZipFile:
    """Open a zip once per process: a handle that came through a fork would share its file position with the parent."""
    return zipfile.ZipFile(path)


def _open_in_zip(root: str, name: str) -> BinaryIO:
    return _archive(root, os.getpid()).open(name)


def _size_in_zip(root: str, name: str) -> int:
    return _archive(root, os.getpid()).getinfo(name).file_size


def _image_files(files: Files) -> Files:
    """Those of ``files`` whose suffix is an image's, sorted. Raises UserError if there is none."""
    names, others = [], defaultdict(list)
    for name in sorted(files.names):
        path = PurePosixPath(name)
        if any(map(_is_hidden, path.parts)):
            continue
        if path.suffix.lower() in SUFFIXES:
            names.append(name)
        else:
            others[path.suffix.lower() or "no suffix"].append(name)
    if not names:
        suffixes = ", ".join(SUFFIXES)
        raise UserError(f"'{files.root}' holds no image ({suffixes}); set data.root to where the images are.")
    notes = files.notes
    if others:
        kinds = ", ".join(f"{len(found)} {suffix}" for suffix, found in sorted(others.items()))
        every = [name for _, found in sorted(others.items()) for name in found]
        notes += (f"Left out, for their suffix is no image's: {kinds} ({shown(every)}).",)
    return files._replace(names=names, notes=notes)


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "__MACOSX"))  # macOS adds ._a.png, which is no image


def shown(names: list[str]) -> str:
    """The first few names in quotes, and how many more there are."""
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(f"'{name}'" for name in names[:SHOWN]) + more


def _counted(count: int, word: str) -> str:
    return f"{count:,} {word} was" if count == 1 else f"{count:,} {word}s were"


def reason(error: Exception) -> str:
    """The first sentence of an exception, to be quoted in another."""
    if isinstance(error, KeyError):
        return f"no {error}"
    first = str(error).strip().partition("\n")[0].partition(". ")[0]
    return first.rstrip(".:") or type(error).__name__
