"""Figures, one module for each subject; the common style is in `style`."""

from smtool.report.grids import DIFFERENCE_GAIN as DIFFERENCE_GAIN
from smtool.report.grids import reconstruction_grid as reconstruction_grid
from smtool.report.plots.output import figure_bytes as figure_bytes
from smtool.report.plots.output import inline_svg as inline_svg
from smtool.report.plots.output import rasterized as rasterized
from smtool.report.plots.quickstart import learning_figure as learning_figure
from smtool.report.plots.quickstart import overview_figure as overview_figure
from smtool.report.plots.quickstart import samples_figure as samples_figure
from smtool.report.plots.style import COLOURS as COLOURS
from smtool.report.plots.style import Curve as Curve
from smtool.report.plots.style import Role as Role
