"""Figure of the distance between images and their reconstructions from fewer DCT coefficients."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from smtool.report.plots.style import COLOURS, GREY, Curve, draw, few_ticks, new_figure, styled, titled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def coefficients_figure(
    kept: Sequence[int], distances: Sequence[float], *, bound: float, fewest: int | None, judge: str, title: str, note: str
) -> "Figure":
    """Distance over the number of coefficients kept of each block; a dashed line at the bound, a ring at the fewest within it."""
    with styled():
        figure = new_figure(7.2, 4.2)
        axes = figure.subplots()
        draw(axes, [Curve("reconstructions", kept, distances)])
        axes.axhline(bound, color=GREY, linestyle="--", linewidth=1.2, label="bound")
        if fewest is not None:
            at = distances[list(kept).index(fewest)]
            axes.plot([fewest], [at], "o", markersize=11, markerfacecolor="none", color=COLOURS[1], label=f"fewest: {fewest}")
        positive = [value for value in (*distances, bound) if value > 0]
        axes.set(xlabel="coefficients kept of each block", ylabel=f"{judge} to the images", yscale="log")
        axes.set_ylim(bottom=min(positive) / 2 if positive else None)
        few_ticks(axes, 16, integer=True)
        axes.legend()
        return titled(figure, axes, title, note)
