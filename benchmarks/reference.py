"""Make a reference history of a run: ``python benchmarks/reference.py runs/digits docs/reference/digits.jsonl``.

A line with the config, every so many log lines and the values of the metrics, with three digits: a few KB, by which
``diagnose.py`` says what healthy runs show at a step. docs/healthy.md names the commands of the runs.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script

from utils.config.identity import flat
from utils.config.loading import load_run
from utils.run.examination import SIGNS, own_name, with_margin
from utils.run.folder import RunFolder
from utils.run.log import records
from utils.run.meter import OF_MACHINE

LINES, EVALUATIONS = 20, 5  # at most, evenly over the run and the last ones among them
KEPT = ("kind", "step", "metric", "value", "real", "chance", "copied", "accuracy_training", "accuracy_held_out")
KEYS = ("game.", "data.", "model.name", "optimizer.", "update.", "guard.", "train.steps", "penalty.r1")


def thinned(config: dict, done: list[dict]) -> list[dict]:
    """The records of a reference."""
    lines = [record for record in done if record["kind"] == "train"]
    steps = sorted({record["step"] for record in done if record["kind"] == "metric"})
    steps = set(steps[:: -(-len(steps) // EVALUATIONS) * -1])
    names = {"kind", "step", *SIGNS, *map(own_name, SIGNS)} - {*OF_MACHINE}
    found: list[dict] = [{"kind": "config", "step": 0, "config": config}]
    lines = [with_margin(record) for record in lines]
    for record in lines[:: -(-len(lines) // LINES) * -1][::-1]:
        found.append({name: value for name, value in record.items() if name in names})
    for record in done:
        of_classes = record.get("metric", "").startswith("intra-class")  # no verdict asks for these
        if record["kind"] == "metric" and record["step"] in steps and not of_classes:
            found.append({name: record[name] for name in KEPT if name in record})
    return [*found, *(record for record in done if record["kind"] == "finished")]


def rounded(value: object) -> object:
    """Floats with three digits."""
    if isinstance(value, float):
        return float(f"{value:.3g}")
    return {name: rounded(x) for name, x in value.items()} if isinstance(value, dict) else value


def main() -> None:
    """Read the run and write the file."""
    words = argparse.ArgumentParser(description="Make a reference history of a run.")
    words.add_argument("run", type=Path)
    words.add_argument("out", type=Path)
    options = words.parse_args()
    config = flat(load_run(options.run, []))
    config = {key: value for key, value in config.items() if key.startswith(KEYS) and key != "data.root"}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    made = [rounded(record) for record in thinned(config, records(RunFolder(options.run)))]
    options.out.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in made), encoding="utf-8")


if __name__ == "__main__":
    main()
