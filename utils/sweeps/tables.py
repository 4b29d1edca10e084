"""Tables of means with their standard errors: as text, Markdown and CSV."""

import csv
import io
import math
import statistics
from dataclasses import dataclass
from typing import NamedTuple

GAP = "  "


class Means(NamedTuple):
    """Values of several runs, None where one has none; shown with so many ``digits``, by default as many as tell."""

    values: list[float | None]
    digits: int | None = None

    @property
    def known(self) -> list[float]:
        """The values that there are."""
        return [value for value in self.values if value is not None]

    @property
    def mean(self) -> float:
        """Their mean."""
        return statistics.fmean(self.known)

    @property
    def error(self) -> float | None:
        """The standard error of the mean; None of a single value."""
        return statistics.stdev(self.known) / math.sqrt(len(self.known)) if len(self.known) > 1 else None

    def __str__(self) -> str:
        """Mean ± standard error, which has two digits that count; and of how many runs, if not of all."""
        if not self.known:
            return "-"
        scale = self.error or abs(self.mean) / 100  # of a single value four digits
        digits = self.digits
        if digits is None:
            digits = min(max(1 - math.floor(math.log10(scale)), 0), 6) if scale else 0
        error = "" if self.error is None else f" ± {self.error:.{digits}f}"
        missing = f" ({len(self.known)} of {len(self.values)})" if len(self.known) < len(self.values) else ""
        return f"{self.mean:.{digits}f}{error}{missing}"


Cell = str | Means


@dataclass(frozen=True)
class Table:
    """Titles, and rows of as many cells."""

    titles: list[str]
    rows: list[list[Cell]]

    def text(self) -> str:
        """Columns for a terminal."""
        lines = [self.titles, *([str(cell) for cell in row] for row in self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.titles))]
        shown = [GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
        return "\n".join(line.rstrip() for line in shown) + "\n"

    def markdown(self) -> str:
        """A table for a page; numbers stand on the right."""
        sides = ["---:" if mean else "---" for mean in self._means()]
        lines = [self.titles, *([str(cell).replace("|", "\\|") for cell in row] for row in self.rows)]
        shown = [f"| {' | '.join(line)} |" for line in lines]
        return "\n".join([shown[0], f"|{'|'.join(sides)}|", *shown[1:]]) + "\n"

    def csv(self) -> str:
        """Values for other programs, in full: a mean and its standard error have a column each."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        titles = zip(self.titles, self._means(), strict=True)
        writer.writerow([name for title, mean in titles for name in ([title, f"{title}, error"] if mean else [title])])
        for row in self.rows:
            writer.writerow([value for cell in row for value in _values(cell)])
        return file.getvalue()

    def _means(self) -> list[bool]:
        """Which columns are of means: all cells of a column are of one kind."""
        return [isinstance(cell, Means) for cell in self.rows[0]]


def _values(cell: Cell) -> list[str | float]:
    if isinstance(cell, str):
        return [cell]
    return [cell.mean, "" if cell.error is None else cell.error] if cell.known else ["", ""]
