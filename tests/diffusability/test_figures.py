import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from smtool.diffusability.page import chapters, plots
from smtool.diffusability.report import Report
from smtool.diffusability.sections import low_pass
from smtool.diffusability.sections.flattening import MOST_LINES, channels_figure, draw_physical
from smtool.diffusability.sections.parts import Reason, array, headline
from smtool.diffusability.sections.physical import ChannelPowers

pytestmark = pytest.mark.slow
MISSING = {"reason": "it was not measured"}
ALL = {
    "physical", "readings", "channels", "reference", "transfer", "low-pass",
    "noise-crossing", "crossing", "highest-frequency", "direction", "capacity",
}


@pytest.fixture(scope="module")
def report(drawn) -> Report:
    """The report as read back from its file."""
    return Report.model_validate_json((drawn.folder / "spectrum.json").read_text())


@pytest.fixture(scope="module")
def made(report):
    return figures(report)


def figures(report: Report) -> dict[str, Figure]:
    return {plot.name: plot.figure for plot in plots(chapters(report))}


def words(figure) -> str:
    return " ".join(text.get_text() for text in figure.findobj(Text))


@pytest.mark.slow
def test_a_report_has_every_figure_with_named_axes_and_nothing_outside_the_canvas(made):
    assert made.keys() == ALL
    for name, figure in made.items():
        paper = figure.get_window_extent()
        for axes in figure.axes:
            box = axes.get_tightbbox()
            assert paper.x0 - 1 <= box.x0 and box.x1 <= paper.x1 + 1 and paper.y0 - 1 <= box.y0 and box.y1 <= paper.y1 + 1, name
        for text in figure.texts:
            assert text.get_window_extent().x1 <= paper.x1 + 1, name
        assert any(axes.get_xlabel() for axes in figure.axes), name


def test_no_legend_shows_a_default_label_of_matplotlib(made):
    for figure in made.values():
        assert "_child" not in words(figure)


def line(axes, label):
    return next(one for one in axes.get_lines() if one.get_label().startswith(label))


def test_the_fitted_target_is_the_one_the_result_states(report, made):
    """The oracle is independent of the figure: `fitted_target` was computed from the ring tables."""
    power = made["physical"].axes[0]
    drawn_fits = [one for one in power.get_lines() if one.get_linestyle() == "-."]
    heads = [headline(autoencoder.physical) for autoencoder in report.autoencoders]
    heads = [head for head in heads if not isinstance(head.delta, Reason)]
    assert len(drawn_fits) == len(heads) > 0
    for fit, head in zip(drawn_fits, heads, strict=True):
        stated = array(head.fitted_target.power)
        gain = 10 ** ((head.target.gain_db - head.fitted_target.gain_db) / 10)
        assert np.allclose(fit.get_ydata(), gain * stated, rtol=1e-4)


def test_latents_lie_where_their_residual_says(report, made):
    """10 log10 of the latent line over the target line is the residual in the lower panel."""
    power, residual = made["physical"].axes[:2]
    head = headline(report.autoencoders[0].physical)
    latents = next(one for one in power.get_lines() if one.get_marker() == "o")
    ratio = 10 * np.log10(latents.get_ydata() / array(head.target.power))
    shown = next(one for one in residual.get_lines() if one.get_marker() == "o")
    assert np.allclose(ratio, shown.get_ydata(), atol=1e-3)


def test_the_scale_of_delta_shows_the_headline_with_its_interval(report, made):
    head = headline(report.autoencoders[0].physical)
    assert f"{head.delta.value:.2f} ± {head.delta.half_width:.2f}" in words(made["physical"])
    bars = made["physical"].axes[-1].containers
    assert np.isclose(bars[0].lines[0].get_xdata()[0], head.delta.value)


def test_the_matrix_shows_its_numbers_and_its_headline(report, made):
    part = report.autoencoders[0].transfer
    shown = words(made["transfer"])
    assert f"kappa {part.kappa:.2f}, above {part.above:.2f}, down {part.down:.2f}" in shown
    cells = [text.get_text() for text in made["transfer"].axes[0].texts]
    expected = [f"{100 * value:.0f}" for row, answered in zip(part.absolute, part.answered, strict=True)
                for value in (row if answered else []) if value >= 0.005]
    assert [cell for cell in cells if cell != "no response"] == expected
    assert cells.count("no response") == part.answered.count(False)


def test_what_was_not_measured_is_not_drawn(report):
    changed = report.to_json()
    changed["images"] = {}
    for one in changed["autoencoders"]:
        one |= {"physical": [], "reference": [], "transfer": MISSING, "low_pass": MISSING, "lens": MISSING}
        one["health"]["capacity"] = MISSING
    assert figures(Report.model_validate(changed)).keys() == {"direction"}      # which is measured of every latent


def low_passes(changed) -> Figure:
    return low_pass.plot({one.label: one.low_pass for one in Report.model_validate(changed).autoencoders}, place="").figure


def test_one_autoencoder_without_a_section_leaves_the_others_their_colours(report):
    changed = report.to_json()
    changed["autoencoders"][0]["low_pass"] = MISSING
    (solid, *_) = low_passes(changed).axes[0].get_lines()
    assert solid.get_marker() == "s"      # the second autoencoder keeps the second marker


def test_a_low_pass_curve_without_kernel_distances_has_two_panels(report):
    changed = report.to_json()
    assert len(low_passes(changed).axes) == 3
    for one in changed["autoencoders"]:
        one["low_pass"]["kernel_distance"] |= {"value": None, "half_width": None, "reason": "one image"}
    assert len(low_passes(changed).axes) == 2


def test_many_channels_are_a_band_and_few_are_lines(report):
    readings = report.autoencoders[0].physical
    head = headline(readings)
    few = len(channels_figure({"one": readings}).axes[0].get_lines())
    assert few == 1 + len(head.channels.power)
    many = head.model_copy(update={"channels": ChannelPowers(power=head.channels.power * MOST_LINES)})
    drawn = channels_figure({"one": [many]}).axes[0]
    assert len(drawn.get_lines()) == 2
    assert "5 to 95 %" in words(drawn.figure)


def test_images_alone_show_the_law_that_fits_them(report):
    figure = draw_physical(report.images.physical, {}, title="t", note="n")
    law = line(figure.axes[0], "power law").get_data()
    slopes = np.diff(np.log(law[1])) / np.diff(np.log(law[0]))
    assert np.allclose(slopes, -report.images.physical.slope.exponent)
