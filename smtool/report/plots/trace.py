"""Figures of samples as they emerge from noise: which frequencies are settled at which noise level."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from smtool.report.plots.style import (
    COLOURS,
    GREY,
    HEAT,
    INK,
    Curve,
    draw,
    frozen,
    log_ticks,
    new_figure,
    plain_log_ticks,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NUM_SPECTRA = 7
_NOISE = "noise level σ / (α + σ)  (1: noise, 0: data)"
_CYCLES = "cycles per image side"


@dataclass(frozen=True)
class Emerging:
    """Denoised estimates over the steps (rows) by frequency (columns); noise: level at each step, cycles: per image side.

    power: of the estimates, final: of the samples; explained: share of the final power; settled: noise level from which the
    share stays high. latent_settled: the same in latents, and crossing: where the SNR is 1, over latent_cycles; all three may be
    empty.
    """

    noise: np.ndarray
    cycles: np.ndarray
    power: np.ndarray
    final: np.ndarray
    explained: np.ndarray
    settled: np.ndarray
    latent_cycles: np.ndarray
    latent_settled: np.ndarray
    crossing: np.ndarray


def trace_figure(emerging: Emerging, pictures: Tensor, shown: Sequence[float], *, title: str, share: float) -> "Figure":
    """Denoised images from noise to the sample; below, their power spectra, and the explained share of every band.

    pictures: uint8 (images, columns, 3, H, W); shown: noise level of each column, 0 for the final samples.
    """
    with styled():
        images, columns = pictures.shape[:2]
        figure = new_figure(11.0, 1.5 * images + 5.2)
        parts = figure.subfigures(2, 1, height_ratios=(1.5 * images + 0.3, 4.6), squeeze=False)
        upper, lower = parts[:, 0]
        upper.suptitle(title, x=0.01, ha="left", fontsize=10)
        tiles = upper.subplots(images, columns, squeeze=False)
        for row, strip in enumerate(pictures):
            for column, picture in enumerate(strip):
                tiles[row, column].imshow(picture.permute(1, 2, 0).numpy(), interpolation="nearest")
                tiles[row, column].set_axis_off()
                if row == 0:
                    level = "sample" if column == columns - 1 else f"{shown[column]:.2f}"
                    tiles[row, column].set_title(level, loc="center", fontsize=9)
        left, right = lower.subplots(1, 2)
        _draw_spectra(left, emerging)
        _draw_explained(right, emerging, share)
        figure.colorbar(right.collections[0], ax=right, label="explained share of the final power")
        handles = [*left.get_legend_handles_labels()[0], *right.get_legend_handles_labels()[0]]
        lower.legend(handles=handles, loc="outside lower left", ncols=6, fontsize=8.5)
        return frozen(figure)


def _draw_spectra(axes: "Axes", emerging: Emerging) -> None:
    """Draw the power of estimates at some steps, dark and thick for much noise, and of the final samples."""
    from matplotlib import colormaps

    chosen = np.unique(np.linspace(0, len(emerging.noise) - 1, NUM_SPECTRA).round().astype(int))
    for shade, index in zip(np.linspace(0, 0.85, len(chosen)), chosen, strict=True):
        axes.plot(emerging.cycles, emerging.power[index], color=colormaps[HEAT](shade), linewidth=2.4 - 1.4 * shade,
                  label=f"at {emerging.noise[index]:.2f}")
    axes.plot(emerging.cycles, emerging.final, color=INK, linestyle="--", linewidth=1.2, label="samples")
    axes.set(xscale="log", yscale="log", xlabel=_CYCLES, ylabel="power of the denoised images")
    plain_log_ticks(axes)


def _draw_explained(axes: "Axes", emerging: Emerging, share: float) -> None:
    """Draw the explained share as colours, with lines where bands are settled and where their SNR is 1."""
    axes.pcolormesh(emerging.noise, emerging.cycles, np.clip(emerging.explained.T, 0, 1), shading="nearest", cmap=HEAT, vmin=0,
                    vmax=1, rasterized=True)
    axes.plot(emerging.settled, emerging.cycles, color=INK, linewidth=2, label=f"images settled ({100 * share:g} %)")
    if len(emerging.latent_cycles):
        axes.plot(emerging.latent_settled, emerging.latent_cycles, color=COLOURS[1], linestyle="--", label="latents settled")
        axes.plot(emerging.crossing, emerging.latent_cycles, color=COLOURS[1], linestyle=":", linewidth=2, label="SNR = 1: f*")
    axes.set(yscale="log", xlabel=_NOISE, ylabel=_CYCLES, xlim=(1, 0),
             ylim=(0.95 * emerging.cycles[0], 1.05 * emerging.cycles[-1]))
    axes.grid(visible=False)
    log_ticks(axes.yaxis)


def traces_figure(images: Sequence[Curve], latents: Sequence[Curve], *, share: float) -> "Figure":
    """When each frequency is settled, over cycles per image side: in decoded images and in latents, all runs in both panels."""
    with styled():
        figure = new_figure(10.0, 4.6)
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
        for axes, curves, title in zip(panels, (images, latents), ("decoded images", "latents (dashed: SNR = 1)"), strict=True):
            draw(axes, curves)
            axes.set_title(title)
            axes.set(xscale="log", xlabel=_CYCLES)
            plain_log_ticks(axes)
        panels[0].set_ylabel(f"settled from here on ({100 * share:g} %)\n{_NOISE}", color=GREY)
        panels[0].set_ylim(0, 1.02)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower left", ncols=2)
        return frozen(figure)
