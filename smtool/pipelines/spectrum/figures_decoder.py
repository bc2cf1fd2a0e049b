"""What a decoder does to frequencies, as figures."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from smtool.pipelines.spectrum.curves import around, array
from smtool.pipelines.spectrum.tables import source_note
from smtool.report.plots import Curve
from smtool.report.plots.low_pass import low_pass_figure
from smtool.report.plots.transfer import Matrices, transfer_figure

Result = Mapping[str, Any]


def transfer(result: Result) -> Figure | None:
    """The transfer matrices of every decoder that was stirred."""
    measured = [(a["label"], a["transfer"]) for a in result["autoencoders"] if "absolute" in a.get("transfer", {})]
    return transfer_figure([_matrices(label, part) for label, part in measured]) if measured else None


def _matrices(label: str, part: Mapping[str, Any]) -> Matrices:
    relative = "none" if part["relative_kappa"] is None else f"{part['relative_kappa']:.2f}"
    return Matrices(
        f"{label}\n{_kappa(part)}",
        np.stack([array(row) for row in part["absolute"]]),
        np.stack([array(row) for row in part["relative"]]),
        f"relative, kappa {relative}",
        part["answered"],
    )


def _kappa(part: Mapping[str, Any]) -> str:
    shown = {"kappa": part["kappa"], "above": part["above"], "down": part["down"]}
    return ", ".join(f"{name} {'none' if value is None else format(value, '.2f')}" for name, value in shown.items())


def low_pass(result: Result) -> Figure | None:
    """The curve with its control, the gap and the kernel distance, where any decoder has one."""
    measured = [(colour, a["low_pass"]) for colour, a in enumerate(result["autoencoders"]) if "psnr" in a.get("low_pass", {})]
    if not measured:
        return None
    curves, gaps = low_pass_curves(result)
    note = (
        f"{max(scores['images'] for _, scores in measured)} images ({source_note(result)}), "
        f"{result['passport']['data']['image_size']} px; sampled posterior\n"
        "LP removes n of the 15 anti-diagonals of 8x8 DCT blocks of pixels and of latent cells (of smaller ones the same share)"
    )
    distances = [(colour, scores["rows_removed"], part) for colour, scores in measured
                 if (part := scores.get("kernel_distance", {})).get("value")]
    drawn = [around(rows, part["value"], part["half_width"], colour=colour) for colour, rows, part in distances]
    features = distances[0][2]["features"] if distances else ""
    title = "Low-pass reconstruction: does the decoder follow a removal?"
    return low_pass_figure(curves, gaps, drawn, features=features, title=title, note=note)


def low_pass_curves(result: Result) -> tuple[list[Curve], list[Curve]]:
    """PSNR with its control, and the gap."""
    curves, gaps = [], []
    for colour, autoencoder in enumerate(result["autoencoders"]):
        scores, label = autoencoder.get("low_pass", {}), autoencoder["label"]
        if "psnr" not in scores:
            continue
        rows, control = scores["rows_removed"], array(scores["control"])
        curves.append(Curve(f"{label}: D(LP z) against LP x", rows, array(scores["psnr"]), colour=colour))
        curves.append(Curve(f"{label}: D(z) against LP x (control)", rows, control, role="control", colour=colour))
        gaps.append(around(rows, scores["gap"]["value"], scores["gap"]["half_width"], colour=colour))
    return curves, gaps
