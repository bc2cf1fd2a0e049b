"""Figures of power spectra: images, latents and the flattened target."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from smtool.report.plots.style import (
    GREY,
    INK,
    Curve,
    at_least,
    draw,
    frozen,
    legend_beside,
    log_ticks,
    look,
    new_figure,
    plain_log_ticks,
    styled,
    titled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Reading:
    """One autoencoder on the scale of delta. said: bold text beside the name; remark: small text below; value: its delta."""

    name: str
    said: str
    remark: str
    value: float | None
    half_width: float | None


@dataclass(frozen=True)
class Gauge:
    """A scale of delta with one row for each reading. asked ± tolerance: shaded target range; white: delta of white latents."""

    readings: Sequence[Reading]
    asked: float
    tolerance: float
    white: float | None


def flattening_figure(curves: Sequence[Curve], residuals: Sequence[Curve], gauge: Gauge, *, title: str, note: str) -> "Figure":
    """Power against cycles per image side, both logarithmic; below, latents over target in dB; on the right, the scale of delta.

    The scale labels the lines of latents; the legend above it labels all others.
    """
    with styled():
        figure = new_figure(11.0, 6.4)
        columns = figure.add_gridspec(1, 2, width_ratios=[1.9, 1])
        left = columns[0].subgridspec(2, 1, height_ratios=[2.6, 1])
        right = columns[1].subgridspec(2, 1, height_ratios=[1, 3.6])
        power = figure.add_subplot(left[0])
        residual = figure.add_subplot(left[1], sharex=power)
        _draw_power(power, curves, "power per DCT coefficient (latents at matched gain)")
        power.tick_params(labelbottom=False)
        residual.axhline(0.0, color=GREY, linestyle="--", linewidth=1.4)
        draw(residual, residuals)
        residual.set_ylabel("latents / target (dB)")
        at_least(residual, 3.0)
        _cycles(residual)
        _lines_legend(figure.add_subplot(right[0]), curves)
        _draw_gauge(figure.add_subplot(right[1]), gauge)
        return titled(figure, power, title, note)


def power_figure(curves: Sequence[Curve], *, title: str, note: str) -> "Figure":
    """Power of images against cycles per image side."""
    with styled():
        figure = new_figure(9.6, 4.6)
        axes = figure.subplots()
        _draw_power(axes, curves, "power per DCT coefficient")
        _cycles(axes)
        legend_beside(figure, axes)
        return titled(figure, axes, title, note)


def readings_figure(panels: Mapping[str, Sequence[Curve]]) -> "Figure":
    """A panel for each autoencoder: power of the same latents by several estimators."""
    with styled():
        columns = min(2, len(panels))
        rows = -(-len(panels) // columns)
        figure = new_figure(10.6, 0.6 + 3.4 * rows)
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axes, (title, curves) in zip(grid.flat, panels.items(), strict=False):
            _draw_power(axes, curves, "power per DCT coefficient")
            axes.set_title(title)
            _cycles(axes)
            axes.legend(fontsize=8, labelspacing=0.4, loc="best")
        for axes in grid.flat[len(panels):]:
            axes.set_axis_off()
        return frozen(figure)


def reference_figure(curves: Sequence[Curve], ratios: Sequence[Curve], *, title: str, note: str) -> "Figure":
    """Fraction of power in each of the 16 REFERENCE bins (they sum to 1); below, latents over their target."""
    with styled():
        figure = new_figure(10.6, 6.0 if ratios else 4.6)
        heights = [3, 1.1] if ratios else [1]
        panels = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
        draw(panels[0], curves)
        panels[0].set(yscale="log", ylabel="fraction of log1p power")
        panels[0].yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        if ratios:
            panels[1].axhline(1.0, color=GREY, linestyle="--", linewidth=1.4)
            draw(panels[1], ratios)
            panels[1].set(yscale="log", ylabel="latents / target")
            _plain_ratios(panels[1])
        panels[-1].set_xlabel("REFERENCE bin (1 = lowest, DC kept)")
        panels[-1].set_xticks(range(1, 17))
        legend_beside(figure, panels[0])
        return titled(figure, panels[0], title, note)


def _draw_power(axes: "Axes", curves: Sequence[Curve], label: str) -> None:
    draw(axes, curves)
    axes.set(xscale="log", yscale="log", ylabel=label)


def _plain_ratios(axes: "Axes") -> None:
    """Logarithmic range of at least 0.45 to 2.2, so that small deviations look small."""
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.45), max(high, 2.2))
    log_ticks(axes.yaxis)


def _cycles(axes: "Axes") -> None:
    axes.set_xlabel("spatial frequency (cycles per image side)")
    plain_log_ticks(axes)


def _lines_legend(axes: "Axes", curves: Sequence[Curve]) -> None:
    """Draw a legend of all labelled curves that are not latents."""
    axes.set_axis_off()
    named = [curve for curve in curves if curve.role != "latent" and curve.label]
    for curve in named:
        axes.plot([], [], label=curve.label, **look(curve.role, curve.colour))
    axes.legend(loc="upper left", bbox_to_anchor=(-0.04, 1.1), fontsize=8.5, labelspacing=0.7)


def _draw_gauge(axes: "Axes", gauge: Gauge) -> None:
    """Draw the scale: marks for a copy of the images (delta 0), the target and white, and a row for each reading."""
    marks = [(0.0, "copy of\nimages", INK, "-"), (gauge.asked, "target", GREY, "--")]
    marks += [(gauge.white, "white", GREY, ":")] if gauge.white is not None else []
    axes.axvspan(gauge.asked - gauge.tolerance, gauge.asked + gauge.tolerance, color=GREY, alpha=0.12, linewidth=0)
    for at, name, colour, dashes in marks:
        axes.axvline(at, color=colour, linestyle=dashes, linewidth=1.2)
        axes.annotate(name, (at, 1), xycoords=("data", "axes fraction"), xytext=(0, 3), textcoords="offset points",
                      ha="center", va="bottom", fontsize=8, color=GREY)
    for row, reading in enumerate(gauge.readings):
        _draw_reading(axes, row, reading)
    ends = [at for at, *_ in marks]
    ends += [one.value + sign * (one.half_width or 0) for one in gauge.readings if one.value is not None for sign in (-1, 1)]
    axes.set_xlim(min(ends) - 0.3, max(ends) + 0.3)
    axes.set_ylim(max(len(gauge.readings), 4) - 0.6, -0.75)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("delta: how much flatter than the images")


def _draw_reading(axes: "Axes", row: int, reading: Reading) -> None:
    shown = look("latent", row)
    paper = {"facecolor": "#ffffff", "edgecolor": "none", "pad": 0.6}
    for text, above, size, colour in ((f"{reading.name}  {reading.said}", 20, 9.5, INK), (reading.remark, 9, 8, GREY)):
        axes.annotate(text, (0.0, row), xycoords=("axes fraction", "data"), xytext=(2, above), textcoords="offset points",
                      fontsize=size, color=colour, bbox=paper, weight="bold" if above > 9 else "normal")
    if reading.value is not None:
        axes.errorbar([reading.value], [row], xerr=reading.half_width, color=shown["color"], marker=shown["marker"],
                      markersize=7, capsize=4, linewidth=2)
