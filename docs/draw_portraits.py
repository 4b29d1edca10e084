"""Draws docs/portraits.png, the Dirac-GAN under the rules and looking ahead: ``python -m docs.draw_portraits``."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from docs.dirac import course

GAMES = ("minimax", "non_saturating", "hinge", "wasserstein")
PLAYS = {
    "alternating": ("alternating", (0, 0)),
    "simultaneous,\nsingle pass": ("single_pass", (0, 0)),
    "critic 1 step ahead": ("single_pass", (1, 0)),
    "critic 2 steps ahead": ("single_pass", (2, 0)),
    "both 1 step ahead": ("single_pass", (1, 1)),
}
LIMIT = 3.2


def main() -> None:
    """A row for each game, a column for each way to play it: the path of (θ, w) over 500 steps."""
    figure, axes = pyplot.subplots(len(GAMES), len(PLAYS), figsize=(9.6, 7.8), dpi=90, sharex=True, sharey=True)
    for row, objective in zip(axes, GAMES, strict=True):
        row[0].set_ylabel(f"{objective}\nw")
        for cell, (name, (rule, ahead)) in zip(row, PLAYS.items(), strict=True):
            theta, w = zip((1, 1), *course(rule, ahead=ahead, objective=objective), strict=True)
            cell.plot(theta, w, color="#3465a4", linewidth=0.7)
            cell.plot(1, 1, "o", color="#333333", markersize=4)
            inside = abs(theta[-1]) < LIMIT and abs(w[-1]) < LIMIT
            if inside:
                cell.plot(theta[-1], w[-1], "o", color="#c4432b", markersize=4)
            else:
                cell.text(0, -2.9, "leaves the picture", ha="center", color="#c4432b", fontsize=8)
            cell.plot(0, 0, "+", color="#333333", markersize=8)
            cell.set(xlim=(-LIMIT, LIMIT), ylim=(-LIMIT, LIMIT), xticks=(-2, 0, 2), yticks=(-2, 0, 2), aspect="equal")
            if objective == GAMES[0]:
                cell.set_title(name, fontsize=10)
            if objective == GAMES[-1]:
                cell.set_xlabel("θ")
    figure.tight_layout()
    figure.savefig(Path(__file__).with_name("portraits.png"))


if __name__ == "__main__":
    main()
