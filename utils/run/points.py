"""The numbers of a record as points of curves, for TensorBoard and for trackers."""

from typing import Any


def points_of(record: dict[str, Any]) -> dict[str, float]:
    """The numbers of a record by the names of their curves: ``train/name``, ``metric/name`` and ``oracle/name``."""
    if record["kind"] == "train":
        points = {f"train/{name}": value for name, value in record.items() if name not in ("kind", "step")}
    elif record["kind"] == "metric":
        kind = "oracle" if record.get("oracle") else "metric"
        points = {f"{kind}/{record['metric'].replace(' ', '_')}": record["value"]}
    else:
        points = {}
    return {name: value for name, value in points.items() if isinstance(value, int | float)}
