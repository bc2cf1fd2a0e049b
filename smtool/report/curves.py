"""Numbers against training steps: small panels, one to a quantity, because no two of them share a unit."""

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
_WIDTH, _CELL_HEIGHT = 11.0, 2.5      # inches, as the margins of a panel within its cell
_LEFT, _RIGHT, _BELOW, _ABOVE = 0.75, 0.12, 0.5, 0.3


@dataclass(frozen=True)
class Panel:
    """One quantity. label: of the vertical axis; level: a dashed line, and what it is called; colour: which of COLOURS.

    linear: even where positive values span a wide range, which is drawn logarithmically otherwise.
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
    """At most MOST_POINTS of a curve: mean, least and greatest value of each stretch of steps."""

    steps: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def thinned(steps: Sequence[float], values: Sequence[float]) -> Thinned:
    """Stretches of equal numbers of rows; values that are not finite are left out."""
    x, y = np.asarray(steps, np.float64), np.asarray(values, np.float64)
    x, y = x[np.isfinite(y)], y[np.isfinite(y)]
    parts = [part for part in np.array_split(np.arange(len(x)), min(MOST_POINTS, max(1, len(x)))) if len(part)]
    reduce = [(x[part].mean(), y[part].mean(), y[part].min(), y[part].max()) for part in parts]
    return Thinned(*np.array(reduce, np.float64).reshape(-1, 4).T)


def curves_figure(panels: Sequence[Panel], *, columns: int = 3) -> "Figure":
    """The panels in rows, each with its own vertical range; a band shows what was averaged into a line."""
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    with styled():
        figure = new_figure(_WIDTH, rows * _CELL_HEIGHT, solved=False)
        for index, panel in enumerate(panels):
            _draw(figure.add_axes(_place(index, rows, columns)), panel)
        return figure


def _place(index: int, rows: int, columns: int) -> tuple[float, float, float, float]:
    """Where a panel's axes lie, in fractions of the figure: its cell less the margins. A solved layout costs far more, and
    a page is written at every validation."""
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
    else:      # a common power of ten would stand on the title
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}")
    axes.set_title(panel.title)
    axes.set(xlabel="step", ylabel=panel.label)
    axes.set_xlim(left=0)
    few_ticks(axes, 4, integer=True)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
