"""Is it flattened like it should be? Sentences, table and plots of the PHYSICAL spectra."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from smtool.diffusability.sections.parts import (
    Chapter,
    Finding,
    Plot,
    Reason,
    Tone,
    array,
    banded,
    finding,
    headline,
    named,
)
from smtool.diffusability.sections.physical import (
    BrokenPowerLaw,
    ChannelDeltas,
    Delta,
    LatentPowers,
    PhysicalReading,
    Powers,
    Slope,
    Target,
)
from smtool.report.plots import Curve, Role
from smtool.report.plots.power import Gauge, flattening_figure, power_figure, readings_figure
from smtool.report.plots.power import Reading as GaugeReading
from smtool.report.tables import Table, interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DELTA_TOLERANCE = 0.4
"""The paper tried targets 0.6, 1 and 1.4 (its ablation on CelebA): 0.6 cost 0.06 of gFID, so closer than that needs no remark."""
DELTA_PRECISION = 0.1
"""The precision asked of a delta (definition sheet, section 7): readings that differ by less are not told apart."""
MOST_LINES = 24
POSTERIORS = {"sample": "sampled posterior", "mean": "mean of the posterior", "deterministic": "no posterior"}
Latents = Mapping[str, Sequence[PhysicalReading]]
"""By label; no readings where PHYSICAL was not asked for."""


def findings(readings: Sequence[PhysicalReading]) -> list[Finding]:
    """delta against the one asked for, and what the average hides."""
    if not readings:
        return []
    head = headline(readings)
    return [_flattening(head.delta, head.target), *_bend(head.knee), *_averaging(readings)]


def _flattening(delta: Delta | Reason, target: Target) -> Finding:
    if isinstance(delta, Reason):
        return finding("flattening", "note", f"How far the latents are flattened cannot be told: {delta.reason}.")
    value, half_width, asked = delta.value, delta.half_width, target.delta
    numbers = {"delta": value, "half_width": half_width, "asked": asked, "residual_db": delta.residual_db}
    text = f"delta {interval(value, half_width)}"
    if not delta.is_power_law:
        said = (f"Not a power law: the worst ring lies {delta.residual_db:.1f} dB off the fitted line. {text} (asked {asked:g}) "
                "summarises poorly; read the curve.")
        return finding("flattening", "warn", said, **numbers)
    if half_width is None:
        said = f"Cannot tell whether it is flattened as asked: {text} without an interval."
        return finding("flattening", "note", said, **numbers)
    away = None if isinstance(target.divergence_db, Reason) else target.divergence_db.value
    rest = "" if away is None else f", {away:.1f} dB rms from the target"
    tone, said = _judged(value, half_width, asked)
    sentence = f"{said}: {text}, asked {asked:g} ± {DELTA_TOLERANCE:g}{rest}."
    return finding("flattening", tone, sentence, **numbers, divergence_db=away)


def _judged(value: float, half_width: float, asked: float) -> tuple[Tone, str]:
    low, high = value - half_width, value + half_width
    if asked - DELTA_TOLERANCE <= low and high <= asked + DELTA_TOLERANCE:
        return "good", "Flattened as asked"
    if high < asked - DELTA_TOLERANCE:
        if high < 0:
            return "warn", "Steeper than the images themselves"
        return "warn", "Not flattened: a copy of the images' spectrum" if low <= 0 else "Not flattened enough"
    if low > asked + DELTA_TOLERANCE:
        return "warn", "Flattened too much: its high frequencies are too loud for the target"
    return "note", "Cannot tell whether it is flattened as asked, the interval reaches across the limit"


def _bend(law: BrokenPowerLaw | Reason | None) -> list[Finding]:
    if not isinstance(law, BrokenPowerLaw) or not law.is_bent:
        return []
    at, below, above = law.cycles_per_side, law.exponent_below, law.exponent_above
    said = (f"The slope changes at {at:.1f} cycles per side, from {below:.2f} below to {above:.2f} above "
            f"(by {interval(law.slope_change, law.half_width)}): one slope is an average of two.")
    return [finding("knee", "note", said, cycles_per_side=at, exponent_below=below, exponent_above=above)]


def _averaging(readings: Sequence[PhysicalReading]) -> list[Finding]:
    """Which choice of posterior, scale or channel moves delta by more than its precision."""
    head = headline(readings)
    if isinstance(head.delta, Reason):
        return []
    parts, numbers = [], {f"{head.posterior}_normalized": head.delta.value}
    for posterior, scale, words in (("mean", "normalized", "from posterior means"), (head.posterior, "raw", "on raw latents")):
        other = next((one.delta for one in readings if (one.posterior, one.latents) == (posterior, scale)), None)
        if isinstance(other, Delta) and abs(other.value - head.delta.value) > DELTA_PRECISION:
            parts.append(f"{other.value:.2f} {words}")
            numbers[f"{posterior}_{scale}"] = other.value
    values = _channel_deltas(head)
    if values and max(values) - min(values) > 2 * DELTA_TOLERANCE:
        parts.append(f"{min(values):.2f} to {max(values):.2f} over single channels")
        numbers |= {"lowest_channel": min(values), "highest_channel": max(values)}
    if not parts:
        return []
    said = (f"delta depends on what is averaged: {head.delta.value:.2f} as a transformer sees it (normalized), "
            f"{', '.join(parts)}.")
    return [finding("averaging", "note", said, **numbers)]


def table(images: Powers, latents: Latents, *, normalized_by: Mapping[str, str], delta: float, note: str) -> Table:
    """A row for each reading. normalized_by: the source of each autoencoder's statistics; note: about the data."""
    rows = [("images", "", _exponent(images.slope), "", "", "")]
    notes = [note, f"power ~ f^-slope; fits: {_fitted_range(images.slope)} of images"]
    if latents:
        flattened = f"images flattened by f^{delta:g}"
        notes.insert(1, f"off target: rms distance from the {flattened}, at the best gain; off line: the worst ring of the fit")
    for label, readings in latents.items():
        rows += [_cells(label, one) for one in readings]
        notes += _remarks(label, headline(readings), normalized_by[label])
    return Table("", ("PHYSICAL", "latents", "slope", "delta", "off target", "off line"), tuple(rows), "\n".join(notes))


def _cells(label: str, one: PhysicalReading) -> tuple[str, str, str, str, str, str]:
    away = "-" if isinstance(one.target.divergence_db, Reason) else f"{one.target.divergence_db.value:.1f} dB"
    delta, worst = "-", "-"
    if isinstance(one.delta, Delta):
        delta, worst = interval(one.delta.value, one.delta.half_width), f"{one.delta.residual_db:.1f} dB"
    return *named(label, one), _exponent(one.slope), delta, away, worst


def _remarks(label: str, head: PhysicalReading, normalized_by: str) -> list[str]:
    """What a reader of this autoencoder's rows must know."""
    remarks = [f"{label}: normalized by {normalized_by}"]
    if head.posterior == "deterministic":
        remarks.append(f"{label}: its encoder gives points, no posterior to sample")
    if isinstance(head.delta, Reason):
        return [*remarks, f"{label}: no fit: {head.delta.reason}"]
    remarks[0] += f"; fits: {_fitted_range(head.delta)} of latents"
    if values := _channel_deltas(head):
        remarks.append(f"{label}: delta of single channels {min(values):.2f} to {max(values):.2f}")
    if not head.delta.is_power_law:
        remarks.append(f"{label}: not a power law; delta summarises poorly")
    return remarks


def _channel_deltas(head: PhysicalReading) -> list[float]:
    return head.channel_deltas.values if isinstance(head.channel_deltas, ChannelDeltas) else []


def _exponent(slope: Slope | Reason) -> str:
    if isinstance(slope, Reason):
        return "-"
    return "> 4.5" if slope.steeper_than_4_5 else interval(slope.exponent, slope.half_width)


def _fitted_range(fit: Slope | Delta | Reason) -> str:
    return "none" if isinstance(fit, Reason) else f"{fit.fit_range[0]:.3g} to {fit.fit_range[1]:.3g} cycles per pixel"


def chapter(images: Powers, latents: Latents, rows: Table, *, note: str) -> Chapter:
    """rows: what `table` returns; note: about the data."""
    if not latents:
        alone = partial(draw_physical, images, {}, title="PHYSICAL power spectrum of images", note=note)
        return Chapter("Power spectrum", (Plot("physical", alone, *_IMAGES_WORDS),))
    return Chapter("Is it flattened like it should be?", (
        Plot("physical", partial(physical_figure, images, latents, note=note), *_PHYSICAL_WORDS), rows,
        Plot("readings", partial(readings_figures, latents), *_READINGS_WORDS),
        Plot("channels", partial(channels_figure, latents), *_CHANNELS_WORDS),
    ))


_PHYSICAL_WORDS = (
    "Power spectra of images, their flattened target and latents; below, latents over target in dB; right, a scale of delta.",
    "Latents (colours) should lie on the dashed target: the images' own spectrum (black), tilted. Below: how far they are from "
    "it; flat at 0 dB is perfect, a slope means too much or too little flattening, a bump is a band of its own. Right: delta, "
    "how many powers of frequency flatter than the images; good is inside the shaded zone, with a bar that does not leave it. "
    "Dash-dotted: the images flattened by the delta that fits; where latents leave that line, no delta describes them.",
)
_IMAGES_WORDS = (
    "Power spectrum of the images with its fitted power law.",
    "Power of natural photographs falls with a slope of about 2. A fall at the right end comes from resampling or JPEG.",
)
_READINGS_WORDS = (
    "Power spectra of each autoencoder's latents: sample and mean of the posterior, normalized and raw.",
    "The same latents read in other ways; the headline is the sampled, normalized one. Dashed: means of the posterior. Where "
    "sampling lifts the right end, the SNR of high frequencies under posterior noise falls below 1; where raw and normalized "
    "differ in slope, a few channels are louder than the rest. Good: all on one slope.",
)
_CHANNELS_WORDS = (
    "Power spectra of single channels, dashed, and of their mean.",
    "Single normalized channels (dashed) around their mean. Good: a narrow bundle. A channel far from it carries a band of its "
    "own, and the mean's delta speaks for it poorly.",
)


def physical_figure(images: Powers, latents: Latents, *, note: str) -> "Figure":
    """The main figure of the report."""
    heads = {label: headline(readings) for label, readings in latents.items()}
    posteriors = " and ".join(dict.fromkeys(POSTERIORS[head.posterior] for head in heads.values()))
    note = f"{note}\nlatents: {posteriors}, normalized, gain matched to target; fits from 0.9 cycles per side"
    return draw_physical(images, heads, title="PHYSICAL power spectra: are latents a flattened copy of images?", note=note)


def draw_physical(images: Powers, heads: Mapping[str, LatentPowers], *, title: str, note: str) -> "Figure":
    """Images alone, or with the latents of each label."""
    if not heads:
        return power_figure([*power_curves(images, {}), *_law(images)], title=title, note=note)
    residuals = [banded(head.cycles_per_side, head.target.residual_db, head.target.half_width, colour=colour)
                 for colour, head in enumerate(heads.values())]
    curves = power_curves(images, heads)
    curves += [curve for colour, head in enumerate(heads.values()) for curve in _fitted(head, colour)]
    return flattening_figure(curves, residuals, _gauge(heads), title=title, note=note)


def power_curves(images: Powers, heads: Mapping[str, LatentPowers]) -> list[Curve]:
    """The images, the widest target, and the latents at the gain that brings them nearest to it."""
    curves = [_power_curve(f"images\n{_slope(images.slope)}", images, role="image")]
    if heads:
        widest = max(heads.values(), key=lambda head: head.cycles_per_side[-1] or 0.0)
        label = f"target: images flattened by f^{widest.target.delta:g}"
        curves.append(Curve(label, _cycles(widest), array(widest.target.power), role="target"))
    for colour, (label, head) in enumerate(heads.items()):
        delta, remark = _said(head)
        said = f"{wrapped(label)}\ndelta {delta}\n{remark}"
        curves.append(_power_curve(said, head, gain_db=head.target.gain_db or 0.0, colour=colour))
    return curves


def readings_figures(latents: Latents) -> "Figure":
    """Sample and mean of the posterior, raw and normalized, a panel for each autoencoder."""
    return readings_figure({label: [
        _power_curve(f"{'point' if one.posterior == 'deterministic' else one.posterior}, {one.latents}{_delta(one)}", one,
                     colour=int(one.latents == "raw"), role="control" if one.posterior == "mean" else "latent")
        for one in readings
    ] for label, readings in latents.items()})


def channels_figure(latents: Latents) -> "Figure":
    """Every channel by itself, thin, and their mean, all normalized."""
    panels = {}
    for colour, (label, readings) in enumerate(latents.items()):
        head = headline(readings)
        rows = head.channels.power if head.channels else []
        mean = _power_curve(f"mean of {len(rows)} channels{_delta(head)}", head, colour=colour)
        panels[label] = [*_single_channels(head, np.stack([array(row) for row in rows]), colour), mean]
    return readings_figure(panels)


def _single_channels(head: PhysicalReading, powers: np.ndarray, colour: int) -> list[Curve]:
    """A line for each; of many, the middle nine tenths as a band."""
    x, values = _cycles(head), _channel_deltas(head)
    label = f"single channels: delta {min(values):.2f} to {max(values):.2f}" if values else "single channels"
    if len(powers) <= MOST_LINES:
        single = [Curve("", x, power, role="control", colour=colour) for power in powers]
        return [replace(single[0], label=label), *single[1:]]
    low, middle, high = np.nanquantile(powers, (0.05, 0.5, 0.95), axis=0)
    return [Curve(f"{label}\n(median, 5 to 95 % of channels)", x, middle, low, high, role="control", colour=colour)]


def _fitted(head: LatentPowers, colour: int) -> list[Curve]:
    """The images flattened by the delta that fits, at the gain of the latents drawn; one legend entry for all."""
    if isinstance(head.delta, Reason):
        return []
    cycles = array(head.cycles_per_side)
    weight = np.sqrt(array(head.cells)) * (cycles >= 0.9)
    tilt = (head.delta.value - head.target.delta) * np.log(cycles)
    power = array(head.target.power) * np.exp(tilt - (weight * tilt).sum() / weight.sum())
    label = "" if colour else "images flattened by the delta\nthat fits (each colour's own)"
    return [Curve(label, cycles.tolist(), power, role="fitted", colour=colour)]


def _law(images: Powers) -> list[Curve]:
    """The power law that fits the images, drawn over its range."""
    if isinstance(images.slope, Reason):
        return []
    frequency, cycles, power = array(images.frequency), array(images.cycles_per_side), array(images.power)
    low, high = images.slope.fit_range
    inside = (frequency >= low * 0.999) & (frequency <= high * 1.001)
    weight, exponent = np.sqrt(array(images.cells))[inside], images.slope.exponent
    level = (weight * (np.log(power[inside]) + exponent * np.log(cycles[inside]))).sum() / weight.sum()
    law = np.exp(level) * cycles[inside] ** -exponent
    label = f"power law f^-{exponent:.2f}\nfitted from {cycles[inside][0]:.2g} to {cycles[inside][-1]:.2g}\ncycles per side"
    return [Curve(label, cycles[inside].tolist(), law, role="target")]


def _gauge(heads: Mapping[str, LatentPowers]) -> Gauge:
    white = [head.slope.exponent + head.delta.value for head in heads.values()
             if isinstance(head.slope, Slope) and isinstance(head.delta, Delta)]
    readings = []
    for label, head in heads.items():
        found = (None, None) if isinstance(head.delta, Reason) else (head.delta.value, head.delta.half_width)
        name = label if len(label) <= 26 else f"{label[:12]}...{label[-11:]}"
        readings.append(GaugeReading(name, *_said(head), *found))
    asked = next(iter(heads.values())).target.delta
    return Gauge(readings, asked=asked, tolerance=DELTA_TOLERANCE, white=white[0] if white else None)


def _said(head: LatentPowers) -> tuple[str, str]:
    """delta, and what else belongs to the latents' line."""
    remark = _slope(head.slope)
    if not isinstance(head.target.divergence_db, Reason):
        remark += f", {head.target.divergence_db.value:.1f} dB off target"
    if isinstance(head.delta, Reason):
        return "no fit", remark
    remark = remark if head.delta.is_power_law else f"{remark}, no power law"
    return interval(head.delta.value, head.delta.half_width), remark


def _slope(slope: Slope | Reason) -> str:
    if isinstance(slope, Reason):
        return "no fit"
    return "steeper than 4.5" if slope.steeper_than_4_5 else f"slope {interval(slope.exponent, slope.half_width)}"


def _delta(one: LatentPowers) -> str:
    return "" if isinstance(one.delta, Reason) else f": delta {interval(one.delta.value, one.delta.half_width)}"


def _power_curve(label: str, one: Powers, *, gain_db: float = 0.0, role: Role = "latent", colour: int = 0) -> Curve:
    power, low, high = (10 ** (gain_db / 10) * array(values) for values in (one.power, one.low, one.high))
    return Curve(label, _cycles(one), power, low, high, role=role, colour=colour)


def _cycles(one: Powers) -> list[float]:
    return array(one.cycles_per_side).tolist()


def wrapped(name: str) -> str:
    """Long names over several lines, so that legends leave the panels their width."""
    return "\n".join(textwrap.wrap(name, 34)) or name
