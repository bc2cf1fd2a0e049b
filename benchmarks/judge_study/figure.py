"""Power curves: a row for each ladder, a column for each extractor, a line for each metric."""

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from benchmarks.judge_study.power import Row, interval
from smtool.report.plots.style import GREY, frozen, new_figure, sign, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def mean_power(rows: Sequence[Row]) -> tuple[float, float, float]:
    """Power over all pairs of levels of these rows, with its 95 % interval."""
    share = fmean(row.power for row in rows)
    return share, *interval(share, sum(row.subsets for row in rows))


def power_figure(rows: Sequence[Row]) -> "Figure":
    """Mean power over a ladder's pairs of neighbouring levels against the number of images; bars are 95 % intervals."""
    ladders = {row.ladder: row.title for row in rows}
    columns, metrics = list(dict.fromkeys(row.features for row in rows)), list(dict.fromkeys(row.metric for row in rows))
    with styled():
        figure = new_figure(3.4 * len(columns) + 1.2, 2.0 * len(ladders) + 0.5)
        grid = figure.subplots(len(ladders), len(columns), sharex=True, sharey=True, squeeze=False)
        for axes_row, (ladder, title) in zip(grid, ladders.items(), strict=True):
            for axes, features in zip(axes_row, columns, strict=True):
                shown = [row for row in rows if (row.ladder, row.features) == (ladder, features)]
                if not shown:
                    axes.set_axis_off()
                    axes.set_title(f"{title}: {features}", fontsize=8.5, color=GREY)
                    axes.text(0.5, 0.5, "not run", color=GREY, ha="center", transform=axes.transAxes)
                    continue
                axes.axhline(0.5, color=GREY, linestyle="--", linewidth=0.9)
                for number, metric in enumerate(metrics):
                    counts = sorted({row.count for row in shown})
                    found = [mean_power([row for row in shown if (row.metric, row.count) == (metric, n)]) for n in counts]
                    values = [value for value, _, _ in found]
                    below = [max(0.0, value - low) for value, low, _ in found]      # not -1e-16
                    above = [max(0.0, high - value) for value, _, high in found]
                    places = [n * (0.96, 1.0, 1.04)[number % 3] for n in counts]      # so that bars do not overlap
                    axes.errorbar(places, values, [below, above], label=metric, elinewidth=0.9, **sign(number))
                axes.set_xscale("log", base=2)
                axes.set_xticks(ticks := sorted({row.count for row in rows}), [f"{tick:,}" for tick in ticks])
                axes.minorticks_off()
                axes.set_ylim(0, 1.03)
                axes.set_title(f"{title}: {features}", fontsize=8.5)
        for column in grid.T:
            lowest = [axes for axes in column if axes.axison][-1]
            lowest.tick_params(labelbottom=True)
            lowest.set_xlabel("images")
        for axes_row in grid:
            axes_row[0].set_ylabel("right order")
        handles, labels = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
        return frozen(figure)
