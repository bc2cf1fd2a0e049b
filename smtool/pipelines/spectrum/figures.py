"""The result of `smtool spectrum` as figures. They read nothing else, so that an old spectrum.json can be drawn again."""

from matplotlib.figure import Figure

from smtool.pipelines.spectrum.figures_decoder import low_pass, low_pass_curves
from smtool.pipelines.spectrum.figures_power import Result, physical, power_curves, reference
from smtool.pipelines.spectrum.tables import headline
from smtool.report.plots import overview_figure


def figures(result: Result) -> dict[str, Figure]:
    """By file name, as far as they were measured. No figure mixes estimators."""
    drawn = {}
    if "physical" in result["images"]:
        drawn["physical"] = physical(result)
    if "reference" in result["images"]:
        drawn["reference"] = reference(result)
    if any("psnr" in autoencoder["low_pass"] for autoencoder in result["autoencoders"]):
        drawn["low-pass"] = low_pass(result)
    return drawn


def overview(result: Result) -> Figure:
    """Power spectra with the low-pass curves beside them."""
    heads = {autoencoder["label"]: headline(autoencoder["physical"]) for autoencoder in result["autoencoders"]}
    return overview_figure(power_curves(result["images"]["physical"], heads), low_pass_curves(result)[0])
