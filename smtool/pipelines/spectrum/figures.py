"""The result of `smtool spectrum` as figures. They read nothing else, so that an old spectrum.json can be drawn again."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from smtool.pipelines.spectrum.tables import data_note, headline, source_note
from smtool.report.plots import Curve, Role, low_pass_figure, overview_figure, physical_figure, reference_figure
from smtool.report.tables import interval

Result = Mapping[str, Any]
Entry = Mapping[str, Any]
BINS = range(1, 17)


def figures(result: Result) -> dict[str, Figure]:
    """By file name: "physical", "reference", "low-pass", as far as they were measured. No figure mixes estimators."""
    drawn = {}
    if "physical" in result["images"]:
        drawn["physical"] = _physical(result)
    if "reference" in result["images"]:
        drawn["reference"] = _reference(result)
    if any("psnr" in autoencoder["low_pass"] for autoencoder in result["autoencoders"]):
        drawn["low-pass"] = _low_pass(result)
    return drawn


def overview(result: Result) -> Figure:
    """Power spectra with the low-pass curves beside them."""
    heads = {autoencoder["label"]: headline(autoencoder["physical"]) for autoencoder in result["autoencoders"]}
    return overview_figure(_power_curves(result["images"]["physical"], heads), _low_pass_curves(result)[0])


def _physical(result: Result) -> Figure:
    heads = {autoencoder["label"]: headline(autoencoder["physical"]) for autoencoder in result["autoencoders"]}
    title, note = "PHYSICAL power spectrum of images", data_note(result)
    if heads:
        title = "PHYSICAL power spectra: are latents a flattened copy of images?"
        note += "\nlatents: sampled posterior, normalized, gain matched to the target; fits start at 0.9 cycles per side"
    return draw_physical(result["images"]["physical"], heads, title=title, note=note)


def draw_physical(images: Entry, heads: Mapping[str, Entry], *, title: str, note: str) -> Figure:
    """images: an `image_reading`; heads: a `latent_reading` for each label."""
    residuals = [
        _around(head["cycles_per_side"], head["target"]["residual_db"], head["target"]["half_width"], colour)
        for colour, head in enumerate(heads.values())
    ]
    return physical_figure(_power_curves(images, heads), residuals, title=title, note=note)


def _power_curves(images: Entry, heads: Mapping[str, Entry]) -> list[Curve]:
    """The images, the widest target, and the latents at the gain that brings them nearest to it."""
    curves = [_power_curve(f"images\n{_slope(images['slope'])}", images, role="image")]
    if heads:
        curves.append(_target_curve(max(heads.values(), key=lambda head: head["cycles_per_side"][-1])))
    for colour, (label, head) in enumerate(heads.items()):
        gain = head["target"]["gain_db"] or 0.0
        curves.append(_power_curve(_latent_label(label, head), head, gain_db=gain, colour=colour))
    return curves


def _target_curve(head: Entry) -> Curve:
    label = f"target: images flattened\nby f^{head['target']['delta']:g}"
    return Curve(label, head["cycles_per_side"], _array(head["target"]["power"]), role="target")


def _latent_label(name: str, head: Entry) -> str:
    lines = [name, _slope(head["slope"])]
    if "value" in head["delta"]:
        lines[-1] += f", delta {interval(head['delta']['value'], head['delta']['half_width'])}"
        lines.append(f"{head['target']['divergence_db']['value']:.1f} dB from the target")
    return "\n".join(lines)


def _slope(slope: Entry) -> str:
    if "reason" in slope:
        return "no fit"
    return "steeper than 4.5" if slope["steeper_than_4_5"] else f"slope {interval(slope['exponent'], slope['half_width'])}"


def _power_curve(label: str, entry: Entry, *, gain_db: float = 0.0, role: Role = "latent", colour: int = 0) -> Curve:
    power, low, high = (10 ** (gain_db / 10) * _array(entry[key]) for key in ("power", "low", "high"))
    return Curve(label, entry["cycles_per_side"], power, low, high, role=role, colour=colour)


def _reference(result: Result) -> Figure:
    curves = []
    for reference in result["images"]["reference"]:
        height, width = reference["size"]
        curves.append(_share_curve(f"images at {height}x{width}", reference["curve"], role="image"))
        if result["autoencoders"]:
            label = f"target at {height}x{width}, delta {reference['delta']:g}"
            curves.append(Curve(label, BINS, _array(reference["target"]["share"]), role="target"))
    for colour, autoencoder in enumerate(result["autoencoders"]):
        head = headline(autoencoder["reference"])
        released, matched = (interval(head["divergence"][gain]["value"], head["divergence"][gain]["half_width"], digits=3)
                             for gain in ("raw", "match"))
        label = f"{autoencoder['label']}\nKL as released {released}\npower-matched {matched}"
        curves.append(_share_curve(label, head["curve"], colour=colour))
    for colour, published in enumerate(result["published"], start=len(result["autoencoders"])):
        curves.append(Curve(published["label"], BINS, published["share"], role="published", colour=colour))
    latents = "sampled posterior, raw latents, KL without DC; " if result["autoencoders"] else ""
    note = f"{data_note(result)}\nrecipe of the released code: {latents}curves with DC and log1p"
    return reference_figure(curves, title="REFERENCE spectra, as the paper's figures draw them", note=note)


def _share_curve(label: str, entry: Entry, *, role: Role = "latent", colour: int = 0) -> Curve:
    share, low, high = (_array(entry[key]) for key in ("share", "low", "high"))
    return Curve(label, BINS, share, low, high, role=role, colour=colour)


def _low_pass(result: Result) -> Figure:
    curves, gaps = _low_pass_curves(result)
    data = result["passport"]["data"]
    images = max(a["low_pass"]["images"] for a in result["autoencoders"] if "images" in a["low_pass"])
    note = (
        f"{images} images ({source_note(result)}), {data['image_size']} px; sampled posterior; "
        "LP removes n of the 15 anti-diagonals of 8x8 DCT blocks, of pixels and of latent cells"
    )
    return low_pass_figure(curves, gaps, title="Low-pass reconstruction: does the decoder follow a removal?", note=note)


def _low_pass_curves(result: Result) -> tuple[list[Curve], list[Curve]]:
    """PSNR with its control, and the gap."""
    curves, gaps = [], []
    for colour, autoencoder in enumerate(result["autoencoders"]):
        scores, label = autoencoder["low_pass"], autoencoder["label"]
        if "psnr" not in scores:
            continue
        rows, control = scores["rows_removed"], _array(scores["control"])
        curves.append(Curve(f"{label}: D(LP z) against LP x", rows, _array(scores["psnr"]), colour=colour))
        curves.append(Curve(f"{label}: D(z) against LP x (control)", rows, control, role="control", colour=colour))
        gaps.append(_around(rows, scores["gap"]["value"], scores["gap"]["half_width"], colour))
    return curves, gaps


def _around(x: Sequence[float], values: Sequence[float | None], half_widths: Sequence[float | None], colour: int) -> Curve:
    value, half_width = _array(values), _array(half_widths)
    return Curve("", x, value, value - half_width, value + half_width, colour=colour)


def _array(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values])
