"""The report of a run: one page of HTML that needs no server and loads nothing."""

import base64
import html
import io
import itertools
import json
from collections.abc import Iterable
from pathlib import Path

from utils.evaluation.records import describe
from utils.run.diagnosis import Diagnosis, table, verdicts
from utils.run.examination import SIGNS, own_name, recipe_of

CURVES = ("Fréchet distance", "reverse KL", "recall", "coverage", "critic overfitting", "critic accuracy")
MOST_GRIDS = 40  # pictures behind the slider, evenly over the run

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body {{ font: 15px sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em }} img {{ max-width: 100% }}
pre {{ overflow-x: auto; background: #f4f4f4; padding: 1em }} input {{ width: 100% }}</style></head><body>
<h1>{title}</h1>
<h2>Verdict</h2><pre>{verdict}</pre>
<h2>Vital signs</h2><pre>{signs}</pre>
<h2>Curves</h2>{curves}
<h2>Samples</h2>{samples}
<h2>Metrics</h2><pre>{metrics}</pre>
<h2>Config</h2><p>{recipe}</p><pre>{config}</pre>
<h2>Environment</h2><pre>{environment}</pre>
</body></html>
"""
SLIDER = """<p>step <output id="step"></output></p>
<input id="slider" type="range" min="0" max="{last}" value="{last}" aria-label="step">
<p><img id="grid" alt="samples at this step"></p>
<script>
const grids = {grids};
const slider = document.getElementById("slider");
function show() {{
  const [step, picture] = grids[slider.value];
  document.getElementById("step").textContent = step;
  document.getElementById("grid").src = picture;
}}
slider.addEventListener("input", show);
show();
</script>"""


def page(diagnosis: Diagnosis) -> str:
    """The report as HTML."""
    name, changes = recipe_of(diagnosis.config)
    header = itertools.takewhile(lambda line: line.startswith("#"), _lines(diagnosis.folder.config))
    metrics = [
        f"step {record['step']}  {line}\n  {json.dumps(record, ensure_ascii=False)}"
        for record in diagnosis.run.metrics
        if record["step"] == diagnosis.run.metrics[-1]["step"]
        for line in describe([record])
    ]
    return PAGE.format(
        title=html.escape(f"{diagnosis.folder.path.name}: {diagnosis.verdict}"),
        verdict=_escaped(verdicts(diagnosis)),
        signs=_escaped(table(diagnosis)),
        curves=curves(diagnosis),
        samples=slider(diagnosis.folder.samples),
        metrics=_escaped(metrics or ["Nothing was measured."]),
        recipe=f"Nearest recipe: {html.escape(name)}. What differs, the recipe's value first:",
        config=_escaped(changes or ["Nothing."]),
        environment=_escaped(line.removeprefix("# ") for line in header),
    )


def curves(diagnosis: Diagnosis) -> str:
    """Pictures of the vital signs and metrics that the run has; a healthy run's are dashed."""
    from matplotlib.figure import Figure  # here for a fast start-up

    run, reference = diagnosis.run, diagnosis.reference
    found = {}
    for sign in SIGNS:
        name = sign if run.series(sign) else own_name(sign)
        found[sign] = [(line["step"], line[name]) for line in run.lines if isinstance(line.get(name), int | float)]
    for metric in CURVES:
        found[metric] = [(record["step"], record["value"]) for record in run.measured(metric)]
    found = {name: points for name, points in found.items() if points}
    if not found:
        return "<p>There are no log lines.</p>"
    rows = -(-len(found) // 3)
    figure = Figure(figsize=(11, 2.4 * rows))
    figure.subplots_adjust(left=0.06, right=0.98, bottom=0.25 / rows, top=1 - 0.25 / rows, hspace=0.5)
    for i, (name, points) in enumerate(found.items()):
        axes = figure.add_subplot(rows, 3, i + 1)
        axes.plot(*zip(*points, strict=True), marker="." if len(points) < 30 else "")
        healthy = [(step, reference.at(name, step)) for step, _ in points] if reference else []
        if healthy := [point for point in healthy if point[1] is not None]:
            axes.plot(*zip(*healthy, strict=True), "x--", color="gray", markersize=3)
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=7)
        values = [value for _, value in points]
        if name.startswith("ratio") and max(values) > 100 * min(values) > 0:
            axes.set_yscale("log")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    dashed = f"<p>Dashed: {html.escape(reference.name)}, a healthy run.</p>" if reference else ""
    return f'{dashed}<img alt="curves of the run" src="{data_uri(buffer.getvalue())}">'


def slider(folder: Path) -> str:
    """The pictures of samples in a folder, behind a slider over the steps."""
    files = sorted(folder.glob("step-*.png"))
    if not files:
        return "<p>There are no pictures yet.</p>"
    stride = -(-len(files) // MOST_GRIDS)
    chosen = files[::-stride][::-1]  # the last one among them
    grids = [(int(path.stem.removeprefix("step-")), data_uri(path.read_bytes())) for path in chosen]
    return SLIDER.format(last=len(grids) - 1, grids=json.dumps(grids))


def data_uri(png: bytes) -> str:
    """A PNG as the source of an image."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _escaped(lines: Iterable[str]) -> str:
    return html.escape("\n".join(lines))


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
