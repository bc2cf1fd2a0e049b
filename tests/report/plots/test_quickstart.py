import pytest

from smtool.report.plots import Curve, learning_figure, overview_figure, samples_figure

LINE = Curve("plain", [1.0, 2.0, 4.0], [1.0, 0.5, 0.25])


@pytest.mark.parametrize("draw", [
    lambda: overview_figure([LINE], [LINE]),
    lambda: learning_figure({"all": [LINE], "band 1": [LINE]}),
    lambda: samples_figure([LINE], [LINE]),
])
def test_the_figures_of_the_quickstart_fit_their_page(draw, check_figure):
    check_figure(draw)
