"""Records of metrics: a value together with what was measured, in which features, against what."""

from typing import Any

Record = dict[str, Any]

# What two records of a metric must agree in, so that their values may be compared.
PROTOCOL = (
    "weights", "samples", "features", "features_sha256", "reference", "split", "reference_samples", "truncation",
    "resizer",
)  # fmt: skip


def record(metric: str, value: float | None, unit: str, note: str, **about: Any) -> Record:
    """A metric, its value, and what was measured: higher_is_better, features, reference, split, ..."""
    return {"metric": metric, "value": value, "unit": unit, "note": note, **about}


def describe(records: list[Record]) -> list[str]:
    """A line of text for each record."""
    return [f"{r['metric']}: {readable(r['value'])}{' ' + r['unit'] if r['unit'] else ''}{r['note']}" for r in records]


def readable(value: float | None) -> str:
    """Counts as they are, other numbers with two decimals."""
    return str(value) if value is None or isinstance(value, int) else f"{value:.2f}"
