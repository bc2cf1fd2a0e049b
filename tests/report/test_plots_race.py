import numpy as np
import pytest

from smtool.report.plots import Curve, figure_bytes
from smtool.report.plots.race import (
    PredictorPanel,
    Strip,
    predictor_panels_figure,
    race_curves_figure,
    race_spectra_figure,
    strips_figure,
)

STRIPS = [
    Strip("dsm", [1.0, 1.2, 1.1], 1.1, 0.25, 1),
    Strip("plain", [2.0, 2.1, 1.9], 2.0, 40.0, 0),
    Strip("one", [1.5], 1.5, None, 2),
]


def _texts(figure):
    return {text for axes in figure.axes for text in (axes.get_title("left"), axes.get_xlabel(), axes.get_ylabel())}


def test_every_seed_is_a_dot_and_a_very_wide_interval_does_not_widen_the_panel():
    figure = strips_figure({"generation": STRIPS, "gap": STRIPS})
    (left, _) = figure.axes
    dots = [line for line in left.lines if line.get_marker() not in ("None", "|", "")]
    assert [list(line.get_xdata()) for line in dots] == [strip.values for strip in STRIPS]
    assert [label.get_text() for label in left.get_yticklabels()] == ["dsm", "plain", "one"]
    low, high = left.get_xlim()
    assert 0 < low < 1 and 2.1 < high < 3
    assert left.get_ylim()[0] > left.get_ylim()[1]      # the first racer on top


def test_each_title_has_a_panel_with_its_unit():
    curve = Curve("dsm", [1, 2, 3], [3.0, 2.0, 1.0], [2.5, 1.5, 0.5], [3.5, 2.5, 1.5])
    figure = race_curves_figure({"autoencoders": [curve], "transformers": [curve]}, ["PSNR (dB)", "loss"])
    assert {"PSNR (dB)", "loss", "step", "autoencoders", "transformers"} <= _texts(figure)
    assert len(figure.legends[0].get_texts()) == 1


@pytest.mark.parametrize("latents", [[], [Curve("dsm", [1.0, 2.0], [0.1, -0.1])]])
def test_spectra_leave_out_a_panel_without_curves_and_name_each_racer_once(latents):
    samples = [Curve("dsm", [1.0, 2.0], [0.0, -1.0]), Curve("dsm", [1.0, 2.0], [0.0, -0.5], role="control")]
    figure = race_spectra_figure(samples, latents)
    assert len(figure.axes) == 1 + bool(latents)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["dsm"]


@pytest.mark.slow
@pytest.mark.parametrize("count", [3, 16, 17])
def test_each_predictor_has_a_panel_and_each_autoencoder_its_own_marker(count):
    rng = np.random.default_rng(0)
    names = [f"racer {number}" for number in range(12)]
    found = [PredictorPanel(f"predictor {k}", {n: tuple(rng.random(2)) for n in names}, "rho +0.50") for k in range(count)]
    figure = predictor_panels_figure(found)
    assert len(figure.axes) == count
    looks = {(line.get_color(), line.get_marker()) for line in figure.axes[0].lines}
    assert len(looks) == len(names)
    assert figure_bytes(figure, "png") == figure_bytes(predictor_panels_figure(found), "png")
