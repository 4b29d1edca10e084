"""Pictures of a comparison: curves over steps and seconds, and the last samples side by side."""

from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from utils import pictures
from utils.sweeps.comparison import Group, Measure, values_of
from utils.sweeps.tables import Means

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Matplotlib is imported inside functions: tables come faster without it.


def save_curves(groups: list[Group], measures: list[Measure], over: list[str], path: Path) -> None:
    """Every measure over steps and over seconds: the mean of each group, and a band of one standard error."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3 * len(measures)), dpi=100, layout="constrained")
    panels = figure.subplots(len(measures), 2, squeeze=False, sharey="row")
    for measure, (by_step, by_second) in zip(measures, panels, strict=True):
        for i, group in enumerate(groups):
            _draw(group, measure, over, by_step, by_second, colour=f"C{i % 10}")
        by_step.set_ylabel(measure.title)
        _scale(by_step)
    panels[-1][0].set_xlabel("steps")
    panels[-1][1].set_xlabel("seconds of training")
    lines = {line.get_label(): line for panel in panels[:, 0] for line in panel.get_lines()}
    figure.legend(lines.values(), lines.keys(), loc="outside upper center", ncols=3, frameon=False, fontsize="small")
    figure.savefig(path)


def _scale(panel: "Axes") -> None:
    """Make the vertical axis logarithmic where its curves are positive and span more than a factor of 20."""
    heights = [height for line in panel.get_lines() for height in line.get_ydata()]
    if heights and min(heights) > 0 and max(heights) > 20 * min(heights):
        panel.set_yscale("log")


def _draw(group: Group, measure: Measure, over: list[str], by_step: "Axes", by_second: "Axes", colour: str) -> None:
    """The curve of one group, at the steps at which all of its runs that have the measure were measured."""
    values = [own for run in group.runs if (own := values_of(run, measure, over))]
    steps = sorted(set.intersection(*map(set, values))) if values else []
    means = [Means([own[step] for own in values]) for step in steps]
    centre, error = [m.mean for m in means], [m.error or 0.0 for m in means]
    low, high = ([c + sign * e for c, e in zip(centre, error, strict=True)] for sign in (-1, 1))
    seconds = [Means([run.seconds_at(step) for run in group.runs]) for step in steps]
    timed = [second.mean for second in seconds if second.known]
    for panel, x in ((by_step, steps), (by_second, timed)):
        if x and len(x) == len(steps):  # older runs have no seconds
            panel.plot(x, centre, marker=".", color=colour, label=group.label)
            panel.fill_between(x, low, high, color=colour, alpha=0.2)


def save_samples(groups: list[Group], path: Path) -> None:
    """The last picture of each group's first run, side by side; no file where there are none."""
    from matplotlib.figure import Figure

    found = [(group, image) for group in groups if (image := _last_picture(group)) is not None]
    if not found:
        return
    columns = min(len(found), 4)
    rows = -(-len(found) // columns)
    figure = Figure(figsize=(4 * columns, 4.5 * rows), dpi=100, layout="tight")
    panels = figure.subplots(rows, columns, squeeze=False)
    for panel in panels.flat:
        panel.set(xticks=[], yticks=[])  # axis("off") would leave the title out of the layout
        panel.spines[:].set_visible(False)
    for panel, (group, image) in zip(panels.flat, found, strict=False):
        panel.imshow(image.permute(1, 2, 0).numpy())
        panel.set_title(f"{group.runs[0].folder.path.name}\nstep {group.steps}", fontsize=8)
    figure.savefig(path)


def _last_picture(group: Group) -> Tensor | None:
    drawn = sorted(group.runs[0].folder.samples.glob("step-????????.png"))
    return pictures.load(drawn[-1]) if drawn else None
