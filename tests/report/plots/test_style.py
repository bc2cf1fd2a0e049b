import numpy as np
from matplotlib.colors import to_rgb

from smtool.report.plots import COLOURS
from smtool.report.plots.style import MARKERS, sign


def test_line_colours_differ_for_the_colour_blind():
    """Simulation of deuteranopia on linear RGB: Vienot, Brettel and Mollon (1999)."""
    seen = np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]])
    linear = np.array([to_rgb(colour) for colour in COLOURS]) ** 2.2
    shown = np.clip(linear @ seen.T, 0, 1) ** (1 / 2.2)
    distances = np.linalg.norm(shown[:, None] - shown[None], axis=-1) + np.eye(len(COLOURS)) * 9
    assert distances[:4, :4].min() > 0.15


def test_every_colour_has_its_own_marker():
    assert len(set(MARKERS)) == len(MARKERS) == len(COLOURS)


def test_thirty_six_signs_differ_and_the_second_use_of_a_colour_is_hollow():
    signs = [tuple(sign(number).values()) for number in range(36)]
    assert len({(colour, marker) for colour, marker, _ in signs}) == 36
    assert all(filling == colour for colour, _, filling in signs[:6])
    assert {filling for _, _, filling in signs[6:12]} == {"white"}
