import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from smtool.report.plots import (
    COLOURS,
    DIFFERENCE_GAIN,
    Curve,
    figure_bytes,
    low_pass_figure,
    physical_figure,
    rasterized,
    reconstruction_grid,
    reference_figure,
)


def test_the_grid_has_inputs_reconstructions_and_differences_in_rows():
    images = torch.stack([torch.full((3, 4, 6), value) for value in (-1.0, 0.0, 0.2)])
    grid = reconstruction_grid(images, images + 0.1)
    assert grid.dtype == torch.uint8
    assert grid.shape == (3, 3 * 4 + 2, 3 * 6 + 2)
    assert grid[0, 0, 0] == 0                                            # black input
    assert grid[0, 5, 7] == round(1.1 * 127.5)                          # second reconstruction
    assert grid[0, 10, 0] == round((1 + 0.1 * DIFFERENCE_GAIN) * 127.5)      # difference
    assert (grid[:, 4] == 255).all()
    assert (grid[:, :, 6] == 255).all()


def test_equal_images_differ_by_mid_grey_only():
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    grid = reconstruction_grid(images, images, separator=0)
    assert torch.equal(grid[:, :8], grid[:, 8:16])
    assert (grid[:, 16:] == 128).all()


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        reconstruction_grid(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 4, 4))


def curves() -> list[Curve]:
    x = np.geomspace(0.5, 16, 12)
    return [
        Curve("images\nslope 2.00", x, x**-2, x**-2.2, x**-1.8, role="image"),
        Curve("target", x, x**-1, role="target"),
        Curve("plain\nslope 1.30 ± 0.10, delta 0.70 ± 0.12", x, x**-1.3, x**-1.4, x**-1.2),
        Curve("dsm", x, x**-1.1, colour=1),
        Curve("CelebA DSM, published", x, x**-1.05, role="published", colour=2),
    ]


def settings() -> dict[str, object]:
    """matplotlib's global state, without the backend it settles on by itself."""
    return {name: value for name, value in matplotlib.rcParams.items() if name != "backend"}


@pytest.mark.parametrize("draw", [
    lambda: physical_figure(curves()[:4], [Curve("", [1, 2], [0.5, -0.5])], title="t", note="n"),
    lambda: physical_figure(curves()[:1], [], title="t", note="n"),
    lambda: reference_figure([replace(curve, x=range(1, 13)) for curve in curves()], title="t", note="n"),
    lambda: low_pass_figure([Curve("plain", range(15), range(15))], [Curve("", range(15), range(15))], title="t", note="n"),
])
def test_a_figure_has_units_and_a_legend_beside_the_data_and_is_the_same_each_time(draw):
    before = settings()
    figure = draw()
    for axes in figure.axes:
        assert axes.get_ylabel()
    assert figure.axes[-1].get_xlabel()
    legend = (figure.axes[0].get_legend() or figure.legends[0]).get_window_extent()
    assert not any(legend.overlaps(axes.get_window_extent()) for axes in figure.axes)
    page = figure.get_window_extent()
    for box in (legend, *(axes.get_tightbbox() for axes in figure.axes)):
        assert page.x0 - 1 <= box.x0 and box.x1 <= page.x1 + 1 and page.y0 - 1 <= box.y0 and box.y1 <= page.y1 + 1
    for kind in ("svg", "png"):
        assert figure_bytes(figure, kind) == figure_bytes(draw(), kind)
    assert ElementTree.fromstring(figure_bytes(figure, "svg")).tag.endswith("svg")
    assert settings() == before


def test_a_rasterized_figure_is_a_picture_for_trackers():
    picture = rasterized(physical_figure(curves()[:2], [], title="t", note="n"))
    assert picture.dtype == torch.uint8
    assert picture.shape[0] == 3
    assert picture.min() < 50
    assert picture.float().mean() > 200      # mostly paper


def test_line_colours_differ_for_the_colour_blind():
    """Vienot, Brettel and Mollon (1999): what a deuteranope sees of linear RGB."""
    seen = np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]])
    linear = np.array([to_rgb(colour) for colour in COLOURS]) ** 2.2
    shown = np.clip(linear @ seen.T, 0, 1) ** (1 / 2.2)
    distances = np.linalg.norm(shown[:, None] - shown[None], axis=-1) + np.eye(len(COLOURS)) * 9
    assert distances[:4, :4].min() > 0.15
