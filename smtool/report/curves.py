"""Curves over training steps: one small panel for each quantity, since quantities have different units."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from smtool.report.plots.style import COLOURS, GREY, few_ticks, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_POINTS = 200
_FEW_POINTS = 25
_WIDE_RANGE = 30.0
_WIDTH, _CELL_HEIGHT = 11.0, 2.5      # inches; the next line: margins of a panel within its cell, in inches
_LEFT, _RIGHT, _BELOW, _ABOVE = 0.75, 0.12, 0.5, 0.3


@dataclass(frozen=True)
class Panel:
    """One quantity. label: of the vertical axis; level: value and name of a dashed line; colour: index into COLOURS.

    linear: never use a logarithmic axis; otherwise positive values with a wide range get one.
    """

    title: str
    label: str
    steps: Sequence[float]
    values: Sequence[float]
    level: tuple[float, str] | None = None
    colour: int = 0
    linear: bool = False


@dataclass(frozen=True)
class Thinned:
    """A curve reduced to at most MOST_POINTS points: mean, minimum and maximum of each interval of steps."""

    steps: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def thinned(steps: Sequence[float], values: Sequence[float]) -> Thinned:
    """Reduce a curve over intervals with equal numbers of rows. Values that are not finite are left out."""
    x, y = np.asarray(steps, np.float64), np.asarray(values, np.float64)
    x, y = x[np.isfinite(y)], y[np.isfinite(y)]
    parts = [part for part in np.array_split(np.arange(len(x)), min(MOST_POINTS, max(1, len(x)))) if len(part)]
    reduce = [(x[part].mean(), y[part].mean(), y[part].min(), y[part].max()) for part in parts]
    return Thinned(*np.array(reduce, np.float64).reshape(-1, 4).T)


def curves_figure(panels: Sequence[Panel], *, columns: int = 3) -> "Figure":
    """Draw the panels in rows, each with its own vertical range; a band shows the range of the values averaged into a point."""
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    with styled():
        figure = new_figure(_WIDTH, rows * _CELL_HEIGHT, solved=False)
        for index, panel in enumerate(panels):
            _draw(figure.add_axes(_place(index, rows, columns)), panel)
        return figure


def _place(index: int, rows: int, columns: int) -> tuple[float, float, float, float]:
    """Position of a panel's axes (left, bottom, width, height), in fractions of the figure: its cell without the margins.

    matplotlib's constrained layout is much slower, and a page is written at every validation.
    """
    row, column = divmod(index, columns)
    width, height = _WIDTH / columns, _CELL_HEIGHT
    left, bottom = column * width + _LEFT, (rows - 1 - row) * height + _BELOW
    across, up = width - _LEFT - _RIGHT, height - _BELOW - _ABOVE
    return left / _WIDTH, bottom / (rows * height), across / _WIDTH, up / (rows * height)


def _draw(axes: "Axes", panel: Panel) -> None:
    curve, colour = thinned(panel.steps, panel.values), COLOURS[panel.colour % len(COLOURS)]
    marker = "o" if len(curve.steps) <= _FEW_POINTS else None
    axes.plot(curve.steps, curve.mean, color=colour, marker=marker, linewidth=1.5)
    if (curve.high > curve.low).any():
        axes.fill_between(curve.steps, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0)
    if panel.level is not None:
        axes.axhline(panel.level[0], color=GREY, linestyle="--", linewidth=1.2)
        axes.annotate(
            panel.level[1],
            (0.0, panel.level[0]),
            xycoords=("axes fraction", "data"),
            xytext=(4, 2),
            textcoords="offset points",
            fontsize=8,
            color=GREY,
        )
    if not panel.linear and len(curve.low) and 0 < _WIDE_RANGE * curve.low.min() < curve.high.max():
        axes.set_yscale("log")
    else:      # plain numbers: a common power of ten would overlap the title
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}")
    axes.set_title(panel.title)
    axes.set(xlabel="step", ylabel=panel.label)
    axes.set_xlim(left=0)
    few_ticks(axes, 4, integer=True)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
