import pytest

from smtool.report.plots import Curve
from smtool.report.plots.low_pass import low_pass_figure

LINE = Curve("plain", range(15), range(15))


@pytest.mark.parametrize(("distances", "panels"), [([], 2), ([LINE], 3)])
def test_there_is_a_panel_for_each_measured_quantity(distances, panels, check_figure):
    figure = check_figure(lambda: low_pass_figure([LINE], [LINE], distances, features="random", title="t", note="n"))
    assert len(figure.axes) == panels
    assert [axes.get_ylabel() for axes in figure.axes][2:] == ["kernel distance on random features"][: panels - 2]
