"""Pictures of numbers: matplotlib's object interface only (no pyplot, no global state), in colours everyone can tell apart."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from torch import Tensor

from smtool.datasets.types import to_uint8

# Okabe and Ito's palette without black (images) and yellow (too light for lines), in the order the eye separates best.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
DIFFERENCE_GAIN = 2.0

_SETTINGS: dict[Any, Any] = {
    "font.size": 9.5, "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": "#e4e4e4", "grid.linewidth": 0.6, "axes.axisbelow": True, "legend.frameon": False,
    "legend.handlelength": 2.4, "legend.labelspacing": 0.9, "lines.linewidth": 1.8, "lines.markersize": 4,
    "svg.hashsalt": "smtool",
}


Role = Literal["image", "target", "latent", "control", "published"]


@dataclass(frozen=True)
class Curve:
    """A line of a figure. low and high bound its band, where it has one. role decides the look; `colour` which of COLOURS.

    Curves of one autoencoder share a colour. "control" is drawn dashed, "published" thin and dotted.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float] | np.ndarray
    low: Sequence[float] | np.ndarray | None = None
    high: Sequence[float] | np.ndarray | None = None
    role: Role = "latent"
    colour: int = 0


def physical_figure(curves: Sequence[Curve], residuals: Sequence[Curve], *, title: str, note: str) -> Figure:
    """Power against cycles per image side, both logarithmic; below it, where there are latents, their distance from the target.

    residuals: in dB, 0 where a latent has the target's power.
    """
    with rc_context(_SETTINGS):
        figure = _figure(9.6, 6.0 if residuals else 4.6)
        heights = [3, 1.15] if residuals else [1]
        panels = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
        _draw(panels[0], curves)
        panels[0].set(xscale="log", yscale="log", ylabel="power per DCT coefficient" + (" (matched gain)" if residuals else ""))
        if residuals:
            panels[1].axhline(0.0, color="#555555", linestyle="--", linewidth=1.4)
            _draw(panels[1], residuals)
            panels[1].set_ylabel("latents / target (dB)")
            _at_least(panels[1], 3.0)
        panels[-1].set_xlabel("spatial frequency (cycles per image side)")
        _plain_log_ticks(panels[-1])
        _legend_beside(figure, panels[0])
        return _finished(figure, panels[0], title, note)


def reference_figure(curves: Sequence[Curve], *, title: str, note: str) -> Figure:
    """Shares of the 16 REFERENCE bins (they sum to 1) against the bin's number."""
    with rc_context(_SETTINGS):
        figure = _figure(9.6, 4.8)
        axes = figure.subplots()
        _draw(axes, curves)
        axes.set(yscale="log", xlabel="REFERENCE bin (1 = lowest, DC kept)", ylabel="share of log1p power")
        axes.set_xticks(range(1, 17))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        _legend_beside(figure, axes)
        return _finished(figure, axes, title, note)


def low_pass_figure(curves: Sequence[Curve], gaps: Sequence[Curve], *, title: str, note: str) -> Figure:
    """PSNR after removing anti-diagonals from every block of latents and images; beside it, what the removal costs."""
    with rc_context(_SETTINGS):
        figure = _figure(9.6, 5.0)
        left, right = figure.subplots(1, 2, sharex=True)
        _draw(left, curves)
        _draw(right, gaps)
        left.set_ylabel("PSNR (dB)")
        right.set_ylabel("gap: PSNR at n = 0 less PSNR at n (dB)")
        for axes in (left, right):
            axes.set_xlabel("anti-diagonals removed, n")
            axes.set_xticks(range(0, 15, 2))
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=2)
        return _finished(figure, left, title, note)


def overview_figure(power: Sequence[Curve], low_pass: Sequence[Curve]) -> Figure:
    """The power spectrum (PHYSICAL) with the low-pass curve beside it, for the first look of a report."""
    with rc_context(_SETTINGS):
        figure = _figure(11.0, 5.2)
        left, right = figure.subplots(1, 2)
        _draw(left, power)
        left.set(xscale="log", yscale="log", xlabel="spatial frequency (cycles per image side)")
        left.set_ylabel("power per DCT coefficient (matched gain)")
        _plain_log_ticks(left)
        _draw(right, low_pass)
        right.set(xlabel="anti-diagonals removed, n", ylabel="PSNR against LP x (dB)", xticks=range(0, 15, 2))
        left.set_title("Power spectra", fontsize=11)
        right.set_title("Low-pass: solid D(LP z), dashed D(z) (control)", fontsize=11)
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=4)
        return _frozen(figure)


def learning_figure(panels: Mapping[str, Sequence[Curve]]) -> Figure:
    """Losses against steps, a panel for each title, each with its own range."""
    with rc_context(_SETTINGS):
        figure = _figure(11.0, 3.6)
        row = figure.subplots(1, len(panels), sharex=True, squeeze=False)[0]
        for axes, (title, curves) in zip(row, panels.items(), strict=True):
            _draw(axes, curves)
            axes.set_title(title, fontsize=9.5)
            axes.set_xlabel("step")
            axes.xaxis.set_major_locator(MaxNLocator(2, steps=[1, 5, 10]))
        row[0].set_ylabel("mean squared error per coefficient")
        figure.legend(*row[-1].get_legend_handles_labels(), loc="outside lower left", ncols=4)
        return _frozen(figure)


def samples_figure(power: Sequence[Curve], ratios: Sequence[Curve]) -> Figure:
    """Power spectra of images and samples (PHYSICAL); beside them, each one's ratio to the images, in dB."""
    with rc_context(_SETTINGS):
        figure = _figure(11.0, 4.4)
        left, right = figure.subplots(1, 2, sharex=True)
        _draw(left, power)
        left.set(xscale="log", yscale="log", ylabel="power per DCT coefficient")
        right.axhline(0.0, color="black", linewidth=1.4)
        _draw(right, ratios)
        right.set_ylabel("power / that of the training crops (dB)")
        for axes in (left, right):
            axes.set_xlabel("spatial frequency (cycles per image side)")
        _plain_log_ticks(left)
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=3)
        return _frozen(figure)


def figure_bytes(figure: Figure, kind: Literal["png", "svg"]) -> bytes:
    """The figure as a file; the same figure gives the same bytes."""
    data = io.BytesIO()
    with rc_context(_SETTINGS):
        metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
        figure.savefig(data, format=kind, dpi=150, metadata=metadata)
    return data.getvalue()


def rasterized(figure: Figure) -> Tensor:
    """The figure as a picture, uint8 (3, H, W), for trackers."""
    canvas = FigureCanvasAgg(figure)
    with rc_context(_SETTINGS):
        canvas.draw()
    return torch.from_numpy(np.asarray(canvas.buffer_rgba())[..., :3].copy()).permute(2, 0, 1)


def reconstruction_grid(images: Tensor, reconstructions: Tensor, *, separator: int = 1) -> Tensor:
    """Three rows, a column per image: input, reconstruction, and DIFFERENCE_GAIN times their difference around mid-grey.

    images, reconstructions: (B, 3, H, W) in [-1, 1]. Returns uint8 (3, H', W'), white lines between the cells, on the CPU.
    """
    if images.shape != reconstructions.shape:
        raise ValueError(f"images {tuple(images.shape)} and reconstructions {tuple(reconstructions.shape)} differ in shape")
    images, reconstructions = (x.detach().float().cpu().clamp(-1, 1) for x in (images, reconstructions))
    rows = [images, reconstructions, DIFFERENCE_GAIN * (reconstructions - images)]
    return _joined([_joined(list(to_uint8(row)), 2, separator) for row in rows], 1, separator)


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _draw(axes: Axes, curves: Sequence[Curve]) -> None:
    for curve in curves:
        look = _look(curve)
        axes.plot(curve.x, curve.y, label=curve.label, **look)
        if curve.low is not None and curve.high is not None:
            axes.fill_between(curve.x, curve.low, curve.high, color=look["color"], alpha=0.18, linewidth=0)


def _look(curve: Curve) -> dict[str, Any]:
    colour, marker = COLOURS[curve.colour % len(COLOURS)], MARKERS[curve.colour % len(MARKERS)]
    looks: dict[str, dict[str, Any]] = {
        "image": {"color": "black", "linewidth": 1.4},
        "target": {"color": "#555555", "linestyle": "--", "linewidth": 1.4},
        "latent": {"color": colour, "marker": marker},
        "control": {"color": colour, "linestyle": "--", "linewidth": 1.2, "alpha": 0.9},
        "published": {"color": colour, "linestyle": ":", "linewidth": 1.4},
    }
    return looks[curve.role]


def _legend_beside(figure: Figure, axes: Axes) -> None:
    """To the right of all panels, never on the data; a long one does not push the panels apart."""
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper")


def _finished(figure: Figure, axes: Axes, title: str, note: str) -> Figure:
    """Title, and the passport below it; the layout is then frozen, so that files can be compared."""
    figure.suptitle(title, x=0.01, ha="left", fontsize=11.5)
    axes.set_title(note, fontsize=8, color="#555555")
    return _frozen(figure)


def _frozen(figure: Figure) -> Figure:
    figure.canvas.draw()
    figure.set_layout_engine("none")
    return figure


def _plain_log_ticks(axes: Axes) -> None:
    """1, 2, 5, 10, 20 ... instead of powers of ten: an image has few octaves."""
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _at_least(axes: Axes, span: float) -> None:
    """A symmetric range of at least +-span, so that small deviations look small."""
    widest = max(span, *(abs(bound) for bound in axes.get_ylim()))
    axes.set_ylim(-widest, widest)


def _joined(tiles: list[Tensor], axis: int, separator: int) -> Tensor:
    """Tiles (3, H, W) side by side along the axis, with white lines between them."""
    shape = list(tiles[0].shape)
    shape[axis] = separator
    line = torch.full(shape, 255, dtype=torch.uint8)
    return torch.cat([part for tile in tiles for part in (line, tile)][1:], dim=axis)
