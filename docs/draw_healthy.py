"""Draw docs/healthy.png, the last samples of runs: ``python docs/draw_healthy.py runs/digits runs/ring``."""

import argparse
from pathlib import Path

import matplotlib.image
from matplotlib.figure import Figure


def main() -> None:
    """A panel for each run, with its name."""
    words = argparse.ArgumentParser(description="Draw the last samples of runs side by side.")
    words.add_argument("runs", nargs="+", type=Path)
    runs = words.parse_args().runs
    figure = Figure(figsize=(2 * len(runs), 2.3), layout="constrained")
    for i, run in enumerate(runs):
        axes = figure.add_subplot(1, len(runs), i + 1)
        axes.imshow(matplotlib.image.imread(sorted((run / "samples").glob("step-*.png"))[-1]))
        axes.set_title(run.name, fontsize=8)
        axes.axis("off")
    figure.savefig(Path(__file__).with_name("healthy.png"), dpi=90)


if __name__ == "__main__":
    main()
