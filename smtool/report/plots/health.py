"""Figures of directional variation and of capacity: spatial measures of latents, and their bits by band and channel."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from smtool.report.plots.style import COLOURS, Curve, draw, few_ticks, frozen, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WAYS = (
    ("unfiltered", "o", "full"),
    ("spatially normalized (iREPA)", "s", "none"),
    ("difference of Gaussians (REPA-DoG)", "^", "none"),
)


@dataclass(frozen=True)
class Before:
    """One measure of one latent: (value, half-width) unfiltered and after each of the two filters; None if not measured."""

    values: Sequence[tuple[float | None, float | None]]


def direction_figure(measures: Mapping[str, Mapping[str, Before]], energy: Sequence[Curve]) -> "Figure":
    """A panel for each measure with a row for each latent; the last panel shows the directional energy by frequency band."""
    with styled():
        names = list(next(iter(measures.values())))
        figure = new_figure(11.0, 2.2 + 0.55 * len(names))
        panels = figure.subplots(1, len(measures) + 1, width_ratios=[1] * len(measures) + [1.25])
        for axes, (title, rows) in zip(panels, measures.items(), strict=False):
            _draw_measure(axes, rows)
            axes.set_xlabel(title)
        for axes in panels[1:-1]:
            axes.set_yticklabels([])
        panels[0].set_yticklabels(names)
        draw(panels[-1], energy)
        panels[-1].set(xlabel="latent band (1 = lowest)", ylabel="energy of unit tokens")
        panels[-1].set_ylim(bottom=0)
        few_ticks(panels[-1], integer=True)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", ncols=3)
        return frozen(figure)


def _draw_measure(axes: "Axes", rows: Mapping[str, Before]) -> None:
    for way, (label, marker, fill) in enumerate(_WAYS):
        for row, before in enumerate(rows.values()):
            value, half_width = before.values[way]
            if value is None:
                continue
            axes.errorbar([value], [row + 0.22 * (way - 1)], xerr=half_width, color=COLOURS[row % len(COLOURS)], marker=marker,
                          fillstyle=fill, markersize=6, capsize=2, linewidth=1.2, label=label if row == 0 else None)
    axes.set_yticks(range(len(rows)))
    axes.set_ylim(len(rows) - 0.5, -0.5)


def capacity_figure(bands: Sequence[Curve], channels: Sequence[Curve], *, distortion: float) -> "Figure":
    """Bits per image at one distortion, by latent band and by channel (the channel with most bits first)."""
    with styled():
        figure = new_figure(11.0, 3.6)
        panels = figure.subplots(1, 2)
        draw(panels[0], bands)
        draw(panels[1], channels)
        panels[0].set(xlabel="latent band (1 = lowest)", ylabel=f"bits per image at {100 * distortion:g} % distortion")
        panels[1].set(xlabel="channel, by decreasing bits", ylabel="bits per image and channel")
        for axes in panels:
            axes.set_ylim(bottom=0)
            few_ticks(axes, integer=True)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower left", ncols=4)
        return frozen(figure)
