"""The result of `smtool spectrum` as figures. They read nothing else, so that an old spectrum.json can be drawn again."""

from matplotlib.figure import Figure

from smtool.pipelines.spectrum.figures_decoder import low_pass, low_pass_curves, transfer
from smtool.pipelines.spectrum.figures_health import capacity, direction
from smtool.pipelines.spectrum.figures_lens import crossing, lens
from smtool.pipelines.spectrum.figures_power import Result, channels, physical, power_curves, readings, reference
from smtool.pipelines.spectrum.tables import headline
from smtool.report.plots import overview_figure

_DRAWN = {
    "physical": physical,
    "readings": readings,
    "channels": channels,
    "reference": reference,
    "transfer": transfer,
    "low-pass": low_pass,
    "lens": lens,
    "crossing": crossing,
    "direction": direction,
    "capacity": capacity,
}


def figures(result: Result) -> dict[str, Figure]:
    """By file name, as far as they were measured. No figure mixes estimators."""
    drawn = {name: draw(result) for name, draw in _DRAWN.items()}
    return {name: figure for name, figure in drawn.items() if figure is not None}


def overview(result: Result) -> Figure:
    """Power spectra with the low-pass curves beside them."""
    heads = {autoencoder["label"]: headline(autoencoder["physical"]) for autoencoder in result["autoencoders"]}
    return overview_figure(power_curves(result["images"]["physical"], heads), low_pass_curves(result)[0])
