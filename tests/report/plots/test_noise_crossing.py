import numpy as np
import pytest

from smtool.report.plots import Curve
from smtool.report.plots.noise_crossing import (
    BandsOverTime,
    crossing_figure,
    highest_frequency_figure,
    noise_crossing_figure,
)

TIMES = np.linspace(0.02, 0.98, 25)
POWER = np.array([10.0, 1.0, 0.1])
SNR = (1 - TIMES[:, None]) ** 2 * POWER / TIMES[:, None] ** 2
LATENT = BandsOverTime(TIMES.tolist(), [1.0, 4.0, 16.0], SNR / (1 + SNR), POWER / (1 + SNR), [0.76, 0.5, 0.24])


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_latent_has_a_column_and_bands_share_one_legend(count, check_figure):
    figure = check_figure(lambda: noise_crossing_figure({f"latent {index}": LATENT for index in range(count)}))
    assert len(figure.axes) == 2 * count
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["1", "4", "16"]


def test_the_snr_of_a_band_is_1_where_its_line_crosses_one_half():
    upper = noise_crossing_figure({"latent": LATENT}).axes[0]
    for band, line in enumerate(upper.get_lines()[:3]):
        times, readable = line.get_data()
        at = np.interp(0.5, readable[::-1], np.asarray(times)[::-1])
        assert abs(at - LATENT.crossing[band]) < 0.01      # t* for S = 10, 1, 0.1: spectrum.md#noise-crossing


def test_the_crossing_figure_fits_its_page(check_figure):
    line = Curve("a", [1, 4, 16], [0.8, 0.5, 0.2])
    check_figure(lambda: crossing_figure([line], [line], [line], sampler="euler-maruyama, 100 steps", control="heun, 50 steps"))


def test_the_highest_frequency_has_a_panel_for_each_process_from_noise_to_data(check_figure):
    measured = Curve("a", [0.9, 0.5, 0.1], [np.nan, 4, 16])
    scaled, law = Curve("", [0.9, 0.5, 0.1], [2, 8, 16], role="control"), Curve("", [0.9, 0.5, 0.1], [1, 4, 40], role="fitted")
    panels = {"flow": [measured, law], "vp": [measured, law, scaled]}
    figure = check_figure(lambda: highest_frequency_figure(panels, highest=16.0, snr_scale=4.0))
    flow, vp = figure.axes
    assert flow.get_xlim() == (1, 0)
    assert (flow.get_title("left"), vp.get_title("left")) == ("flow", "vp; dashed: SNR x 4")
    assert [len(axes.get_lines()) for axes in (flow, vp)] == [2, 5]      # two more in the last panel, for the legend
