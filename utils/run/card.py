"""The model card of an exported network, as the Hugging Face hub reads it: what a run's records say."""

import contextlib
import json
from typing import Any

import yaml

from models.loading import Description
from utils.config.identity import identity
from utils.evaluation.records import Record, readable
from utils.run.log import records
from utils.run.opening import OpenRun

TASKS = {"generator": "unconditional-image-generation", "recogniser": "image-classification"}  # the hub's words
PROTOCOL = ("metric", "features", "resizer", "reference", "split", "samples", "seed", "truncation")
LOAD_GENERATOR = """from models.loading import load

generator = load("path/to/this/folder")
latent = torch.randn(16, {latent})
samples = generator(latent{label})  # [16, {shape}]{values}"""
LOAD_RECOGNISER = """from models.loading import load

recogniser = load("path/to/this/folder")
x = torch.zeros(16, {shape})  # samples, prepared as the training's{values}
(prediction,) = recogniser(x)
prediction.logits  # [16, {classes}]; prediction.layers has the features"""


def card(run: OpenRun, weights: str, description: Description, licence: str, illustrated: bool) -> str:
    """The text of ``README.md``: Markdown under a YAML header. ``illustrated``: there is a ``samples.png`` to show."""
    image = len(description.shape) == 3
    about: dict[str, Any] = {"license": licence, "library_name": "pytorch", "tags": ["flipside", run.config.game.name]}
    if image and not (description.network == "generator" and description.classes):
        about["pipeline_tag"] = TASKS[description.network]
    return "\n".join([
        "---", yaml.safe_dump(about, sort_keys=False).strip(), "---", "",
        f"# {run.config.run.name}", "", _summary(run, weights, description), "",
        *(["![What the network makes](samples.png)", ""] if illustrated else []),
        "## Loading", "", "In a clone of Flipside, whose folders `models/` and `adversarial/` suffice:", "",
        "```python", "import torch", _loading(description), "```", "",
        "## Data", "", _data(run), "",
        "## Measurements", "", *_measurements(measured(run, weights)), "",
        "## Limits", "", _limits(run, description), "",
        "## Recipe", "", "What identifies the run; all other keys do not change what it learns.", "",
        "```yaml", yaml.safe_dump(identity(run.config), sort_keys=False).strip(), "```", "",
    ])  # fmt: skip


def measured(run: OpenRun, weights: str) -> list[Record]:
    """The records of these weights at this step: of the training, and of ``evaluate.py``; the later of two alike."""
    found = [record for record in records(run.folder) if record["kind"] == "metric"]
    path = run.folder.path / "evaluations.jsonl"
    for line in path.read_bytes().splitlines() if path.is_file() else []:
        with contextlib.suppress(ValueError):  # cut short, by a full disk
            found.append(json.loads(line))
    names = ("raw",) if weights == "raw" else ("ema", "best")
    latest = {}
    for record in found:
        if record["step"] == run.state.step and record.get("weights", "ema") in names:
            latest[tuple(str(record.get(key)) for key in PROTOCOL)] = record
    return list(latest.values())


def _summary(run: OpenRun, weights: str, description: Description) -> str:
    image = len(description.shape) == 3
    kind = "{}x{}x{} images (channels, height, width)" if image else "vectors of length {}"
    kind = kind.format(*description.shape)
    if description.network == "generator":
        of_classes = f", each of one of {description.classes} classes" if description.classes else ""
        what = f"A generator of {kind}{of_classes}"
    else:
        what = f"A recogniser of {description.classes} classes in {kind}"
    kept = {"ema": "averaged weights", "raw": "last weights", "best": "averaged weights, chosen by measurements"}
    return f"{what}: the family `{description.family}`, trained for {run.state.step:,} steps ({kept[weights]})."


def _loading(description: Description) -> str:
    shape = ", ".join(map(str, description.shape))
    values = ", images in [-1, 1]" if len(description.shape) == 3 else ""
    text = LOAD_GENERATOR if description.network == "generator" else LOAD_RECOGNISER
    label = f", torch.arange(16) % {description.classes}" if description.classes else ""
    latent = description.model.get("latent_dim")
    return text.format(latent=latent, label=label, shape=shape, values=values, classes=description.classes)


def _data(run: OpenRun) -> str:
    given = {key: value for key, value in vars(run.config.data).items() if f"data.{key}" in run.state.config}
    keys = ", ".join(f"`{key}={value}`" for key, value in given.items())
    count = "an unknown number of" if run.state.train_samples is None else f"{run.state.train_samples:,}"
    target = "" if run.state.target_samples is None else f" and {run.state.target_samples:,} of the target, unlabelled"
    digest = "" if run.state.data is None else f" The samples' sha256 is `{run.state.data[:16]}`..."
    return f"{count[0].upper()}{count[1:]} training samples{target}: {keys}.{digest}"


def _measurements(found: list[Record]) -> list[str]:
    """A table; what each number is worth only its protocol tells."""
    if not found:
        return ["None at this step: `evaluate.py` measures a run."]
    lines = ["| metric | value | real | of | against | in features of |", "|---|---|---|---|---|---|"]
    for r in found:
        value, real = (f"{readable(x)} {r['unit']}".strip() for x in (r["value"], r.get("real")))
        real = "" if r.get("real") is None else real
        samples = f"{r['samples']:,} samples, seed {r['seed']}" if r.get("samples") else ""
        samples += "" if r.get("truncation") is None else f", truncation {r['truncation']}"
        against = ", ".join(str(r[key]) for key in ("reference", "split") if r.get(key))
        cells = [r["metric"], value + r["note"], real, samples, against, r.get("features") or ""]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", "Values compare only at the same number of samples, reference and features."]


def _limits(run: OpenRun, description: Description) -> str:
    if description.network == "generator":
        text = (
            "Samples have the gaps and biases of the training data, and more: what is rare there may be missing here. "
            "Some may resemble training samples closely."
        )
    else:
        text = (
            "Labels are predicted for samples like those of training, prepared in the same way; for others the "
            "confidence means nothing. Accuracies on the target, where there are any, are an oracle's."
        )
    return f"{text} Rights in the training data may bind the network, too."
