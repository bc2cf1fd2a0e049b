"""How every figure looks: matplotlib's object interface only (no pyplot, no global state), in colours everyone can tell apart.

matplotlib takes half a second to import, so it is imported when a figure is made, not when a command starts.
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

# Okabe and Ito's palette without black (images) and yellow (too light for lines), in the order the eye separates best.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
INK, GREY, FAINT = "#000000", "#555555", "#e4e4e4"
HEAT = "cividis"

SETTINGS: dict[Any, Any] = {
    "font.size": 9.5, "axes.titlelocation": "left", "axes.titlesize": 10, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": FAINT, "grid.linewidth": 0.6, "axes.axisbelow": True, "legend.frameon": False,
    "legend.handlelength": 2.4, "legend.labelspacing": 0.9, "lines.linewidth": 1.8, "lines.markersize": 4,
    "svg.hashsalt": "smtool",
}

Role = Literal["image", "target", "fitted", "latent", "control", "published"]


@dataclass(frozen=True)
class Curve:
    """A line of a figure. low and high bound its band, where it has one. role decides the look; `colour` which of COLOURS.

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
    """While figures are made and written: SETTINGS, and what is changed of them."""
    from matplotlib import rc_context

    settings: dict[Any, Any] = {**SETTINGS, **(changes or {})}
    return rc_context(settings)


def new_figure(width: float, height: float, *, solved: bool = True) -> "Figure":
    """Inches. solved: the layout is solved once, by `frozen`; otherwise the caller places the axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained" if solved else None)
    FigureCanvasAgg(figure)
    return figure


def draw(axes: "Axes", curves: Sequence[Curve]) -> None:
    """Lines and their bands; curves without a label stay out of legends."""
    for curve in curves:
        shown = look(curve.role, curve.colour)
        axes.plot(curve.x, curve.y, label=curve.label, **shown)
        if curve.low is not None and curve.high is not None:
            axes.fill_between(curve.x, curve.low, curve.high, color=shown["color"], alpha=0.18, linewidth=0)


def look(role: Role, colour: int) -> Mapping[str, Any]:
    """Colour, dashes and markers: no two lines differ by colour alone."""
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
    """Colour and marker of one of many: of the first 36, no two are alike, and every second half dozen is hollow."""
    again, colour = divmod(number, len(COLOURS))
    own = COLOURS[colour]
    marker = MARKERS[(number + again) % len(MARKERS)]
    return {"color": own, "marker": marker, "markerfacecolor": "white" if again % 2 else own}


def titled(figure: "Figure", axes: "Axes", title: str, note: str) -> "Figure":
    """Title, and below it what must be known to read the figure; the layout is then final.

    The note may be wider than the panel it stands on: the title keeps its lines free.
    """
    figure.suptitle(title + "\n" * (note.count("\n") + 1), x=0.01, ha="left", fontsize=11.5)
    frozen(figure)
    place = axes.get_position()
    figure.text(place.x0, place.y1 + 0.07 / figure.get_figheight(), note, va="bottom", fontsize=8, color=GREY)
    return figure


def frozen(figure: "Figure") -> "Figure":
    """With its layout solved and kept, so that files can be compared."""
    figure.canvas.draw()
    figure.set_layout_engine("none")
    return figure


def plain_log_ticks(axes: "Axes") -> None:
    """1, 2, 5, 10, 20 ... instead of powers of ten: an image has few octaves."""
    log_ticks(axes.xaxis)


def log_ticks(axis: "Axis") -> None:
    """1, 2 and 5 of every power of ten, as plain numbers."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(NullFormatter())


def few_ticks(axes: "Axes", most: int = 10, **options: Any) -> None:
    """At most so many intervals on the horizontal axis; options as of matplotlib's MaxNLocator."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(most, **options))


def at_least(axes: "Axes", span: float) -> None:
    """A symmetric range of at least +-span, so that small deviations look small."""
    widest = max(span, *(abs(bound) for bound in axes.get_ylim()))
    axes.set_ylim(-widest, widest)


def legend_beside(figure: "Figure", axes: "Axes") -> None:
    """To the right of all panels, never on the data; a long one does not push the panels apart."""
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper")
