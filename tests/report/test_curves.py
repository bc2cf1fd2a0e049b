"""Curves over training steps: reduction to fewer points, and panels for every kind of values in a log."""

import numpy as np
import pytest

from smtool.report.curves import MOST_POINTS, Panel, curves_figure, thinned


def test_a_short_curve_is_drawn_as_it_is():
    found = thinned([10, 20, 30], [1.0, 4.0, 2.0])
    assert found.steps.tolist() == [10, 20, 30]
    assert found.mean.tolist() == found.low.tolist() == found.high.tolist() == [1.0, 4.0, 2.0]


def test_a_long_curve_is_reduced_to_means_and_ranges_of_intervals(rng):
    values = rng.standard_normal(2 * MOST_POINTS * 5)
    found = thinned(range(len(values)), values)
    assert len(found.mean) == MOST_POINTS
    for k in range(MOST_POINTS):
        part = values[10 * k : 10 * k + 10].tolist()
        assert found.steps[k] == pytest.approx(10 * k + 4.5)
        assert found.mean[k] == pytest.approx(sum(part) / 10)
        assert (found.low[k], found.high[k]) == (min(part), max(part))


def test_values_that_are_not_finite_are_left_out():
    found = thinned([1, 2, 3, 4], [1.0, float("nan"), float("inf"), 4.0])
    assert (found.steps.tolist(), found.mean.tolist()) == ([1, 4], [1.0, 4.0])


def test_each_quantity_has_a_panel_with_title_unit_and_level():
    panels = [
        Panel("loss: 0.1", "mean squared error", [1, 2, 3], [100.0, 1.0, 0.1], level=(0.05, "floor")),
        Panel("rate", "", [1, 2, 3], [1e-3, 1e-6, 1e-9], linear=True),
        Panel("cosine", "", [1, 2], [-0.5, 0.5]),
        Panel("never logged", "", [], []),
    ]
    figure = curves_figure(panels)
    drawn = figure.axes
    assert [axes.get_title(loc="left") for axes in drawn] == ["loss: 0.1", "rate", "cosine", "never logged"]
    assert [axes.get_yscale() for axes in drawn] == ["log", "linear", "linear", "linear"]
    assert drawn[0].get_ylabel() == "mean squared error"
    assert "floor" in [text.get_text() for text in drawn[0].texts]
    assert np.allclose(drawn[0].lines[1].get_ydata(), 0.05)


def test_panels_are_in_rows_and_their_text_does_not_overlap():
    values = [1.2345, 0.00012345]
    panels = [Panel(f"a quantity with a title: {k}", "mean squared error", [0, 4000], values) for k in range(7)]
    figure = curves_figure(panels, columns=4)
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    width, height = figure.canvas.get_width_height()
    for k, one in enumerate(boxes):
        assert one.x0 >= 0 and one.y0 >= 0 and one.x1 <= width and one.y1 <= height
        assert not any(one.overlaps(other) for other in boxes[k + 1 :])
    lows = [round(axes.get_position().y0, 3) for axes in figure.axes]
    assert len(set(lows[:4])) == len(set(lows[4:])) == 1 and lows[0] > lows[4]
