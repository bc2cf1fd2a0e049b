"""Figures of a race: scores of every seed, training curves, spectra, predictors against generation distance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from smtool.report.plots.style import GREY, Curve, draw, few_ticks, frozen, new_figure, plain_log_ticks, sign, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

LEGEND_COLUMNS = 4


@dataclass(frozen=True)
class Strip:
    """The scores of one racer: one for each seed, their mean, and the half-width of its interval (None for a single seed)."""

    label: str
    values: Sequence[float]
    mean: float
    half_width: float | None
    colour: int


def strips_figure(panels: Mapping[str, Sequence[Strip]]) -> "Figure":
    """A panel for each score, a row for each racer: seeds as dots, the mean as a bar, its 95 % interval as a line.

    The panel spans twice the range of all dots; a wider interval is cut off at its edge.
    """
    rows = max(len(strips) for strips in panels.values())
    with styled():
        figure = new_figure(11.0, 1.1 + 0.42 * rows)
        row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (title, strips) in zip(row, panels.items(), strict=True):
            for place, strip in enumerate(strips):
                shown = sign(strip.colour)
                if strip.half_width is not None:
                    bounds = [strip.mean - strip.half_width, strip.mean + strip.half_width]
                    axes.plot(bounds, [place, place], color=shown["color"], linewidth=1.2, alpha=0.7, zorder=1)
                axes.plot([strip.mean], [place], "|", color=shown["color"], markersize=15, markeredgewidth=2.2)
                axes.plot(strip.values, [place] * len(strip.values), **shown, markersize=5, alpha=0.85, linestyle="")
            axes.set_title(title, fontsize=9.5)
            axes.set_xlim(*_around([value for strip in strips for value in strip.values]))
            few_ticks(axes, 4)
        labels = [strip.label for strip in next(iter(panels.values()))]
        row[0].set_yticks(range(len(labels)), labels)
        row[0].set_ylim(len(labels) - 0.5, -0.5)
        return frozen(figure)


def race_curves_figure(panels: Mapping[str, Sequence[Curve]], ylabels: Sequence[str]) -> "Figure":
    """Curves against steps, a panel for each title; bands show the range of the seeds."""
    with styled():
        figure = new_figure(11.0, 4.0)
        row = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (title, curves), ylabel in zip(row, panels.items(), ylabels, strict=True):
            draw(axes, curves)
            axes.set_title(title, fontsize=9.5)
            axes.set(xlabel="step", ylabel=ylabel)
            few_ticks(axes, 4, steps=[1, 2, 5, 10])
        figure.legend(*row[0].get_legend_handles_labels(), loc="outside lower left", ncols=LEGEND_COLUMNS)
        return frozen(figure)


def race_spectra_figure(samples: Sequence[Curve], latents: Sequence[Curve]) -> "Figure":
    """Left: power of samples and reconstructions over the power of the images. Right: power of latents over their target."""
    panels = {
        "Samples (solid), reconstructions (dashed)": (samples, "power / power of the images (dB)"),
        "Latents": (latents, "power / power of the target, delta 1 (dB)"),
    }
    shown = {title: panel for title, panel in panels.items() if panel[0]}
    with styled():
        figure = new_figure(11.0, 4.4)
        row = figure.subplots(1, len(shown), squeeze=False)[0]
        for axes, (title, (curves, ylabel)) in zip(row, shown.items(), strict=True):
            axes.axhline(0.0, color=GREY, linewidth=1.2)
            draw(axes, curves)
            axes.set_title(title, fontsize=9.5)
            axes.set(xscale="log", xlabel="spatial frequency (cycles per image side)", ylabel=ylabel)
            plain_log_ticks(axes)
        figure.legend(*_racers(samples), loc="outside lower left", ncols=LEGEND_COLUMNS)
        return frozen(figure)


@dataclass(frozen=True)
class PredictorPanel:
    """One predictor: (value, generation distance) of each autoencoder. note: their rank correlation, as text."""

    title: str
    points: Mapping[str, tuple[float, float]]
    note: str


def predictor_panels_figure(panels: Sequence[PredictorPanel]) -> "Figure":
    """A small panel for each predictor, with the generation distance on the vertical axis; each point is an autoencoder."""
    columns = min((5, 4, 6), key=lambda number: -len(panels) % number)      # the number that leaves fewest panels empty
    rows = -(-len(panels) // columns)
    names = list(dict.fromkeys(name for panel in panels for name in panel.points))
    with styled():
        figure = new_figure(11.0, 0.5 + 2.3 * rows + 0.25 * -(-len(names) // LEGEND_COLUMNS))
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for axes in grid.flatten()[len(panels):]:
            axes.remove()
        for axes, panel in zip(grid.flatten(), panels, strict=False):
            for number, name in enumerate(names):
                if name in panel.points:
                    x, y = panel.points[name]
                    axes.plot([x], [y], **sign(number), markersize=6, linestyle="", label=name)
            axes.set_title(f"{panel.title}\n{panel.note}", fontsize=8)
            few_ticks(axes, 3)
            axes.tick_params(labelsize=8)
        for line in grid[:, 0]:
            line.set_ylabel("generation distance", fontsize=8.5)
        figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower left", ncols=LEGEND_COLUMNS)
        return frozen(figure)


def _around(values: Sequence[float]) -> tuple[float, float]:
    """Axis limits: the range of the values, extended by half of it on either side."""
    low, high = min(values), max(values)
    room = 0.5 * (high - low) or 0.05 * abs(high) or 1.0
    return low - room, high + room


def _racers(curves: Sequence[Curve]) -> tuple[list["Line2D"], list[str]]:
    """Legend entries of the solid lines only: dashed ones have the same colours."""
    from matplotlib.lines import Line2D

    solid = [curve for curve in curves if curve.role == "latent"]
    handles = [Line2D([], [], **sign(curve.colour), markersize=4) for curve in solid]
    return handles, [curve.label for curve in solid]
