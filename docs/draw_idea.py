"""Draws docs/idea.png, the single pass in one picture: ``python docs/draw_idea.py``."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.patches import FancyBboxPatch

FORWARD, BACKWARD, PLAIN = "#3465a4", "#c4432b", "#333333"


def main() -> None:
    """Boxes from left to right, forward arrows above, the one backward pass below."""
    figure, axes = pyplot.subplots(figsize=(9.6, 3.3), dpi=120)
    axes.set(xlim=(0, 24.6), ylim=(0, 8.2))
    axes.axis("off")
    for x, label in ((3.0, "generator\nG"), (13.2, "critic\nD")):
        axes.add_patch(FancyBboxPatch((x, 3.1), 3.2, 2.2, boxstyle="round,pad=0.15", fc="#f2f2f2", ec=PLAIN))
        axes.text(x + 1.6, 4.2, label, ha="center", va="center", fontsize=12)

    def arrow(x0: float, x1: float, y: float, colour: str) -> None:
        axes.annotate("", (x1, y), (x0, y), arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 1.8})

    def text(x: float, y: float, words: str, colour: str, **style) -> None:
        axes.text(x, y, words, color=colour, ha="center", va="center", fontsize=11, **style)

    text(1.0, 4.9, "latents z", FORWARD)
    arrow(0.4, 2.7, 4.4, FORWARD)
    arrow(6.5, 12.9, 4.9, FORWARD)
    text(8.2, 5.5, "fakes $x_i$", FORWARD)
    arrow(16.7, 19.4, 4.9, FORWARD)
    text(18.1, 5.5, "scores $s_i$", FORWARD)
    text(22.2, 5.15, "critic's loss $L_D$", PLAIN)
    text(22.2, 4.25, "generator's loss $L_G$", PLAIN)
    text(12.0, 7.4, "forward, once", FORWARD, fontweight="bold")

    axes.plot([9.9, 9.9], [2.2, 6.4], color=PLAIN, lw=1.2, ls=(0, (4, 3)))
    text(9.9, 6.8, "cut", PLAIN)
    arrow(19.4, 16.7, 3.6, BACKWARD)
    text(18.2, 2.9, r"$c_i=\partial L_D/\partial s_i$", BACKWARD)
    arrow(12.9, 10.1, 3.6, BACKWARD)
    text(11.6, 2.9, r"$c_i\,\partial s_i/\partial x_i$", BACKWARD)
    arrow(9.7, 6.5, 3.6, BACKWARD)
    text(8.1, 2.9, r"$g_i\,\partial s_i/\partial x_i$", BACKWARD)
    text(9.9, 1.5, r"$\times\; g_i/c_i$", BACKWARD, fontweight="bold")
    text(20.9, 2.0, r"$g_i=\partial L_G/\partial s_i$", BACKWARD)
    axes.annotate("", (14.8, 1.9), (14.8, 2.8), arrowprops={"arrowstyle": "-|>", "color": BACKWARD, "lw": 1.4})
    text(14.8, 1.4, "D's gradients, of $L_D$", BACKWARD)
    axes.annotate("", (4.6, 1.9), (4.6, 2.8), arrowprops={"arrowstyle": "-|>", "color": BACKWARD, "lw": 1.4})
    text(4.6, 1.4, "G's gradients, of $L_G$", BACKWARD)
    text(12.0, 0.4, "backward, once: exact for both players", BACKWARD, fontweight="bold")
    figure.savefig(Path(__file__).with_name("idea.png"), bbox_inches="tight", pad_inches=0.05)


if __name__ == "__main__":
    main()
