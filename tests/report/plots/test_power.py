from dataclasses import replace

import numpy as np
import pytest

from smtool.report.plots import Curve
from smtool.report.plots.power import Gauge, Reading, flattening_figure, power_figure, readings_figure, reference_figure


def curves() -> list[Curve]:
    x = np.geomspace(0.5, 16, 12)
    return [
        Curve("images\nslope 2.00", x, x**-2, x**-2.2, x**-1.8, role="image"),
        Curve("target", x, x**-1, role="target"),
        Curve("plain\nslope 1.30 ± 0.10, delta 0.70 ± 0.12", x, x**-1.3, x**-1.4, x**-1.2),
        Curve("dsm", x, x**-1.1, colour=1),
        Curve("CelebA DSM, published", x, x**-1.05, role="published", colour=2),
    ]


GAUGE = Gauge(
    [Reading("plain", "0.70 ± 0.12", "slope 1.30", 0.7, 0.12), Reading("dsm", "no fit", "no fit", None, None)],
    asked=1.0, tolerance=0.4, white=2.0,
)
BINS = [replace(curve, x=range(1, 13)) for curve in curves()]


@pytest.mark.slow
@pytest.mark.parametrize("draw", [
    lambda: flattening_figure(curves()[:4], [Curve("", [1, 2], [0.5, -0.5])], GAUGE, title="t", note="n"),
    lambda: power_figure(curves()[:2], title="t", note="n"),
    lambda: readings_figure({f"autoencoder {i}": curves()[2:4] for i in range(3)}),
    lambda: reference_figure(BINS, [Curve("", range(1, 13), np.full(12, 1.1))], title="t", note="n"),
    lambda: reference_figure(BINS, [], title="t", note="n"),
])
def test_a_figure_has_units_no_overlaps_and_is_deterministic(draw, check_figure):
    check_figure(draw)


def test_the_scale_of_delta_shows_each_interval_and_the_shaded_target():
    figure = flattening_figure(curves()[:4], [], GAUGE, title="t", note="n")
    scale = figure.axes[-1]
    assert [container.lines[0].get_xdata()[0] for container in scale.containers] == [0.7]
    (bar,) = scale.containers[0].lines[2]
    assert np.allclose(bar.get_segments()[0][:, 0], [0.58, 0.82])
    shaded = scale.transData.inverted().transform(scale.patches[0].get_extents())
    assert np.allclose(shaded[:, 0], [0.6, 1.4])
    words = [text.get_text() for text in scale.texts]
    for word in ("copy of\nimages", "target", "white", "plain  0.70 ± 0.12", "dsm  no fit"):
        assert word in words
