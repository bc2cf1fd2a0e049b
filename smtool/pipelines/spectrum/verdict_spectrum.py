"""Is it flattened like it should be, and what does that mean to a diffusion model?"""

from collections.abc import Mapping
from typing import Any

from smtool.pipelines.spectrum.findings import finding
from smtool.pipelines.spectrum.tables import headline
from smtool.report.tables import interval

DELTA_TOLERANCE = 0.4
"""The paper tried targets 0.6, 1 and 1.4 (its ablation on CelebA): 0.6 cost 0.06 of gFID, so closer than that needs no remark."""
DELTA_PRECISION = 0.1
"""What a delta is wanted to (definition sheet, section 7): readings that differ by less are not told apart."""
LOUDNESS_RATIO = 2.0
"""A released KL more than twice the power-matched one owes most of itself to the latents' loudness, not to their slope."""
DAMPED = 0.9
"""A last step that returns less than this share of a band's variance takes half a decibel from it."""

Entry = Mapping[str, Any]
Findings = list[dict[str, Any]]


def flattening_findings(autoencoder: Entry) -> Findings:
    """PHYSICAL delta against the one asked for; what the average hides; the REFERENCE divergence."""
    found: Findings = []
    if autoencoder.get("physical"):
        found.append(_flattening(headline(autoencoder["physical"])))
        found += _knee(headline(autoencoder["physical"]).get("knee") or {})
        found += _averaging(autoencoder["physical"])
    if autoencoder.get("reference"):
        found.append(_reference(headline(autoencoder["reference"])))
    return found


def _flattening(head: Entry) -> dict[str, Any]:
    delta, asked = head["delta"], head["target"]["delta"]
    if "reason" in delta:
        return finding("flattening", "note", f"How far the latents are flattened cannot be told: {delta['reason']}.")
    value, half_width = delta["value"], delta["half_width"]
    numbers = {"delta": value, "half_width": half_width, "asked": asked, "residual_db": delta["residual_db"]}
    text = f"delta {interval(value, half_width)}"
    if not delta["is_power_law"]:
        return finding(
            "flattening", "warn",
            f"Not a power law: the worst ring lies {delta['residual_db']:.1f} dB off the fitted line. {text} (asked {asked:g}) "
            "summarises poorly; read the curve.", **numbers,
        )
    if half_width is None:
        said = f"Cannot tell whether it is flattened as asked: {text} without an interval."
        return finding("flattening", "note", said, **numbers)
    away = head["target"]["divergence_db"].get("value")
    rest = "" if away is None else f", {away:.1f} dB rms from the target"
    tone, said = _judged(value, half_width, asked)
    sentence = f"{said}: {text}, asked {asked:g} ± {DELTA_TOLERANCE:g}{rest}."
    return finding("flattening", tone, sentence, **numbers, divergence_db=away)


def _judged(value: float, half_width: float, asked: float) -> tuple[Any, str]:
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


def _knee(knee: Entry) -> Findings:
    if not knee.get("is_bent"):
        return []
    at, below, above = knee["cycles_per_side"], knee["exponent_below"], knee["exponent_above"]
    said = (f"The slope changes at {at:.1f} cycles per side, from {below:.2f} below to {above:.2f} above "
            f"(by {interval(knee['slope_change'], knee['half_width'])}): one slope is an average of two.")
    return [finding("knee", "note", said, cycles_per_side=at, exponent_below=below, exponent_above=above)]


def _averaging(entries: list[Entry]) -> Findings:
    """Which choice of posterior, scale or channel moves delta by more than its precision."""
    deltas = {(e["posterior"], e["latents"]): e["delta"].get("value") for e in entries}
    posterior = headline(entries)["posterior"]
    head = deltas[posterior, "normalized"]
    if head is None:
        return []
    parts, numbers = [], {f"{posterior}_normalized": head}
    for key, words in ((("mean", "normalized"), "from posterior means"), ((posterior, "raw"), "on raw latents")):
        other = deltas.get(key)
        if other is not None and abs(other - head) > DELTA_PRECISION:
            parts.append(f"{other:.2f} {words}")
            numbers["_".join(key)] = other
    values = headline(entries).get("channel_deltas", {}).get("values") or []
    if values and max(values) - min(values) > 2 * DELTA_TOLERANCE:
        parts.append(f"{min(values):.2f} to {max(values):.2f} over single channels")
        numbers |= {"lowest_channel": min(values), "highest_channel": max(values)}
    if not parts:
        return []
    said = f"delta depends on what is averaged: {head:.2f} as a transformer sees it (normalized), {', '.join(parts)}."
    return [finding("averaging", "note", said, **numbers)]


def _reference(head: Entry) -> dict[str, Any]:
    raw, matched = head["divergence"]["raw"], head["divergence"]["match"]
    numbers = {"raw": raw["value"], "raw_half_width": raw["half_width"], "matched": matched["value"],
               "matched_half_width": matched["half_width"]}
    released, scaled = (interval(kl["value"], kl["half_width"], digits=3) for kl in (raw, matched))
    said = f"In the paper's terms (REFERENCE, raw latents) the KL to the target is {released} nats, {scaled} with power matched"
    if raw["value"] > LOUDNESS_RATIO * matched["value"]:
        said += "; most of it is loudness, not slope"
    return finding("reference", "note", f"{said}. White latents alone cost 0.02 to 0.04.", **numbers)


def lens_findings(autoencoder: Entry) -> Findings:
    """When bands drown in noise, where the loss floor lies, what a time shift can do, and what samplers damp."""
    lens = autoencoder.get("lens")
    if not lens or "reason" in lens:
        return []
    return [_crossing(lens), *_shift(lens.get("shift") or {}), *_damping(lens)]


def _crossing(lens: Entry) -> dict[str, Any]:
    cycles, crossing = lens["cycles_per_side"], lens["crossing"]
    upper = sum(share for f, share in zip(cycles, lens["floor_share"], strict=True) if f > cycles[-1] / 2)
    return finding(
        "noise", "note",
        f"On the way to noise the highest frequencies drown at t = {crossing[-1]:.2f}, the lowest at t = {crossing[0]:.2f}; "
        f"the upper half of the frequencies holds {100 * upper:.0f} % of the loss floor that even a perfect network keeps.",
        first=crossing[0], last=crossing[-1], upper_half_share=upper,
    )


def _shift(shift: Entry) -> Findings:
    if "by_cells" not in shift:
        return []
    cells, energy, reference = shift["by_cells"], shift["by_energy"], shift["reference"]
    numbers = {"by_cells": cells, "by_energy": energy, "spread": shift["spread"]}
    if shift["cannot_change"]:
        said = (f"A shift cannot change this: to match {reference}, half of the cells ask for a time shift of {cells:.2f}, "
                f"half of the energy for {energy:.2f}; the shapes differ.")
    else:
        said = (f"A time shift of {cells:.2f} (by cells) to {energy:.2f} (by energy) would give it the signal-to-noise of "
                f"{reference}.")
    return [finding("shift", "note", said, **numbers)]


def _damping(lens: Entry) -> Findings:
    """The worst of the samplers looked at, if any takes much from any band."""
    found = []
    for one in lens.get("damping") or []:
        factors = [1.0 if factor is None else factor for factor in one["factor"]]
        worst = min(range(len(factors)), key=lambda ring: factors[ring])
        found.append((factors[worst], lens["cycles_per_side"][worst], one))
    if not found:
        return []
    factor, cycles, one = min(found, key=lambda item: item[0])
    if factor >= DAMPED:
        return []
    said = (f"The last step of {one['sampler']} (from t = {one['last_t']:g}) returns only {100 * factor:.0f} % of the variance "
            f"at {cycles:.3g} cycles per side.")
    return [finding("sampler", "warn", said, factor=factor, cycles_per_side=cycles)]
