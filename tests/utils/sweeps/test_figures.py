"""Pictures of a comparison."""

import pytest
from matplotlib.figure import Figure

from utils.sweeps.figures import _scale


@pytest.mark.parametrize(
    ("heights", "scale"),
    [([300, 6], "log"), ([8, 6], "linear"), ([300, 0], "linear"), ([300, -6], "linear"), ([], "linear")],
)
def test_curves_that_fall_far_are_drawn_on_a_logarithmic_axis(heights, scale):
    panel = Figure().subplots()
    if heights:
        panel.plot(range(len(heights)), heights)
    _scale(panel)
    assert panel.get_yscale() == scale
