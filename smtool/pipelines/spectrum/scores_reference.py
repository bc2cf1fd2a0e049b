"""The REFERENCE readings, in the recipe of the released code: curves over 16 bins, divergences and deltas."""

from dataclasses import replace
from typing import Any, Literal

from torch import Tensor

from smtool.pipelines.spectrum.numbers import finite, numbers
from smtool.pipelines.spectrum.ring_tables import ImageRings, LatentRings, Size
from smtool.pipelines.spectrum.units import Units, band, mean_and_half_width
from smtool.spectrum import (
    REFERENCE,
    Spectrum,
    fit_reference_delta,
    matched_gain,
    reference_divergence,
    spectral_distribution,
)

_GAINS: tuple[Literal["raw", "match"], ...] = ("raw", "match")


def reference_of_images(images: ImageRings, size: Size, units: Units, *, delta: float) -> dict[str, Any]:
    """The images' REFERENCE curve at a latent's size, and the flattened one that latents are compared with."""
    power = images.at(REFERENCE.curve, size).power
    return {"size": list(size), "curve": _shares(power, units), "target": _shares(power, units, delta=delta), "delta": delta}


def reference_of_latents(
    images: ImageRings, latents: LatentRings, std: Tensor, size: Size, units: Units, *, delta: float
) -> list[dict[str, Any]]:
    """One entry for each posterior and scale; the headline is sampled (where there is a posterior) and raw, as released."""
    at_size = images.at(REFERENCE.loss, size)
    entries = []
    for posterior, scale in sorted(latents.readings(), key=lambda reading: reading != (latents.headline, "raw")):
        spectrum = latents.table(posterior, REFERENCE.loss).spectrum(std if scale == "normalized" else None)
        channels = latents.codec.latent_channels
        entry: dict[str, Any] = {
            "posterior": posterior,
            "latents": scale,
            "headline": (posterior, scale) == (latents.headline, "raw"),
            "divergence": {gain: _divergence(at_size, spectrum, units, delta=delta, gain=gain) for gain in _GAINS},
            "delta": {gain: _reference_delta(at_size, spectrum, channels, gain=gain) for gain in _GAINS},
        }
        if scale == "raw":
            entry["curve"] = _shares(latents.table(posterior, REFERENCE.curve).spectrum().power, units)
        entries.append(entry)
    return entries


def _shares(power: Tensor, units: Units, *, delta: float = 0.0) -> dict[str, Any]:
    """Mean distribution over the 16 bins, which sums to 1, with its band."""
    mean, half_width = mean_and_half_width(units.collapse(spectral_distribution(power, REFERENCE.curve, delta=delta)))
    return {"share": numbers(mean), **band(mean, half_width)}


def _divergence(images: Spectrum, latents: Spectrum, units: Units, *, delta: float, gain: str) -> dict[str, Any]:
    """Mean KL(target || latents) with its interval, in nats; "raw" is the released loss."""
    factor: float | Tensor = 1.0
    if gain == "match":
        factor = matched_gain(images.power, latents.power, latents.count, delta=delta)
    rows = reference_divergence(images.power, latents.power, REFERENCE.loss, delta=delta, gain=factor)
    mean, half_width = mean_and_half_width(units.collapse(rows[:, None]))
    return {"value": mean.item(), "half_width": finite(half_width.item()), "delta": delta}


def _reference_delta(
    images: Spectrum, latents: Spectrum, channels: int, *, gain: Literal["raw", "match"]
) -> dict[str, Any]:
    if channels == 1:      # the KL of single rows runs away: definition sheet, section 3
        images, latents = (replace(s, power=s.mean()[None]) for s in (images, latents))
    found = fit_reference_delta(images, latents, gain=gain)
    return {"value": found.value} | ({} if found.value is not None else {"reason": found.message})
