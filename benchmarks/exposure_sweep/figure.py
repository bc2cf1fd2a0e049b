"""Change of the distance over the epsilon scale, a panel for each process."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmarks.exposure_sweep.rows import Row
from smtool.report.plots.style import GREY, frozen, new_figure, sign, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = {"ddpm": "DDPM", "vp-sde": "VP-SDE", "flow": "flow"}


def sweep_figure(rows: Sequence[Row]) -> "Figure":
    """Paired changes from scale 1 of the same network and steps; a line for each gamma and number of steps. Bars: 95 %."""
    processes = list(dict.fromkeys(row.process for row in rows))
    with styled():
        figure = new_figure(3.6 * len(processes) + 0.4, 3.6)
        for axes, process in zip(figure.subplots(1, len(processes), squeeze=False)[0], processes, strict=True):
            here = [row for row in rows if row.process == process and row.seed == rows[0].seed]
            axes.axhline(0, color=GREY, linestyle="--", linewidth=0.9)
            for number, (gamma, steps) in enumerate(sorted({(row.gamma, row.steps) for row in here})):
                line = sorted((row for row in here if (row.gamma, row.steps) == (gamma, steps)), key=lambda row: row.scale)
                if len(line) > 1:
                    x, changes = [row.scale for row in line], [row.from_plain for row in line]
                    values, errors = [change.value for change in changes], [change.error for change in changes]
                    axes.errorbar(x, values, errors, label=f"gamma {gamma:g}, {steps} steps", elinewidth=0.9, **sign(number))
            axes.set_title(NAMES[process])
            axes.set_xlabel("epsilon scale")
            axes.legend(fontsize=7.5)
        figure.axes[0].set_ylabel("change of the distance")
        return frozen(figure)
