"""Common style of all figures: matplotlib's object interface (no pyplot, no global state) and colour-blind safe colours.

matplotlib is imported when a figure is made, not when a command starts, because its import takes half a second.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Okabe and Ito's palette without black (used for images) and yellow (too light for lines), ordered by contrast.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
INK, GREY, FAINT = "#000000", "#555555", "#e4e4e4"
HEAT = "cividis"

SETTINGS: dict[Any, Any] = {
    "font.size": 9.5, "axes.titlelocation": "left", "axes.titlesize": 10, "axes.spines.top": False, "axes.spines.right": False,
    "axes.titley": 1.0, "axes.grid": True, "grid.color": FAINT, "grid.linewidth": 0.6, "axes.axisbelow": True,
    "legend.frameon": False, "legend.handlelength": 2.4, "legend.labelspacing": 0.9, "lines.linewidth": 1.8,
    "lines.markersize": 4, "svg.hashsalt": "smtool",
}

Role = Literal["image", "target", "fitted", "latent", "control", "published"]


@dataclass(frozen=True)
class Curve:
    """A line of a figure. low, high: bounds of its band, or None; role: decides the line style; colour: index into COLOURS.

    Curves of one autoencoder share a colour. "control" is drawn dashed, "fitted" dash-dotted, "published" thin and dotted.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float] | np.ndarray
    low: Sequence[float] | np.ndarray | None = None
    high: Sequence[float] | np.ndarray | None = None
    role: Role = "latent"
    colour: int = 0


def styled(changes: Mapping[Any, Any] | None = None) -> AbstractContextManager[None]:
    """Context in which figures are made and written: applies SETTINGS, updated by `changes`."""
    from matplotlib import rc_context

    settings: dict[Any, Any] = {**SETTINGS, **(changes or {})}
    return rc_context(settings)


def new_figure(width: float, height: float, *, solved: bool = True) -> "Figure":
    """An empty figure of this size in inches. solved: with constrained layout (see `frozen`); else the caller places axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained" if solved else None)
    FigureCanvasAgg(figure)
    return figure


def draw(axes: "Axes", curves: Sequence[Curve]) -> None:
    """Draw lines and their bands. Curves with an empty label are not in legends."""
    for curve in curves:
        shown = look(curve.role, curve.colour)
        axes.plot(curve.x, curve.y, label=curve.label, **shown)
        if curve.low is not None and curve.high is not None:
            axes.fill_between(curve.x, curve.low, curve.high, color=shown["color"], alpha=0.18, linewidth=0)


def look(role: Role, colour: int) -> Mapping[str, Any]:
    """Line properties for matplotlib: colour, line style and marker. Roles never differ by colour alone."""
    own = COLOURS[colour % len(COLOURS)]
    looks: dict[Role, dict[str, Any]] = {
        "image": {"color": INK, "linewidth": 1.4},
        "target": {"color": GREY, "linestyle": "--", "linewidth": 1.4},
        "fitted": {"color": own, "linestyle": "-.", "linewidth": 1.0, "alpha": 0.9},
        "latent": sign(colour),
        "control": {"color": own, "linestyle": "--", "linewidth": 1.2, "alpha": 0.9},
        "published": {"color": own, "linestyle": ":", "linewidth": 1.4},
    }
    return looks[role]


def sign(number: int) -> dict[str, Any]:
    """Colour and marker of a curve by its number. The first 36 differ; every second group of six has hollow markers."""
    again, colour = divmod(number, len(COLOURS))
    own = COLOURS[colour]
    marker = MARKERS[(number + again) % len(MARKERS)]
    return {"color": own, "marker": marker, "markerfacecolor": "white" if again % 2 else own}


def titled(figure: "Figure", axes: "Axes", title: str, note: str) -> "Figure":
    """Add a title to the figure and a note above the axes; the layout is then fixed.

    The title has empty lines below it, where the note is drawn, because the note may be wider than the axes.
    """
    figure.suptitle(title + "\n" * (note.count("\n") + 1), x=0.01, ha="left", fontsize=11.5)
    frozen(figure)
    place = axes.get_position()
    figure.text(place.x0, place.y1 + 0.07 / figure.get_figheight(), note, va="bottom", fontsize=8, color=GREY)
    return figure


def frozen(figure: "Figure") -> "Figure":
    """Solve the layout once and keep it, so that drawing again gives the same bytes."""
    engine = figure.get_layout_engine()
    assert engine is not None, "the figure was made with solved=False"
    engine.execute(figure)
    figure.set_layout_engine(None)
    return figure


def plain_log_ticks(axes: "Axes") -> None:
    """Set ticks 1, 2, 5, 10, 20 ... on the horizontal axis, instead of powers of ten."""
    log_ticks(axes.xaxis)


def log_ticks(axis: "Axis") -> None:
    """Set ticks at 1, 2 and 5 times every power of ten, as plain numbers."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(NullFormatter())


def few_ticks(axes: "Axes", most: int = 10, **options: Any) -> None:
    """Set at most `most` intervals on the horizontal axis. options: of matplotlib's MaxNLocator."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(most, **options))


def at_least(axes: "Axes", span: float) -> None:
    """Set a symmetric vertical range of at least ±span, so that small deviations look small."""
    widest = max(span, *(abs(bound) for bound in axes.get_ylim()))
    axes.set_ylim(-widest, widest)


def legend_beside(figure: "Figure", axes: "Axes") -> None:
    """Draw the legend to the right of all panels, outside the data."""
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper")
