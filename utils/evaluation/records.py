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
    """A line of text for each record; what real images get stands beside what generated ones do."""
    return [f"{r['metric']}: {_with_unit(r['value'], r)}{_error(r)}{r['note']}{_beside(r)}" for r in records]


def _error(record: Record) -> str:
    error = record.get("standard_error")
    return "" if error is None else f" ± {error:.2g}"


def _beside(record: Record) -> str:
    real = record.get("real")
    return "" if real is None else f" (real images: {_with_unit(real, record)})"


def _with_unit(value: float | None, record: Record) -> str:
    return readable(value) + (f" {record['unit']}" if record["unit"] and value is not None else "")


def readable(value: float | None) -> str:
    """Counts as they are, small numbers with two digits, others with two decimals."""
    if value is None or isinstance(value, int):
        return str(value)
    return f"{value:.2g}" if 0 < abs(value) < 0.1 else f"{value:.2f}"
