from smtool.report.plots import Curve
from smtool.report.plots.health import Before, capacity_figure, direction_figure

BEFORE = Before([(0.9, 0.05), (0.95, None), (None, None)])
LINE = Curve("a: 2,150 bits", range(1, 9), range(8))


def test_each_measure_has_a_row_for_each_latent_and_a_marker_for_each_measured_filter(check_figure):
    measures = {title: {"plain": BEFORE, "dsm": BEFORE} for title in ("RMSC", "LDS", "CDS")}
    figure = check_figure(lambda: direction_figure(measures, [LINE]))
    assert [len(axes.containers) for axes in figure.axes] == [4, 4, 4, 0]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["plain", "dsm"]


def test_axes_of_bits_start_at_zero(check_figure):
    figure = check_figure(lambda: capacity_figure([LINE], [LINE], distortion=0.01))
    assert all(axes.get_ylim()[0] == 0 for axes in figure.axes)
    assert "1 %" in figure.axes[0].get_ylabel()
