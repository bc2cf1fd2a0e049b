from collections.abc import Callable

import matplotlib
import pytest
from matplotlib.figure import Figure

from smtool.report.plots import figure_bytes


def settings() -> dict[str, object]:
    """matplotlib's global settings, except the backend, which it chooses itself."""
    return {name: value for name, value in matplotlib.rcParams.items() if name != "backend"}


@pytest.fixture
def check_figure() -> Callable[[Callable[[], Figure]], Figure]:
    """check(draw) draws twice and asserts: all is inside the figure, axes are labelled, settings unchanged, bytes equal."""

    def check(draw: Callable[[], Figure]) -> Figure:
        before = settings()
        figure = draw()
        paper = figure.get_window_extent()
        shown = [axes for axes in figure.axes if axes.axison]
        assert shown
        for box in (*(legend.get_window_extent() for legend in figure.legends), *(axes.get_tightbbox() for axes in figure.axes)):
            assert paper.x0 - 1 <= box.x0 and box.x1 <= paper.x1 + 1 and paper.y0 - 1 <= box.y0 and box.y1 <= paper.y1 + 1
        for legend in figure.legends:
            assert not any(legend.get_window_extent().overlaps(axes.get_window_extent()) for axes in figure.axes)
        assert all(axes.get_xlabel() or axes.get_ylabel() or axes.get_title("left") for axes in shown)
        for kind in ("svg", "png"):
            assert figure_bytes(figure, kind) == figure_bytes(draw(), kind)
        assert settings() == before
        return figure

    return check
