import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from smtool.report.plots import Curve, figure_bytes, inline_svg, rasterized
from smtool.report.plots.power import power_figure


@pytest.fixture
def figure() -> Figure:
    x = np.geomspace(0.5, 16, 12)
    curves = [Curve("images <all>", x, x**-2, x**-2.2, x**-1.8, role="image"), Curve("plain", x, x**-1)]
    return power_figure(curves, title="t", note="n")


def test_figure_bytes_have_the_requested_format(figure):
    assert ElementTree.fromstring(figure_bytes(figure, "svg")).tag.endswith("svg")
    assert figure_bytes(figure, "png").startswith(b"\x89PNG")


def test_an_inline_svg_keeps_text_and_alt_text_and_has_no_url(figure):
    drawing = inline_svg(figure, "power", alt='falls & "rises"')
    root = ElementTree.fromstring(drawing)
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == 'falls & "rises"'
    assert not re.search(r"://|xmlns|xlink|<metadata|<!DOCTYPE", drawing)
    words = "".join(root.itertext())
    assert "images <all>" in words
    assert "spatial frequency (cycles per image side)" in words


def test_two_svgs_on_one_page_share_no_id_and_every_reference_resolves(figure):
    ids = []
    for name in ("one", "two"):
        root = ElementTree.fromstring(inline_svg(figure, name, alt=""))
        own = {element.attrib["id"] for element in root.iter() if "id" in element.attrib}
        used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', inline_svg(figure, name, alt="")))
        assert used and used <= own
        ids.append(own)
    assert not ids[0] & ids[1]


def test_a_rasterized_figure_is_a_picture_for_trackers(figure):
    picture = rasterized(figure)
    assert picture.dtype == torch.uint8
    assert picture.shape[0] == 3
    assert picture.min() < 50
    assert picture.float().mean() > 200      # mostly white background
