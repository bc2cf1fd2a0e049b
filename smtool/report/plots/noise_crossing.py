"""Figures of the noise crossing: signal and noise of a diffusion model's latents in each frequency band."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from smtool.report.plots.style import GREY, HEAT, Curve, draw, frozen, log_ticks, new_figure, plain_log_ticks, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDEST = 4


@dataclass(frozen=True)
class BandsOverTime:
    """Curves of one latent over time. Arrays have a row for each time and a column for each frequency (cycles per side).

    readable: fraction of a band's power that can be predicted from x_t; floor: squared error of v of a perfect network;
    crossing: time t at which the SNR of each frequency is 1.
    """

    times: Sequence[float]
    cycles: Sequence[float]
    readable: np.ndarray
    floor: np.ndarray
    crossing: Sequence[float]


def noise_crossing_figure(latents: Mapping[str, BandsOverTime]) -> "Figure":
    """A column for each latent: above, the fraction of each band's power that is predictable at time t; below, the loss floor."""
    with styled():
        columns = min(_WIDEST, len(latents))
        blocks = -(-len(latents) // columns)
        figure = new_figure(max(2.75, 4.8 - 0.7 * columns) * columns, 4.9 * blocks)
        grid = figure.subplots(2 * blocks, columns, sharex=True, sharey=False, squeeze=False)
        for index, (title, latent) in enumerate(latents.items()):
            block, column = divmod(index, columns)
            upper, lower = grid[2 * block, column], grid[2 * block + 1, column]
            _draw_bands(upper, latent, latent.readable)
            _draw_bands(lower, latent, latent.floor)
            upper.axhline(0.5, color=GREY, linestyle="--", linewidth=1)
            upper.plot(latent.crossing, [0.5] * len(latent.crossing), "|", color=GREY, markersize=7)
            upper.set_title(title, fontsize=9.5)
            upper.set_ylim(0, 1)
            lower.set_yscale("log")
            lower.set_xlabel("diffusion time t (1: noise)")
            if column == 0:
                upper.set_ylabel("predictable fraction of power")
                lower.set_ylabel("loss floor of v")
        for index in range(len(latents), blocks * columns):
            block, column = divmod(index, columns)
            grid[2 * block, column].remove()
            grid[2 * block + 1, column].remove()
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", ncols=8, title="cycles per image side", fontsize=8.5)
        return frozen(figure)


def _draw_bands(axes: "Axes", latent: BandsOverTime, table: np.ndarray) -> None:
    """Draw a line for each band: dark and thick for low frequencies, light and thin for high ones."""
    from matplotlib import colormaps

    for shade, index in zip(np.linspace(0.0, 0.85, len(latent.cycles)), range(len(latent.cycles)), strict=True):
        axes.plot(latent.times, table[:, index], color=colormaps[HEAT](shade), linewidth=2.6 - 1.6 * shade,
                  label=f"{latent.cycles[index]:.2g}")


def crossing_figure(
    crossings: Sequence[Curve],
    fractions: Sequence[Curve],
    gains: Sequence[Curve],
    *,
    sampler: str,
    control: str,
    recoloured: str = "",
) -> "Figure":
    """Three panels over frequency: time at which SNR = 1, cumulative fraction of the loss floor, variance after the last step.

    sampler, control, recoloured: what the solid and the dashed lines of the last panel, and the thin lines of the first, are.
    """
    with styled():
        figure = new_figure(11.0, 4.4)
        panels = figure.subplots(1, 3, sharex=True)
        labels = ("time t at which SNR = 1", "cumulative fraction of the loss floor", "variance after the last sampler step")
        for axes, curves, label in zip(panels, (crossings, fractions, gains), labels, strict=True):
            draw(axes, curves)
            axes.set(xscale="log", ylabel=label, xlabel="cycles per image side")
            plain_log_ticks(axes)
        panels[0].set_ylim(0, 1)
        panels[1].set_ylim(0, 1.02)
        panels[2].axhline(1.0, color=GREY, linestyle="--", linewidth=1.2)
        panels[2].set_ylim(min(0.88, panels[2].get_ylim()[0]))
        panels[0].set_title(recoloured, fontsize=8, color=GREY)
        panels[1].set_title("dashed: white latents (equal power at all frequencies)", fontsize=8, color=GREY)
        panels[2].set_title(f"solid: {sampler}\ndashed: {control}", fontsize=8, color=GREY)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower left", ncols=4)
        return frozen(figure)


def highest_frequency_figure(panels: Mapping[str, Sequence[Curve]], *, highest: float, snr_scale: float) -> "Figure":
    """A panel for each process: the highest frequency above the noise (cycles per side, up to `highest`), over time.

    Time runs from noise (left) to data (right), as a sampler does. snr_scale: of the curves with role "control".
    """
    with styled():
        figure = new_figure(3.7 * len(panels), 4.2)
        grid = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
        for axes, (process, curves) in zip(grid, panels.items(), strict=True):
            draw(axes, curves)
            for line in axes.get_lines():
                line.set_markevery(6)
            notes = [f"dashed: SNR x {snr_scale:g}"] if any(curve.role == "control" for curve in curves) else []
            axes.set_title("; ".join([process, *notes]))
            axes.set(yscale="log", xlabel="diffusion time t (1: noise, 0: data)")
            log_ticks(axes.yaxis)
        grid[0].set_xlim(1, 0)
        grid[0].set_ylim(0.4, 1.25 * highest)
        grid[0].set_ylabel("f*, cycles per image side")
        grid[-1].plot([], [], color=GREY, label="measured")
        grid[-1].plot([], [], color=GREY, linestyle="-.", linewidth=1, label="power law")
        named = [line for axes in grid for line in axes.get_lines() if not str(line.get_label()).startswith("_")]
        figure.legend(handles=named, loc="outside lower left", ncols=5)
        return frozen(figure)
