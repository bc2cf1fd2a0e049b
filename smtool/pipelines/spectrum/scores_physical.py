"""The PHYSICAL readings of images and of latents: one for each posterior and scale, from the ring tables of a pass."""

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor

from smtool.pipelines.spectrum.numbers import or_reason
from smtool.pipelines.spectrum.ring_tables import ImageRings, LatentRings, PosteriorKind, Size
from smtool.pipelines.spectrum.scores import image_reading, latent_reading, physical_delta
from smtool.pipelines.spectrum.units import Units, collapsed
from smtool.spectrum import PHYSICAL, Spectrum, fit_delta_spectra

FEWEST_IMAGES_FOR_CHANNELS = 64


def physical_of_images(images: ImageRings, units: Units) -> dict[str, Any]:
    """The images' own power spectrum and exponent."""
    return image_reading(collapsed(images.own(PHYSICAL), units))


def physical_of_latents(
    images: ImageRings, latents: LatentRings, std: Tensor, size: Size, units: Units, *, delta: float
) -> list[dict[str, Any]]:
    """One entry for each posterior and scale; the headline is sampled and normalized, what a transformer sees."""
    at_size = collapsed(images.at(PHYSICAL, size), units)
    entries = []
    for posterior, scale in readings():
        table = latents.table(posterior, PHYSICAL)
        spectrum = collapsed(table.spectrum(std if scale == "normalized" else None), units)
        entry: dict[str, Any] = {
            "posterior": posterior,
            "latents": scale,
            "headline": (posterior, scale) == ("sample", "normalized"),
            **latent_reading(at_size, spectrum, delta=delta),
        }
        if entry["headline"]:
            channels = [collapsed(channel, units) for channel in table.channels()]
            entry["channel_deltas"] = _channel_deltas(at_size, channels, len(units.groups))
        entries.append(entry)
    return entries


def physical_delta_of(images: ImageRings, latents: LatentRings, std: Tensor, size: Size, units: Units) -> dict[str, Any]:
    """The headline's delta alone."""
    spectrum = latents.table("sample", PHYSICAL).spectrum(std)
    return physical_delta(collapsed(images.at(PHYSICAL, size), units), collapsed(spectrum, units))


def readings() -> list[tuple[PosteriorKind, Literal["normalized", "raw"]]]:
    return [("sample", "normalized"), ("sample", "raw"), ("mean", "normalized"), ("mean", "raw")]


def _channel_deltas(images: Spectrum, channels: Sequence[Spectrum], num_images: int) -> dict[str, Any]:
    """delta of every channel by itself, without intervals."""
    if num_images < FEWEST_IMAGES_FOR_CHANNELS:
        return {"reason": f"a fit of single channels needs {FEWEST_IMAGES_FOR_CHANNELS} images, found {num_images}"}
    return or_reason(lambda: {"values": [fit_delta_spectra(images, channel).delta for channel in channels]})
