"""What a set of image files holds, found out before it is trained on: in the log of a run, and in ``--check-data``."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

from tqdm import tqdm

from utils.data.decoding import Header, is_gray, read_header
from utils.data.files import Files, shown
from utils.errors import UserError

# Headers are read of so many files, spread evenly, and copies are looked for in sets of up to so many.
LOOKED_AT = 20_000


class Survey(NamedTuple):
    """Files that are images, whether all are gray, and the width of a typical one in units of its height."""

    files: Files
    gray: bool
    aspect: float


def survey(files: Files, background: Any) -> Survey:
    """Look at the headers of image files; what has none is left out. The notes of the files then say what there is.

    Raises UserError if no image is left, or a file cannot be opened.
    """
    stride = -(-len(files.names) // LOOKED_AT)
    looked_at = files.names[::stride]
    headers = {
        name: read_header(files, name) for name in tqdm(looked_at, "looking at images", disable=None, leave=False)
    }
    broken = [name for name, header in headers.items() if header is None]
    if len(broken) == len(headers):
        raise UserError(f"'{files.root}' holds no image that can be read ({shown(broken)}); replace these files.")
    bad = set(broken)
    files = files._replace(names=[name for name in files.names if name not in bad])
    headers = {name: header for name, header in headers.items() if header is not None}
    aspects = sorted(header.width / header.height for header in headers.values())
    gray = all(is_gray(header, background) for header in headers.values())
    notes = [*files.notes, *_notes(files, broken, headers, gray)]
    if stride == 1:
        notes += _of_copies(files)
    return Survey(files._replace(notes=tuple(notes)), gray, aspects[len(aspects) // 2])


def _notes(files: Files, broken: list[str], headers: dict[str, Header], gray: bool) -> Iterator[str]:
    if broken:
        yield f"Left out, for they cannot be read as images: {shown(broken)}."
    sizes = sorted({(h.width * h.height, f"{h.width}x{h.height}") for h in headers.values()})
    modes = Counter(header.mode for header in headers.values())
    span = f"of {sizes[0][1]}" if len(sizes) == 1 else f"from {sizes[0][1]} to {sizes[-1][1]}"
    kinds = ", ".join(f"{count:,} {mode}" for mode, count in modes.most_common())
    of = "" if len(headers) == len(files.names) else f", by the headers of {len(headers):,} of them"
    yield (
        f"'{files.root}': {len(files.names):,} images {span} pixels, {'all gray' if gray else 'in colour'} "
        f"(Pillow's modes: {kinds}){of}."
    )


def _of_copies(files: Files) -> list[str]:
    """A sentence if files have the same bytes. Only those of the same size are read."""
    same_size, same = defaultdict(list), defaultdict(list)
    for name in files.names:
        same_size[files.size(files.root, name)].append(name)
    for names in same_size.values():
        for name in names if len(names) > 1 else ():
            same[hashlib.sha256(files.read(name)).digest()].append(name)
    groups = [names for names in same.values() if len(names) > 1]
    if not groups:
        return []
    copies = sum(len(names) - 1 for names in groups)
    counted = "1 file has" if copies == 1 else f"{copies:,} files have"
    return [
        f"{counted} the same bytes as another one, such as '{groups[0][0]}' and '{groups[0][1]}': copies may lie on "
        "both sides of a held-out split."
    ]
