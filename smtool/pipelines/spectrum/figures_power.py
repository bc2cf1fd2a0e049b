"""Power spectra of images and latents, each estimator in a figure of its own."""

import textwrap
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from smtool.pipelines.spectrum.curves import around, array
from smtool.pipelines.spectrum.tables import data_note, headline
from smtool.pipelines.spectrum.verdict_spectrum import DELTA_TOLERANCE
from smtool.report.plots import Curve, Role
from smtool.report.plots.power import Gauge, Reading, flattening_figure, power_figure, readings_figure, reference_figure
from smtool.report.tables import interval

Result = Mapping[str, Any]
Entry = Mapping[str, Any]
BINS = range(1, 17)
POINTS = {"deterministic": "point"}
MOST_LINES = 24
POSTERIORS = {"sample": "sampled posterior", "mean": "mean of the posterior", "deterministic": "no posterior"}


def physical(result: Result) -> Figure | None:
    """The default figure."""
    if "physical" not in result["images"]:
        return None
    heads = {autoencoder["label"]: headline(autoencoder["physical"]) for autoencoder in result["autoencoders"]}
    if not heads:
        return draw_physical(result["images"]["physical"], {}, title="PHYSICAL power spectrum of images", note=data_note(result))
    posteriors = " and ".join(dict.fromkeys(POSTERIORS[head["posterior"]] for head in heads.values()))
    note = f"{data_note(result)}\nlatents: {posteriors}, normalized, gain matched to target; fits from 0.9 cycles per side"
    title = "PHYSICAL power spectra: are latents a flattened copy of images?"
    return draw_physical(result["images"]["physical"], heads, title=title, note=note)


def draw_physical(images: Entry, heads: Mapping[str, Entry], *, title: str, note: str) -> Figure:
    """images: an `image_reading`; heads: a `latent_reading` for each label."""
    if not heads:
        return power_figure([*power_curves(images, {}), *_law(images)], title=title, note=note)
    residuals = [
        around(head["cycles_per_side"], head["target"]["residual_db"], head["target"]["half_width"], colour=colour)
        for colour, head in enumerate(heads.values())
    ]
    curves = power_curves(images, heads)
    curves += [curve for colour, head in enumerate(heads.values()) for curve in _fitted(head, colour)]
    return flattening_figure(curves, residuals, _gauge(heads), title=title, note=note)


def power_curves(images: Entry, heads: Mapping[str, Entry]) -> list[Curve]:
    """The images, the widest target, and the latents at the gain that brings them nearest to it."""
    curves = [_power_curve(f"images\n{_slope(images['slope'])}", images, role="image")]
    if heads:
        curves.append(_target(max(heads.values(), key=lambda head: head["cycles_per_side"][-1])))
    for colour, (label, head) in enumerate(heads.items()):
        gain = head["target"]["gain_db"] or 0.0
        curves.append(_power_curve(_latent_label(label, head), head, gain_db=gain, colour=colour))
    return curves


def readings(result: Result) -> Figure | None:
    """Sample and mean of the posterior, raw and normalized: what the headline is one of."""
    panels = {}
    for autoencoder in _with_power(result):
        panels[autoencoder["label"]] = [
            _power_curve(f"{POINTS.get(entry['posterior'], entry['posterior'])}, {entry['latents']}{_delta(entry)}", entry,
                         colour=int(entry["latents"] == "raw"), role="control" if entry["posterior"] == "mean" else "latent")
            for entry in autoencoder["physical"]
        ]
    return readings_figure(panels) if panels else None


def channels(result: Result) -> Figure | None:
    """Every channel by itself, thin, and their mean, all normalized."""
    panels = {}
    for colour, autoencoder in enumerate(_with_power(result)):
        head = headline(autoencoder["physical"])
        rows = (head.get("channels") or {}).get("power")
        if rows:
            mean = _power_curve(f"mean of {len(rows)} channels{_delta(head)}", head, colour=colour)
            panels[autoencoder["label"]] = [*_single_channels(head, rows, colour), mean]
    return readings_figure(panels) if panels else None


def _single_channels(head: Entry, rows: list[list[float | None]], colour: int) -> list[Curve]:
    """A line for each; of many, the middle nine tenths as a band."""
    x, table = head["cycles_per_side"], np.stack([array(power) for power in rows])
    if len(rows) <= MOST_LINES:
        single = [Curve("", x, power, role="control", colour=colour) for power in table]
        return [replace(single[0], label=_channel_label(head)), *single[1:]]
    low, middle, high = np.nanquantile(table, (0.05, 0.5, 0.95), axis=0)
    label = f"{_channel_label(head)}\n(median, 5 to 95 % of channels)"
    return [Curve(label, x, middle, low, high, role="control", colour=colour)]


def _channel_label(head: Entry) -> str:
    values = (head.get("channel_deltas") or {}).get("values")
    return f"single channels: delta {min(values):.2f} to {max(values):.2f}" if values else "single channels"


def _with_power(result: Result) -> list[Entry]:
    return [autoencoder for autoencoder in result["autoencoders"] if autoencoder["physical"]]


def reference(result: Result) -> Figure | None:
    """The curves that the paper's figures draw, with those it published."""
    if "reference" not in result["images"]:
        return None
    curves, ratios, targets = [], [], {}
    for part in result["images"]["reference"]:
        height, width = part["size"]
        curves.append(_share_curve(f"images at {height}x{width}", part["curve"], role="image"))
        if result["autoencoders"]:
            targets[height, width] = array(part["target"]["share"])
            label = f"target at {height}x{width}, delta {part['delta']:g}"
            curves.append(Curve(label, BINS, targets[height, width], role="target"))
    for colour, autoencoder in enumerate(result["autoencoders"]):
        head = headline(autoencoder["reference"])
        curves.append(_share_curve(_reference_label(autoencoder["label"], head), head["curve"], colour=colour))
        share = array(head["curve"]["share"])
        ratios.append(Curve("", BINS, share / targets[tuple(autoencoder["latent_size"])], colour=colour))
    for colour, published in enumerate(result["published"], start=len(result["autoencoders"])):
        curves.append(Curve(published["label"], BINS, published["share"], role="published", colour=colour))
    latents = "raw latents, KL without DC; " if result["autoencoders"] else ""
    note = f"{data_note(result)}\nrecipe of the released code: {latents}curves with DC and log1p"
    return reference_figure(curves, ratios, title="REFERENCE spectra, as the paper's figures draw them", note=note)


def _reference_label(name: str, head: Entry) -> str:
    released, matched = (interval(head["divergence"][gain]["value"], head["divergence"][gain]["half_width"], digits=3)
                         for gain in ("raw", "match"))
    best = ", ".join(f"{words} {'none' if part['value'] is None else format(part['value'], '.2f')}"
                     for words, part in zip(("as released", "matched"), head["delta"].values(), strict=True))
    return f"{_wrapped(name)}\nKL as released {released}\npower-matched {matched}\nbest delta: {best}"


def _target(head: Entry) -> Curve:
    label = f"target: images flattened by f^{head['target']['delta']:g}"
    return Curve(label, head["cycles_per_side"], array(head["target"]["power"]), role="target")


def _fitted(head: Entry, colour: int) -> list[Curve]:
    """The images flattened by the delta that fits, at the gain of the latents drawn; one legend entry for all."""
    if "value" not in head["delta"]:
        return []
    cycles, weight = array(head["cycles_per_side"]), np.sqrt(array(head["cells"]))
    weight = weight * (cycles >= 0.9)
    tilt = (head["delta"]["value"] - head["target"]["delta"]) * np.log(cycles)
    power = array(head["target"]["power"]) * np.exp(tilt - (weight * tilt).sum() / weight.sum())
    return [Curve("" if colour else "images flattened by the delta\nthat fits (each colour's own)", cycles.tolist(), power,
                  role="fitted", colour=colour)]


def _law(images: Entry) -> list[Curve]:
    """The power law that fits the images, drawn over its range."""
    if "exponent" not in images["slope"]:
        return []
    frequency, cycles, power = (array(images[key]) for key in ("frequency", "cycles_per_side", "power"))
    low, high = images["slope"]["fit_range"]
    inside = (frequency >= low * 0.999) & (frequency <= high * 1.001)
    weight, exponent = np.sqrt(array(images["cells"]))[inside], images["slope"]["exponent"]
    level = (weight * (np.log(power[inside]) + exponent * np.log(cycles[inside]))).sum() / weight.sum()
    law = np.exp(level) * cycles[inside] ** -exponent
    label = f"power law f^-{exponent:.2f}\nfitted from {cycles[inside][0]:.2g} to {cycles[inside][-1]:.2g}\ncycles per side"
    return [Curve(label, cycles[inside].tolist(), law, role="target")]


def _gauge(heads: Mapping[str, Entry]) -> Gauge:
    white = [head["slope"]["exponent"] + head["delta"]["value"] for head in heads.values()
             if "exponent" in head["slope"] and "value" in head["delta"]]
    return Gauge(
        [Reading(_short(label), *_said(head), head["delta"].get("value"), head["delta"].get("half_width"))
         for label, head in heads.items()],
        asked=next(iter(heads.values()))["target"]["delta"],
        tolerance=DELTA_TOLERANCE,
        white=white[0] if white else None,
    )


def _said(head: Entry) -> tuple[str, str]:
    """delta, and what else belongs to the latents' line."""
    delta, divergence = head["delta"], head["target"]["divergence_db"]
    remark = _slope(head["slope"])
    if "value" in divergence:
        remark += f", {divergence['value']:.1f} dB off target"
    if "value" not in delta:
        return "no fit", remark
    return interval(delta["value"], delta["half_width"]), remark if delta["is_power_law"] else f"{remark}, no power law"


def _latent_label(name: str, head: Entry) -> str:
    delta, remark = _said(head)
    return f"{_wrapped(name)}\ndelta {delta}\n{remark}"


def _slope(slope: Entry) -> str:
    if "reason" in slope:
        return "no fit"
    return "steeper than 4.5" if slope["steeper_than_4_5"] else f"slope {interval(slope['exponent'], slope['half_width'])}"


def _delta(entry: Entry) -> str:
    delta = entry["delta"]
    return f": delta {interval(delta['value'], delta['half_width'])}" if "value" in delta else ""


def _power_curve(label: str, entry: Entry, *, gain_db: float = 0.0, role: Role = "latent", colour: int = 0) -> Curve:
    power, low, high = (10 ** (gain_db / 10) * array(entry[key]) for key in ("power", "low", "high"))
    return Curve(label, entry["cycles_per_side"], power, low, high, role=role, colour=colour)


def _share_curve(label: str, entry: Entry, *, role: Role = "latent", colour: int = 0) -> Curve:
    share, low, high = (array(entry[key]) for key in ("share", "low", "high"))
    return Curve(label, BINS, share, low, high, role=role, colour=colour)


def _wrapped(name: str) -> str:
    """Long names over several lines, so that legends leave the panels their width."""
    return "\n".join(textwrap.wrap(name, 34)) or name


def _short(name: str) -> str:
    return name if len(name) <= 26 else f"{name[:12]}...{name[-11:]}"
