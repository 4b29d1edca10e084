"""Folders of runs as train.py leaves them, written by hand: what they recorded is what a test says."""

import json
from pathlib import Path

from tests.runs import ROOT
from utils.config.loading import load
from utils.config.text import to_yaml

FID = {"unit": "", "note": "", "higher_is_better": False, "samples": 100, "features_sha256": "abc", "weights": "ema"}
ACCURACY = {**FID, "higher_is_better": True}


def made(
    folder: Path, name: str, *overrides: str, values: dict[int, float | None], recipe: str = "ring",
    metric: str = "reverse KL", more: dict[int, tuple[str, float]] | None = None, pace: float = 2.0,
    finished: bool = True, **about: object,
) -> Path:  # fmt: skip
    """A run of 20 steps with ``values`` of the metric by step, ``more`` of another, and ``pace`` seconds a step."""
    words = ["train.steps=20", f"run.dir={folder}", f"run.name={name}", *overrides]
    config = load(ROOT / f"configs/{recipe}.yaml", words)
    path = folder / name
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(to_yaml(config))
    lines = [
        {"kind": "train", "step": step, "seconds": pace * step, "cpu_seconds": 2 * pace * step} for step in (5, 10, 15)
    ]
    lines += [{"kind": "metric", "step": s, "metric": metric, "value": v, **FID, **about} for s, v in values.items()]
    for step, (other, value) in (more or {}).items():
        lines.append({"kind": "metric", "step": step, "metric": other, "value": value, **ACCURACY})
    lines.sort(key=lambda record: record["step"])
    lines += [{"kind": "finished", "step": 20}] if finished else []
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path
