"""Figure of low-pass reconstruction: PSNR when high frequencies are removed from latents and images."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from smtool.report.plots.style import Curve, draw, new_figure, styled, titled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def low_pass_figure(
    curves: Sequence[Curve], gaps: Sequence[Curve], distances: Sequence[Curve], *, features: str, title: str, note: str
) -> "Figure":
    """Panels over the number n of anti-diagonals removed from every block of latents and images.

    curves: PSNR; gaps: loss of PSNR against n = 0; distances: kernel distance of the same pairs on `features`, or empty.
    """
    with styled():
        drawn = [(curves, "PSNR (dB)"), (gaps, "gap: PSNR at n = 0 minus PSNR at n (dB)")]
        drawn += [(distances, f"kernel distance on {features} features")] if distances else []
        figure = new_figure(10.6, 5.0)
        panels = figure.subplots(1, len(drawn), sharex=True)
        for axes, (lines, label) in zip(panels, drawn, strict=True):
            draw(axes, lines)
            axes.set(ylabel=label, xlabel="anti-diagonals removed, n", xticks=range(0, 15, 2))
        panels[1].axhline(0.0, color="#555555", linestyle="--", linewidth=1.2)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower left", ncols=2)
        return titled(figure, panels[0], title, note)
