"""Flattening: sentences, table and plots about the PHYSICAL spectra of latents and their distance from the target."""

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
"""Largest accepted distance of delta from the target. In the paper's ablation of delta on CelebA (0.6, 1 and 1.4), 0.6 is worse
than 1 by only 0.06 gFID."""
DELTA_PRECISION = 0.1
"""Readings whose deltas differ by less are treated as equal; a pass with a budget measures delta to this half-width
(spectrum.md#cost-and-intervals)."""
MOST_LINES = 24
POSTERIORS = {"sample": "sampled posterior", "mean": "mean of the posterior", "deterministic": "no posterior"}
Latents = Mapping[str, Sequence[PhysicalReading]]
"""Readings by label of the autoencoder; empty where PHYSICAL was not requested."""


def findings(readings: Sequence[PhysicalReading]) -> list[Finding]:
    """Findings on delta against the target, on a knee of the power law, and on how delta depends on the reading."""
    if not readings:
        return []
    head = headline(readings)
    return [_flattening(head.delta, head.target), *_bend(head.knee), *_averaging(readings)]


def _flattening(delta: Delta | Reason, target: Target) -> Finding:
    if isinstance(delta, Reason):
        return finding("flattening", "note", f"The flattening could not be measured: {delta.reason}.")
    value, half_width, asked = delta.value, delta.half_width, target.delta
    numbers = {"delta": value, "half_width": half_width, "asked": asked, "residual_db": delta.residual_db}
    text = f"delta {interval(value, half_width)}"
    if not delta.is_power_law:
        said = (f"Not a power law: one ring lies {delta.residual_db:.1f} dB from the fitted line, so {text} (target {asked:g}) "
                "describes these latents poorly; read the curve instead.")
        return finding("flattening", "warn", said, **numbers)
    if half_width is None:
        said = f"Flattening undecided: {text} has no interval (target {asked:g}); measure more images."
        return finding("flattening", "note", said, **numbers)
    away = None if isinstance(target.divergence_db, Reason) else target.divergence_db.value
    rest = "" if away is None else f", {away:.1f} dB rms from the target"
    tone, said, meaning = _judged(value, half_width, asked)
    sentence = f"{said}: {text}, target {asked:g} ± {DELTA_TOLERANCE:g}{rest}; {meaning}."
    return finding("flattening", tone, sentence, **numbers, divergence_db=away)


def _judged(value: float, half_width: float, asked: float) -> tuple[Tone, str, str]:
    """Tone, judgement, and what it means for a diffusion model."""
    low, high = value - half_width, value + half_width
    if asked - DELTA_TOLERANCE <= low and high <= asked + DELTA_TOLERANCE:
        return "good", "Flattened as the target asks", "a diffusion model sees the power spectrum that ESM aims for"
    if high < asked - DELTA_TOLERANCE:
        weak = "high frequencies have too little power, and diffusion noise hides them early"
        if high < 0:
            return "warn", "Steeper than the images' spectrum", weak
        return "warn", "Not flattened, a copy of the images' spectrum" if low <= 0 else "Not flattened enough", weak
    if low > asked + DELTA_TOLERANCE:
        strong = "high frequencies have too much power, and more of the diffusion loss lies in fine detail"
        return "warn", "Flattened too much", strong
    return "note", "Flattening undecided", "the interval crosses the limit, so measure more images"


def _bend(law: BrokenPowerLaw | Reason | None) -> list[Finding]:
    if not isinstance(law, BrokenPowerLaw) or not law.is_bent:
        return []
    at, below, above = law.cycles_per_side, law.exponent_below, law.exponent_above
    said = (f"The slope changes at {at:.1f} cycles per side, from {below:.2f} below to {above:.2f} above "
            f"(by {interval(law.slope_change, law.half_width)}): a single slope is an average of the two.")
    return [finding("knee", "note", said, cycles_per_side=at, exponent_below=below, exponent_above=above)]


def _averaging(readings: Sequence[PhysicalReading]) -> list[Finding]:
    """Choices of posterior, scale or channel that change delta by more than its precision."""
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
    said = (f"delta depends on how the latents are read: {head.delta.value:.2f} normalized, as a transformer sees them, "
            f"{', '.join(parts)}; compare deltas of the same reading only.")
    return [finding("averaging", "note", said, **numbers)]


def table(images: Powers, latents: Latents, *, normalized_by: Mapping[str, str], delta: float, note: str) -> Table:
    """One row per reading. normalized_by: the source of each autoencoder's statistics; note: about the data."""
    rows = [("images", "", _exponent(images.slope), "", "", "")]
    notes = [note, f"power ~ f^-slope; fitted range of images: {_fitted_range(images.slope)}"]
    if latents:
        flattened = f"images flattened by f^{delta:g}"
        notes.insert(1, f"to target: rms distance from the {flattened}, at the best gain; to line: largest distance of a ring "
                        "from the fitted line")
    for label, readings in latents.items():
        rows += [_cells(label, one) for one in readings]
        notes += _remarks(label, headline(readings), normalized_by[label])
    return Table("", ("PHYSICAL", "latents", "slope", "delta", "to target", "to line"), tuple(rows), "\n".join(notes))


def _cells(label: str, one: PhysicalReading) -> tuple[str, str, str, str, str, str]:
    away = "-" if isinstance(one.target.divergence_db, Reason) else f"{one.target.divergence_db.value:.1f} dB"
    delta, worst = "-", "-"
    if isinstance(one.delta, Delta):
        delta, worst = interval(one.delta.value, one.delta.half_width), f"{one.delta.residual_db:.1f} dB"
    return *named(label, one), _exponent(one.slope), delta, away, worst


def _remarks(label: str, head: PhysicalReading, normalized_by: str) -> list[str]:
    """Notes on one autoencoder's rows."""
    remarks = [f"{label}: normalized by {normalized_by}"]
    if head.posterior == "deterministic":
        remarks.append(f"{label}: deterministic encoder (point), no posterior to sample")
    if isinstance(head.delta, Reason):
        return [*remarks, f"{label}: no fit: {head.delta.reason}"]
    remarks[0] += f"; fitted range of latents: {_fitted_range(head.delta)}"
    if values := _channel_deltas(head):
        remarks.append(f"{label}: delta of single channels {min(values):.2f} to {max(values):.2f}")
    if not head.delta.is_power_law:
        remarks.append(f"{label}: not a power law, so delta describes it poorly")
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
    """The chapter on flattening. rows: the table from `table`; note: about the data."""
    if not latents:
        alone = partial(draw_physical, images, {}, title="PHYSICAL power spectrum of images", note=note)
        return Chapter("Power spectrum", (Plot("physical", alone, *_IMAGES_WORDS),))
    return Chapter("Is the spectrum flattened as the target asks?", (
        Plot("physical", partial(physical_figure, images, latents, note=note), *_PHYSICAL_WORDS), rows,
        Plot("readings", partial(readings_figures, latents), *_READINGS_WORDS),
        Plot("channels", partial(channels_figure, latents), *_CHANNELS_WORDS),
    ))


_PHYSICAL_WORDS = (
    "Power spectra of images, their flattened target and latents; below, latents over target in dB; right, a scale of delta.",
    "Latents (colours) should lie on the dashed target: the images' spectrum (black), flattened by f^delta. Below: their "
    "distance from the target; 0 dB everywhere is ideal, a slope means too much or too little flattening, a bump means that one "
    "band has too much power. Right: delta, the exponent by which latents are flatter than the images; good is an interval "
    "inside the shaded zone. Dash-dotted: the images flattened by the fitted delta; where latents leave this line, no delta "
    "describes them.",
)
_IMAGES_WORDS = (
    "Power spectrum of the images with its fitted power law.",
    "The power of natural photographs falls with a slope of about 2. A steeper fall at the right end comes from resampling or "
    "JPEG.",
)
_READINGS_WORDS = (
    "Power spectra of each autoencoder's latents: sample and mean of the posterior, normalized and raw.",
    "The same latents in all readings; the verdict uses the sampled, normalized one. Dashed: means of the posterior. Where "
    "sampling raises the right end, posterior noise exceeds the high frequencies there (SNR below 1). Where raw and normalized "
    "latents differ in slope, a few channels have much more power than the rest. Good: all lines have the same slope.",
)
_CHANNELS_WORDS = (
    "Power spectra of single channels, dashed, and of their mean.",
    "Single normalized channels (dashed) and their mean. Good: all channels are close to the mean. The mean's delta does not "
    "describe a channel far from it, whose content lies at other frequencies.",
)


def physical_figure(images: Powers, latents: Latents, *, note: str) -> "Figure":
    """The main figure of the report: latents against the flattened target, their distance, and delta."""
    heads = {label: headline(readings) for label, readings in latents.items()}
    posteriors = " and ".join(dict.fromkeys(POSTERIORS[head.posterior] for head in heads.values()))
    note = f"{note}\nlatents: {posteriors}, normalized, gain matched to target; fits from 0.9 cycles per side"
    return draw_physical(images, heads, title="PHYSICAL power spectra: are latents a flattened copy of images?", note=note)


def draw_physical(images: Powers, heads: Mapping[str, LatentPowers], *, title: str, note: str) -> "Figure":
    """Spectra of images alone, or with the latents of each label."""
    if not heads:
        return power_figure([*power_curves(images, {}), *_law(images)], title=title, note=note)
    residuals = [banded(head.cycles_per_side, head.target.residual_db, head.target.half_width, colour=colour)
                 for colour, head in enumerate(heads.values())]
    curves = power_curves(images, heads)
    curves += [curve for colour, head in enumerate(heads.values()) for curve in _fitted(head, colour)]
    return flattening_figure(curves, residuals, _gauge(heads), title=title, note=note)


def power_curves(images: Powers, heads: Mapping[str, LatentPowers]) -> list[Curve]:
    """Curves of the images, of the target with the widest range, and of the latents at the gain nearest to the target."""
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
    """Samples and means of the posterior, raw and normalized, one panel per autoencoder."""
    return readings_figure({label: [
        _power_curve(f"{'point' if one.posterior == 'deterministic' else one.posterior}, {one.latents}{_delta(one)}", one,
                     colour=int(one.latents == "raw"), role="control" if one.posterior == "mean" else "latent")
        for one in readings
    ] for label, readings in latents.items()})


def channels_figure(latents: Latents) -> "Figure":
    """Spectra of all normalized channels and of their mean, one panel per autoencoder."""
    panels = {}
    for colour, (label, readings) in enumerate(latents.items()):
        head = headline(readings)
        rows = head.channels.power if head.channels else []
        mean = _power_curve(f"mean of {len(rows)} channels{_delta(head)}", head, colour=colour)
        panels[label] = [*_single_channels(head, np.stack([array(row) for row in rows]), colour), mean]
    return readings_figure(panels)


def _single_channels(head: PhysicalReading, powers: np.ndarray, colour: int) -> list[Curve]:
    """One line per channel; for more than MOST_LINES channels, their median and a band from 5 to 95 %."""
    x, values = _cycles(head), _channel_deltas(head)
    label = f"single channels: delta {min(values):.2f} to {max(values):.2f}" if values else "single channels"
    if len(powers) <= MOST_LINES:
        single = [Curve("", x, power, role="control", colour=colour) for power in powers]
        return [replace(single[0], label=label), *single[1:]]
    low, middle, high = np.nanquantile(powers, (0.05, 0.5, 0.95), axis=0)
    return [Curve(f"{label}\n(median, 5 to 95 % of channels)", x, middle, low, high, role="control", colour=colour)]


def _fitted(head: LatentPowers, colour: int) -> list[Curve]:
    """The images flattened by the fitted delta, at the gain of the drawn latents; one legend entry for all colours."""
    if isinstance(head.delta, Reason):
        return []
    cycles = array(head.cycles_per_side)
    weight = np.sqrt(array(head.cells)) * (cycles >= 0.9)
    tilt = (head.delta.value - head.target.delta) * np.log(cycles)
    power = array(head.target.power) * np.exp(tilt - (weight * tilt).sum() / weight.sum())
    label = "" if colour else "images flattened by the\nfitted delta of each colour"
    return [Curve(label, cycles.tolist(), power, role="fitted", colour=colour)]


def _law(images: Powers) -> list[Curve]:
    """The power law fitted to the images, drawn over the fitted range."""
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
    """delta as text, and a remark with slope and distance from the target."""
    remark = _slope(head.slope)
    if not isinstance(head.target.divergence_db, Reason):
        remark += f", {head.target.divergence_db.value:.1f} dB to target"
    if isinstance(head.delta, Reason):
        return "no fit", remark
    remark = remark if head.delta.is_power_law else f"{remark}, not a power law"
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
    """The name wrapped over several lines, so that legends do not take width from the panels."""
    return "\n".join(textwrap.wrap(name, 34)) or name
