"""Figures of the quickstart's page: power spectra and low-pass curves, losses by band, spectra of samples."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from smtool.report.plots.style import INK, Curve, draw, few_ticks, frozen, new_figure, plain_log_ticks, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def overview_figure(power: Sequence[Curve], low_pass: Sequence[Curve]) -> "Figure":
    """Power spectra (PHYSICAL) on the left, low-pass curves on the right."""
    with styled():
        figure = new_figure(11.0, 5.2)
        left, right = figure.subplots(1, 2)
        draw(left, power)
        left.set(xscale="log", yscale="log", xlabel="spatial frequency (cycles per image side)")
        left.set_ylabel("power per DCT coefficient (matched gain)")
        plain_log_ticks(left)
        draw(right, low_pass)
        right.set(xlabel="anti-diagonals removed, n", ylabel="PSNR against LP x (dB)", xticks=range(0, 15, 2))
        left.set_title("Power spectra", fontsize=11)
        right.set_title("Low-pass: solid D(LP z), dashed D(z) (control)", fontsize=11)
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=4)
        return frozen(figure)


def learning_figure(panels: Mapping[str, Sequence[Curve]]) -> "Figure":
    """Losses against steps, a panel with its own range for each title."""
    with styled():
        figure = new_figure(11.0, 3.6)
        row = figure.subplots(1, len(panels), sharex=True, squeeze=False)[0]
        for axes, (title, curves) in zip(row, panels.items(), strict=True):
            draw(axes, curves)
            axes.set_title(title, fontsize=9.5)
            axes.set_xlabel("step")
            few_ticks(axes, 2, steps=[1, 5, 10])
        row[0].set_ylabel("mean squared error per coefficient")
        figure.legend(*row[-1].get_legend_handles_labels(), loc="outside lower left", ncols=4)
        return frozen(figure)


def samples_figure(power: Sequence[Curve], ratios: Sequence[Curve]) -> "Figure":
    """Power spectra (PHYSICAL) of images and samples on the left; on the right, their ratio to the images, in dB."""
    with styled():
        figure = new_figure(11.0, 4.4)
        left, right = figure.subplots(1, 2, sharex=True)
        draw(left, power)
        left.set(xscale="log", yscale="log", ylabel="power per DCT coefficient")
        right.axhline(0.0, color=INK, linewidth=1.4)
        draw(right, ratios)
        right.set_ylabel("power / power of the training crops (dB)")
        for axes in (left, right):
            axes.set_xlabel("spatial frequency (cycles per image side)")
        plain_log_ticks(left)
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=3)
        return frozen(figure)
