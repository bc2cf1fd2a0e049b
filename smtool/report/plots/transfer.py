"""Figure of band transfer: response of each image band when one band of latent frequencies is perturbed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from smtool.report.plots.style import GREY, HEAT, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import Figure

GAP = 0.35
_WIDE, _TALL = 5.75, 4.0
# Text on coloured cells: colours that a dark page does not invert.
_ON_LIGHT, _ON_DARK = "#111111", "#fefefe"


@dataclass(frozen=True)
class Matrices:
    """Transfer matrices of one decoder; rows sum to 1.

    absolute: (K, K + 1), image bands in cycles per image, the last column above the latent's Nyquist frequency; relative: (K, K),
    image bands in fractions of Nyquist; answered: (K,), rows that have a response.
    """

    title: str
    absolute: np.ndarray
    relative: np.ndarray
    relative_title: str
    answered: Sequence[bool]


def transfer_figure(decoders: Sequence[Matrices]) -> "Figure":
    """For each decoder, the absolute matrix with its numbers, and the relative matrix, smaller, beside it."""
    with styled({"axes.grid": False}):
        columns = min(2, len(decoders))
        rows = -(-len(decoders) // columns)
        figure = new_figure(_WIDE * columns, _TALL * rows + 0.5, solved=False)
        for index, one in enumerate(decoders):
            row, column = divmod(index, columns)
            left, bottom = _WIDE * column + 0.5, _TALL * (rows - 1 - row) + 1.15
            mesh = _draw_absolute(_axes(figure, left, bottom, 3.2, 2.75), one)
            _draw_relative(_axes(figure, left + 3.75, bottom, 1.3, 1.3), one)
        bar = figure.colorbar(mesh, cax=_axes(figure, 0.5, 0.42, 2.75, 0.09), orientation="horizontal")
        bar.set_label("fraction of the response (rows sum to 1)", fontsize=8.5)
        return figure


def _axes(figure: "Figure", left: float, bottom: float, width: float, height: float) -> "Axes":
    """New axes at this position, in inches."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def _draw_absolute(axes: "Axes", one: Matrices) -> "QuadMesh":
    count = len(one.absolute)
    mesh = _cells(axes, one.absolute[:, :count], 0.5)
    _cells(axes, one.absolute[:, count:], count + 0.5 + GAP)
    for row in range(count):
        _label_row(axes, row, one)
    middles = [*range(1, count + 1), count + 1 + GAP]
    axes.set_xticks(middles, [*map(str, range(1, count + 1)), "above"])
    axes.set(xlim=(0.5, count + 1.5 + GAP), ylabel="latent band perturbed")
    axes.set_xlabel("image band that responds (same cycles per image)")
    axes.set_title(one.title, fontsize=9.5)
    return mesh


def _label_row(axes: "Axes", row: int, one: Matrices) -> None:
    count = len(one.absolute)
    if not one.answered[row]:
        axes.text(0.7, row + 1, "no response", va="center", fontsize=7.5, color=_ON_DARK)
        return
    for column, value in enumerate(one.absolute[row]):
        if value >= 0.005:
            at = column + 1 + (GAP if column == count else 0)
            axes.text(at, row + 1, f"{100 * value:.0f}", ha="center", va="center", fontsize=7.5,
                      color=_ON_LIGHT if value > 0.55 else _ON_DARK, weight="bold" if column == row else "normal")


def _draw_relative(axes: "Axes", one: Matrices) -> None:
    count = len(one.relative)
    _cells(axes, one.relative, 0.5)
    axes.set_xticks([1, count])
    axes.set_title(one.relative_title, fontsize=8, color=GREY)
    axes.set_xlabel("same fraction of Nyquist", fontsize=8)
    axes.tick_params(labelsize=8)


def _cells(axes: "Axes", values: np.ndarray, left: float) -> "QuadMesh":
    """Draw a matrix with low latent bands at the bottom, so that a faithful decoder gives a rising diagonal."""
    rows, columns = values.shape
    mesh = axes.pcolormesh(left + np.arange(columns + 1), 0.5 + np.arange(rows + 1), values, cmap=HEAT, vmin=0, vmax=1)
    axes.set_aspect("equal", anchor="SW")
    axes.set_yticks([1, rows] if rows > 1 else [1])
    return mesh
