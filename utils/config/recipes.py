"""The table of recipes that ``train.py --list`` prints, made of the headers of configs/*.yaml."""

import re
from pathlib import Path

GAP = "  "


def table(folder: Path, width: int | None) -> str:
    """A line for each recipe in ``folder``: name, what it trains, time and expected result, in columns.

    Lines are cut to ``width`` characters; None cuts nothing.
    """
    rows = [("RECIPE", "WHAT", "TIME", "EXPECTED")]
    for path in sorted(folder.glob("*.yaml")):
        header = read_header(path.read_text(encoding="utf-8"))
        rows.append((path.stem, header["What"], header.get("Time", ""), header.get("Expected", "")))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    if width is not None:
        # The name is never cut; what is left goes mostly to what is trained and what to expect.
        room = max(width - widths[0] - 3 * len(GAP), 3)
        time = min(widths[2], room // 5)
        what = min(widths[1], (room - time) * 11 // 20)
        widths[1:] = [what, time, room - time - what]
    lines = [GAP.join(_cut(cell, n).ljust(n) for cell, n in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def read_header(text: str) -> dict[str, str]:
    """The entries of a recipe's leading comment by their words (Source, Expected, Time, ...); What is its first lines.

    An entry goes on over lines until the next one begins.
    """
    found = {"What": ""}
    word = "What"
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        content = line.lstrip("# ").strip()
        if match := re.match(r"# ([A-Z][a-z]+): (.*)", line):
            word, content = match.groups()
        found[word] = f"{found.get(word, '')} {content}".strip()
    return found


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"
