"""From ring tables to what `smtool spectrum` reports: dictionaries, ready for JSON, of labelled numbers with their intervals.

Intervals are 95 %, jackknife with Student's t. They resample the units the images came from: images, or the few photographs whose
crops they are.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from smtool.pipelines.spectrum.low_pass_curve import ROWS_REMOVED, LowPassCurve
from smtool.pipelines.spectrum.ring_tables import ImageRings, LatentRings, PosteriorKind
from smtool.spectrum import (
    HIGHEST_OF_IMAGES,
    HIGHEST_OF_LATENTS,
    PHYSICAL,
    REFERENCE,
    Spectrum,
    fit_delta_spectra,
    fit_power_law,
    fit_reference_delta,
    matched_gain,
    physical_divergence_db,
    reference_divergence,
    spectral_distribution,
)
from smtool.spectrum.jackknife import leave_one_out, student_t_quantile

Size = tuple[int, int]
FEWEST_IMAGES_FOR_CHANNELS = 64
_GAINS: tuple[Literal["raw", "match"], ...] = ("raw", "match")


@dataclass(frozen=True)
class Units:
    """What intervals resample: groups[i] is the unit of image i; name: "image" or "photograph"."""

    name: Literal["image", "photograph"]
    groups: Sequence[str]

    def collapse(self, table: Tensor) -> Tensor:
        """Means over the images of each unit: (N, ...) -> (units, ...)."""
        order = {group: row for row, group in enumerate(dict.fromkeys(self.groups))}
        row = torch.tensor([order[group] for group in self.groups])
        total = table.new_zeros(len(order), *table.shape[1:]).index_add(0, row, table)
        return total / row.bincount().to(table).view(-1, *[1] * (table.ndim - 1))

    def first(self, count: int) -> "Units":
        """Those of the first images."""
        return Units(self.name, self.groups[:count])

    def __len__(self) -> int:
        return len(set(self.groups))


def physical_of_images(images: ImageRings, units: Units) -> dict[str, Any]:
    """The images' own power spectrum and exponent."""
    return image_reading(_collapsed(images.own(PHYSICAL), units))


def image_reading(images: Spectrum) -> dict[str, Any]:
    """Power and exponent of images at their own size, one row for each unit."""
    return _power(images) | {"slope": slope(images, highest=HIGHEST_OF_IMAGES)}


def latent_reading(images: Spectrum, latents: Spectrum, *, delta: float) -> dict[str, Any]:
    """Power, exponent and delta of latents, and their distance from the target; images at the latents' size, rows paired."""
    return {
        **_power(latents),
        "slope": slope(latents, highest=HIGHEST_OF_LATENTS),
        "delta": physical_delta(images, latents),
        "target": target(images, latents, delta=delta),
    }


def physical_of_latents(
    images: ImageRings, latents: LatentRings, std: Tensor, size: Size, units: Units, *, delta: float
) -> list[dict[str, Any]]:
    """One entry for each posterior and scale; the headline is sampled and normalized, what a transformer sees."""
    at_size = _collapsed(images.at(PHYSICAL, size), units)
    entries = []
    for posterior, scale in _readings():
        table = latents.table(posterior, PHYSICAL)
        spectrum = _collapsed(table.spectrum(std if scale == "normalized" else None), units)
        entry: dict[str, Any] = {
            "posterior": posterior,
            "latents": scale,
            "headline": (posterior, scale) == ("sample", "normalized"),
            **latent_reading(at_size, spectrum, delta=delta),
        }
        if entry["headline"]:
            channels = [_collapsed(channel, units) for channel in table.channels()]
            entry["channel_deltas"] = _channel_deltas(at_size, channels, len(units.groups))
        entries.append(entry)
    return entries


def reference_of_images(images: ImageRings, size: Size, units: Units, *, delta: float) -> dict[str, Any]:
    """The images' REFERENCE curve at a latent's size, and the flattened one that latents are compared with."""
    power = images.at(REFERENCE.curve, size).power
    return {"size": list(size), "curve": _shares(power, units), "target": _shares(power, units, delta=delta), "delta": delta}


def reference_of_latents(
    images: ImageRings, latents: LatentRings, std: Tensor, size: Size, units: Units, *, delta: float
) -> list[dict[str, Any]]:
    """One entry for each posterior and scale; the headline is sampled and raw, as released."""
    at_size = images.at(REFERENCE.loss, size)
    entries = []
    for posterior, scale in sorted(_readings(), key=lambda reading: reading != ("sample", "raw")):
        spectrum = latents.table(posterior, REFERENCE.loss).spectrum(std if scale == "normalized" else None)
        channels = latents.autoencoder.latent_channels
        entry: dict[str, Any] = {
            "posterior": posterior,
            "latents": scale,
            "headline": (posterior, scale) == ("sample", "raw"),
            "divergence": {gain: _divergence(at_size, spectrum, units, delta=delta, gain=gain) for gain in _GAINS},
            "delta": {gain: _reference_delta(at_size, spectrum, channels, gain=gain) for gain in _GAINS},
        }
        if scale == "raw":
            entry["curve"] = _shares(latents.table(posterior, REFERENCE.curve).spectrum().power, units)
        entries.append(entry)
    return entries


def low_pass_scores(curve: LowPassCurve, units: Units) -> dict[str, Any]:
    """Means over images, and the gap with its interval; the units are those of the curve's images, the first of the pass."""
    some = units.first(len(curve.gap))
    mean, half_width = _mean_and_half_width(some.collapse(curve.gap))
    return {
        "posterior": "sample",
        "convention": f"relative: blocks of 8 pixels and of {curve.block} latent cells",
        "clamped": False,
        "images": len(curve.gap),
        "units": len(some),
        "rows_removed": list(ROWS_REMOVED),
        "psnr": _numbers(some.collapse(curve.aligned).mean(0)),
        "control": _numbers(some.collapse(curve.control).mean(0)),
        "gap": {"value": _numbers(mean), "half_width": _numbers(half_width)},
    }


def slope(spectrum: Spectrum, *, highest: float) -> dict[str, Any]:
    """The calibrated exponent a of power ~ f^-a."""

    def fitted() -> dict[str, Any]:
        law = fit_power_law(spectrum, highest=highest)
        return {
            "exponent": law.exponent,
            "half_width": _finite(law.half_width),
            "steeper_than_4_5": law.steeper_than_4_5,
            "fit_range": list(law.fit_range),
            "rings": law.num_rings,
            "residual_db": law.residual_db,
            "quantiles_5_50_95": list(law.per_image_quantiles) if len(law.per_image) else None,
        }

    return _or_reason(fitted)


def physical_delta_of(images: ImageRings, latents: LatentRings, std: Tensor, size: Size, units: Units) -> dict[str, Any]:
    """The headline's delta alone."""
    spectrum = latents.table("sample", PHYSICAL).spectrum(std)
    return physical_delta(_collapsed(images.at(PHYSICAL, size), units), _collapsed(spectrum, units))


def physical_delta(images: Spectrum, latents: Spectrum) -> dict[str, Any]:
    """delta of latents against images at the latents' size, paired rows."""

    def fitted() -> dict[str, Any]:
        found = fit_delta_spectra(images, latents)
        return {
            "value": found.delta,
            "half_width": _finite(found.half_width),
            "half_width_jackknife": _finite(found.half_width_jackknife),
            "allowance": found.allowance,
            "residual_db": found.residual_db,
            "is_power_law": found.is_power_law,
            "fit_range": list(found.fit_range),
            "rings": found.num_rings,
        }

    return _or_reason(fitted)


def target(images: Spectrum, latents: Spectrum, *, delta: float) -> dict[str, Any]:
    """The images' spectrum flattened by f^delta (f in cycles per image side), and how far the latents are from it.

    power: in units of the images' own spectrum. gain_db: what brings the latents nearest to it (weights sqrt(cells), from 0.9
    cycles per frame up); residual_db: what remains, with its half-width; divergence_db: its weighted rms over the rings of a fit.
    """
    shape = (images.frequency * min(latents.size)) ** delta * _area_ratio(images)
    weight = latents.count.sqrt() * (latents.frequency >= 0.9 / min(latents.size))

    def decibel(image_power: Tensor, latent_power: Tensor) -> tuple[Tensor, Tensor]:
        ratio = 10 * torch.log10(latent_power / (shape * image_power))
        return ratio, (weight * ratio).sum(-1, keepdim=True) / weight.sum()

    ratio, gain = decibel(images.mean(), latents.mean())
    half_width = torch.full_like(ratio, math.inf)
    if (rows := len(images)) > 1:
        replicates = torch.sub(*decibel(leave_one_out(images.power), leave_one_out(latents.power)))
        variance = (rows - 1) / rows * (replicates - replicates.mean(0)).square().sum(0)
        half_width = student_t_quantile(0.975, rows - 1) * variance.sqrt()
    return {
        "delta": delta,
        "power": _numbers(shape * images.mean()),
        "gain_db": _finite(-gain.item()),
        "residual_db": _numbers(ratio - gain),
        "half_width": _numbers(half_width),
        "divergence_db": _or_reason(lambda: {"value": physical_divergence_db(images, latents, delta=delta)}),
    }


def _readings() -> list[tuple[PosteriorKind, Literal["normalized", "raw"]]]:
    return [("sample", "normalized"), ("sample", "raw"), ("mean", "normalized"), ("mean", "raw")]


def _collapsed(spectrum: Spectrum, units: Units) -> Spectrum:
    return replace(spectrum, power=units.collapse(spectrum.power))


def _power(spectrum: Spectrum) -> dict[str, Any]:
    """The set-averaged spectrum with its band."""
    mean, half_width = _mean_and_half_width(spectrum.power)
    return {
        "size": list(spectrum.size),
        "frequency": _numbers(spectrum.frequency),
        "cycles_per_side": _numbers(spectrum.frequency * min(spectrum.size)),
        "cells": [int(n) for n in spectrum.count],
        "power": _numbers(mean),
        **_band(mean, half_width),
    }


def _area_ratio(images: Spectrum) -> float:
    """From power at a latent's size back to the images' own: ideal downsampling scales it by this number's inverse."""
    return math.prod(images.source) / math.prod(images.size)


def _shares(power: Tensor, units: Units, *, delta: float = 0.0) -> dict[str, Any]:
    """Mean distribution over the 16 bins, which sums to 1, with its band."""
    mean, half_width = _mean_and_half_width(units.collapse(spectral_distribution(power, REFERENCE.curve, delta=delta)))
    return {"share": _numbers(mean), **_band(mean, half_width)}


def _band(mean: Tensor, half_width: Tensor) -> dict[str, list[float | None]]:
    """Symmetric in the logarithm, in which it is drawn; no numbers for a single unit."""
    relative = torch.where(half_width.isfinite(), half_width / mean, math.nan)
    return {"low": _numbers(mean * torch.exp(-relative)), "high": _numbers(mean * torch.exp(relative))}


def _divergence(images: Spectrum, latents: Spectrum, units: Units, *, delta: float, gain: str) -> dict[str, Any]:
    """Mean KL(target || latents) with its interval, in nats; "raw" is the released loss."""
    factor: float | Tensor = 1.0
    if gain == "match":
        factor = matched_gain(images.power, latents.power, latents.count, delta=delta)
    rows = reference_divergence(images.power, latents.power, REFERENCE.loss, delta=delta, gain=factor)
    mean, half_width = _mean_and_half_width(units.collapse(rows[:, None]))
    return {"value": mean.item(), "half_width": _finite(half_width.item()), "delta": delta}


def _reference_delta(
    images: Spectrum, latents: Spectrum, channels: int, *, gain: Literal["raw", "match"]
) -> dict[str, Any]:
    if channels == 1:      # the KL of single rows runs away: definition sheet, section 3
        images, latents = (replace(s, power=s.mean()[None]) for s in (images, latents))
    found = fit_reference_delta(images, latents, gain=gain)
    return {"value": found.value} | ({} if found.value is not None else {"reason": found.message})


def _channel_deltas(images: Spectrum, channels: Sequence[Spectrum], num_images: int) -> dict[str, Any]:
    """delta of every channel by itself, without intervals."""
    if num_images < FEWEST_IMAGES_FOR_CHANNELS:
        return {"reason": f"a fit of single channels needs {FEWEST_IMAGES_FOR_CHANNELS} images, found {num_images}"}
    return _or_reason(lambda: {"values": [fit_delta_spectra(images, channel).delta for channel in channels]})


def _mean_and_half_width(table: Tensor) -> tuple[Tensor, Tensor]:
    """(units, K) -> the means over units, and the half-widths t(n - 1) s / sqrt(n) that the jackknife gives for a mean."""
    count = len(table)
    if count < 2:
        return table.mean(0), torch.full_like(table[0], math.inf)
    return table.mean(0), student_t_quantile(0.975, count - 1) * table.std(0) / math.sqrt(count)


def _or_reason(fit: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What the fit finds, or why it cannot be made: {"reason": ...}."""
    try:
        return fit()
    except ValueError as error:
        return {"reason": str(error)}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _numbers(values: Tensor) -> list[float | None]:
    """Six significant digits, and None for what is not finite."""
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values.tolist()]
