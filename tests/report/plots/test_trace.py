import numpy as np
import torch

from smtool.report.plots import Curve
from smtool.report.plots.trace import Emerging, trace_figure, traces_figure

NOISE = np.linspace(1, 0.1, 10)
CYCLES = np.array([0.5, 1, 2, 4, 8, 16])
SETTLED = np.array([0.9, 0.8, 0.6, 0.4, 0.2, 0.0])


def emerging(**changes):
    explained = 1 / (1 + np.exp((NOISE[:, None] - SETTLED) * 10))
    final = CYCLES**-2.0
    found = {"noise": NOISE, "cycles": CYCLES, "power": explained * final, "final": final, "explained": explained}
    found |= {"settled": SETTLED, "latent_cycles": CYCLES[:4], "latent_settled": SETTLED[:4], "crossing": SETTLED[:4] - 0.05}
    return Emerging(**found | changes)


def test_a_trace_shows_pictures_spectra_and_the_share_of_every_band(check_figure):
    pictures = torch.randint(0, 256, (2, 4, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    figure = check_figure(lambda: trace_figure(emerging(), pictures, [1.0, 0.6, 0.3, 0.0], title="run: heun", share=0.9))
    tiles = [axes for axes in figure.axes if not axes.axison]
    assert [axes.get_title() for axes in tiles[:4]] == ["1.00", "0.60", "0.30", "sample"]
    assert len(tiles) == 8
    spectra, explained, _ = (axes for axes in figure.axes if axes.axison)
    assert len(spectra.get_lines()) == 8
    assert explained.get_xlim() == (1, 0)
    images, latents, crossing = explained.get_lines()
    assert images.get_xdata().tolist() == SETTLED.tolist() and images.get_ydata().tolist() == CYCLES.tolist()
    assert (len(latents.get_xdata()), crossing.get_label()) == (4, "SNR = 1: f*")


def test_a_trace_without_bands_of_latents_has_one_line():
    none = np.array([])
    found = emerging(latent_cycles=none, latent_settled=none, crossing=none)
    figure = trace_figure(found, torch.zeros(1, 2, 3, 8, 8, dtype=torch.uint8), [1.0, 0.0], title="run", share=0.9)
    explained = [axes for axes in figure.axes if axes.axison][1]
    assert [line.get_label() for line in explained.get_lines()] == ["images settled (90 %)"]


def test_several_traces_are_compared_over_cycles_per_side(check_figure):
    lines = [Curve(name, CYCLES.tolist(), SETTLED, colour=colour) for colour, name in enumerate(("pixels", "plain"))]
    latents = [Curve("", CYCLES[:4].tolist(), SETTLED[:4], colour=1, role=role) for role in ("latent", "control")]
    figure = check_figure(lambda: traces_figure(lines, latents, share=0.9))
    assert [len(axes.get_lines()) for axes in figure.axes] == [2, 2]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["pixels", "plain"]
