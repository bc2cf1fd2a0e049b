"""The PHYSICAL readings of images and of latents: one for each posterior and scale, from the ring tables of a pass."""

from dataclasses import replace
from typing import Any

from torch import Tensor

from smtool.pipelines.spectrum.numbers import finite, numbers, or_reason
from smtool.pipelines.spectrum.ring_tables import ImageRings, LatentRings, RingTable, Size
from smtool.pipelines.spectrum.scores import image_reading, latent_reading, physical_delta, target
from smtool.pipelines.spectrum.units import Units, collapsed
from smtool.spectrum import HIGHEST_OF_LATENTS, PHYSICAL, Spectrum, fit_delta_spectra
from smtool.spectrum.knee import fit_knee

FEWEST_IMAGES_FOR_CHANNELS = 64


def physical_of_images(images: ImageRings, units: Units) -> dict[str, Any]:
    """The images' own power spectrum and exponent."""
    return image_reading(collapsed(images.own(PHYSICAL), units))


def physical_of_latents(
    images: ImageRings, latents: LatentRings, std: Tensor, size: Size, units: Units, *, delta: float
) -> list[dict[str, Any]]:
    """One entry for each posterior and scale; the headline is sampled and normalized, what a transformer sees.

    The headline alone has the target at the fitted delta, the knee, and every channel by itself.
    """
    at_size = collapsed(images.at(PHYSICAL, size), units)
    entries = []
    for posterior, scale in latents.readings():
        table = latents.table(posterior, PHYSICAL)
        spectrum = collapsed(table.spectrum(std if scale == "normalized" else None), units)
        entry: dict[str, Any] = {
            "posterior": posterior,
            "latents": scale,
            "headline": (posterior, scale) == (latents.headline, "normalized"),
            **latent_reading(at_size, spectrum, delta=delta),
        }
        if entry["headline"]:
            entry["fitted_target"] = _fitted_target(at_size, spectrum, entry["delta"])
            entry["knee"] = _knee(spectrum)
            entry["channels"] = _channels(table, std)
            entry["channel_deltas"] = _channel_deltas(at_size, table, units)
        entries.append(entry)
    return entries


def physical_delta_of(images: ImageRings, latents: LatentRings, std: Tensor, size: Size, units: Units) -> dict[str, Any]:
    """The headline's delta alone."""
    spectrum = latents.table(latents.headline, PHYSICAL).spectrum(std)
    return physical_delta(collapsed(images.at(PHYSICAL, size), units), collapsed(spectrum, units))


def _fitted_target(images: Spectrum, latents: Spectrum, delta: dict[str, Any]) -> dict[str, Any]:
    """The images flattened by the delta that was found: what is left there is not a matter of slope."""
    return target(images, latents, delta=delta["value"]) if "value" in delta else {"reason": delta["reason"]}


def _knee(latents: Spectrum) -> dict[str, Any]:
    """Where one power law hands over to another."""

    def fitted() -> dict[str, Any]:
        found = fit_knee(latents, highest=HIGHEST_OF_LATENTS)
        return {
            "cycles_per_side": found.frequency * min(latents.size),
            "interval": [finite(end * min(latents.size)) for end in found.interval],
            "exponent_below": found.exponent_below,
            "exponent_above": found.exponent_above,
            "slope_change": found.slope_change,
            "half_width": finite(found.slope_change_half_width),
            "is_bent": found.is_bent,
        }

    return or_reason(fitted)


def _channels(table: RingTable, std: Tensor) -> dict[str, Any]:
    """The set-averaged power of every normalized channel, (C, rings)."""
    return {"power": [numbers(channel.mean()) for channel in table.channels(std)]}


def _channel_deltas(images: Spectrum, table: RingTable, units: Units) -> dict[str, Any]:
    """delta of every channel by itself, without intervals."""
    if len(units.groups) < FEWEST_IMAGES_FOR_CHANNELS:
        return {"reason": f"a fit of single channels needs {FEWEST_IMAGES_FOR_CHANNELS} images, found {len(units.groups)}"}
    at_size = _averaged(images)
    channels = [_averaged(collapsed(channel, units)) for channel in table.channels()]
    if not all(bool((channel.power > 0).all()) for channel in channels):
        return {"reason": "a channel holds no power in some ring"}
    return or_reason(lambda: {"values": [fit_delta_spectra(at_size, channel).delta for channel in channels]})


def _averaged(spectrum: Spectrum) -> Spectrum:
    """One row, for fits without an interval."""
    return replace(spectrum, power=spectrum.mean()[None])
