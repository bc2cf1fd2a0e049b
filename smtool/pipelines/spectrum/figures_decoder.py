"""What a decoder does to frequencies, as figures."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from smtool.pipelines.spectrum.curves import around, array
from smtool.pipelines.spectrum.tables import source_note
from smtool.report.plots import Curve
from smtool.report.plots.low_pass import low_pass_figure

Result = Mapping[str, Any]


def low_pass(result: Result) -> Figure:
    curves, gaps = low_pass_curves(result)
    data = result["passport"]["data"]
    measured = [(colour, a["low_pass"]) for colour, a in enumerate(result["autoencoders"]) if "psnr" in a["low_pass"]]
    images = max(scores["images"] for _, scores in measured)
    note = (
        f"{images} images ({source_note(result)}), {data['image_size']} px; sampled posterior; "
        "LP removes n of the 15 anti-diagonals of 8x8 DCT blocks, of pixels and of latent cells"
    )
    distances = [(colour, scores["rows_removed"], scores["kernel_distance"]) for colour, scores in measured
                 if "value" in scores.get("kernel_distance", {})]
    drawn = [around(rows, part["value"], part["half_width"], colour=colour) for colour, rows, part in distances]
    features = distances[0][2]["features"] if distances else ""
    title = "Low-pass reconstruction: does the decoder follow a removal?"
    return low_pass_figure(curves, gaps, drawn, features=features, title=title, note=note)


def low_pass_curves(result: Result) -> tuple[list[Curve], list[Curve]]:
    """PSNR with its control, and the gap."""
    curves, gaps = [], []
    for colour, autoencoder in enumerate(result["autoencoders"]):
        scores, label = autoencoder["low_pass"], autoencoder["label"]
        if "psnr" not in scores:
            continue
        rows, control = scores["rows_removed"], array(scores["control"])
        curves.append(Curve(f"{label}: D(LP z) against LP x", rows, array(scores["psnr"]), colour=colour))
        curves.append(Curve(f"{label}: D(z) against LP x (control)", rows, control, role="control", colour=colour))
        gaps.append(around(rows, scores["gap"]["value"], scores["gap"]["half_width"], colour=colour))
    return curves, gaps
