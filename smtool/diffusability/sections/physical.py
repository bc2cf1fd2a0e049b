"""PHYSICAL power spectra of images and of latents: power by ring, slope, delta, and the distance from a flattened copy."""

import math

import torch
from torch import Tensor

from smtool.config import Config
from smtool.diffusability.inputs.accumulators import ImageRings, LatentRings
from smtool.diffusability.inputs.subjects import Size
from smtool.diffusability.sections.parts import Matrix, Number, Reading, Reason, Row, numbers, or_reason
from smtool.spectrum import (
    HIGHEST_OF_IMAGES,
    HIGHEST_OF_LATENTS,
    PHYSICAL,
    Spectrum,
    fit_broken_power_law,
    fit_delta_spectra,
    fit_power_law,
    physical_divergence_db,
)
from smtool.spectrum.jackknife import jackknife_half_widths
from smtool.spectrum.ring_table import RingTable
from smtool.spectrum.units import Units, averaged, log_band, mean_and_half_width

FEWEST_IMAGES_FOR_CHANNELS = 64


class Slope(Config):
    """Calibrated exponent a of power ~ f^-a (spectrum.md#power-law-fit).

    fit_range: in cycles per pixel of the grid; rings: in that range; residual_db: largest distance of a ring from the line;
    quantiles_5_50_95: of the exponents of single images.
    """

    exponent: float
    half_width: Number
    steeper_than_4_5: bool
    fit_range: tuple[float, float]
    rings: int
    residual_db: float
    quantiles_5_50_95: list[float] | None


class Powers(Config):
    """Set-averaged power by ring with its 95 % band, from low to high; frequency in cycles per pixel of the grid `size`."""

    size: Size
    frequency: Row
    cycles_per_side: Row
    cells: list[int]
    power: Row
    low: Row
    high: Row
    slope: Slope | Reason


class Delta(Config):
    """delta: the exponent by which latents are flatter than their images (spectrum.md#delta).

    half_width = half_width_jackknife + allowance, the latter for the bias of the method at small grids; residual_db: largest
    distance of a ring from the fitted line.
    """

    value: float
    half_width: Number
    half_width_jackknife: Number
    allowance: float
    residual_db: float
    is_power_law: bool
    fit_range: tuple[float, float]
    rings: int


class Decibel(Config):
    value: float


class Target(Config):
    """The target, images flattened by f^delta (f in cycles per image side), and the distance of the latents from it.

    power: of the target, in units of the images' own spectrum. gain_db: the gain that brings the latents nearest to the target
    (weights sqrt(cells), from 0.9 cycles per side up). residual_db: the remaining distance by ring, with its half-width.
    divergence_db: its weighted rms over the fitted rings.
    """

    delta: float
    power: Row
    gain_db: Number
    residual_db: Row
    half_width: Row
    divergence_db: Decibel | Reason


class BrokenPowerLaw(Config):
    """Fit of two power laws that meet at a knee. cycles_per_side: the knee, with its interval; half_width: of slope_change;
    is_bent: whether the interval of slope_change excludes 0."""

    cycles_per_side: float
    interval: list[Number]
    exponent_below: float
    exponent_above: float
    slope_change: float
    half_width: Number
    is_bent: bool


class ChannelPowers(Config):
    """Power of every normalized channel: one row of rings per channel."""

    power: Matrix


class ChannelDeltas(Config):
    """delta of every single channel, without intervals."""

    values: list[float]


class LatentPowers(Powers):
    delta: Delta | Reason
    target: Target


class PhysicalReading(Reading, LatentPowers):
    """Latents of one posterior kind and scale. Only the headline, the latents that a transformer sees, has the last four parts.

    fitted_target: images flattened by the fitted delta, so that its residual is not due to the slope.
    """

    fitted_target: Target | Reason | None = None
    knee: BrokenPowerLaw | Reason | None = None
    channels: ChannelPowers | None = None
    channel_deltas: ChannelDeltas | Reason | None = None


def measure_images(images: ImageRings, units: Units) -> Powers:
    """Power spectrum and exponent of the images at their own size."""
    return image_powers(units.collapsed(images.own(PHYSICAL)))


def measure(
    images: ImageRings, latents: LatentRings, std: Tensor, size: Size, units: Units, *, delta: float
) -> list[PhysicalReading]:
    """One reading per posterior kind and scale; the headline is sampled and normalized.

    std: of the latents' normalization; size: of the latents; delta: of the target.
    """
    at_size = units.collapsed(images.at(PHYSICAL, size))
    readings = []
    for posterior, scale in latents.readings():
        table = latents.table(posterior, PHYSICAL, scale)
        spectrum = units.collapsed(table.spectrum(std if scale == "normalized" else None))
        common = dict(latent_powers(at_size, spectrum, delta=delta)) | {"posterior": posterior, "latents": scale}
        if (posterior, scale) != (latents.headline, "normalized"):
            readings.append(PhysicalReading(**common, headline=False))
            continue
        found = physical_delta(at_size, spectrum)
        readings.append(PhysicalReading(
            **common, headline=True, knee=_broken_power_law(spectrum),
            fitted_target=found if isinstance(found, Reason) else target(at_size, spectrum, delta=found.value),
            channels=ChannelPowers(power=[numbers(channel.mean()) for channel in table.channels(std)]),
            channel_deltas=_channel_deltas(at_size, table, units),
        ))
    return readings


def headline_delta(images: ImageRings, latents: LatentRings, std: Tensor, size: Size, units: Units) -> Delta | Reason:
    """The delta of the headline reading, without the rest of the section."""
    spectrum = latents.table(latents.headline, PHYSICAL, "normalized").spectrum(std)
    return physical_delta(units.collapsed(images.at(PHYSICAL, size)), units.collapsed(spectrum))


def image_powers(images: Spectrum) -> Powers:
    """Power and exponent of images at their own size; the spectrum has one row per unit."""
    return _powers(images, highest=HIGHEST_OF_IMAGES)


def latent_powers(images: Spectrum, latents: Spectrum, *, delta: float) -> LatentPowers:
    """Power, exponent and delta of latents, and their distance from the target. images: at the latents' size, rows paired."""
    powers = _powers(latents, highest=HIGHEST_OF_LATENTS)
    found = physical_delta(images, latents)
    return LatentPowers(**dict(powers), delta=found, target=target(images, latents, delta=delta))


def _powers(spectrum: Spectrum, *, highest: float) -> Powers:
    mean, half_width = mean_and_half_width(spectrum.power)
    low, high = log_band(mean, half_width)
    return Powers(
        size=spectrum.size, frequency=numbers(spectrum.frequency),
        cycles_per_side=numbers(spectrum.frequency * min(spectrum.size)), cells=[int(n) for n in spectrum.count],
        power=numbers(mean), low=numbers(low), high=numbers(high), slope=_slope(spectrum, highest),
    )


@or_reason
def _slope(spectrum: Spectrum, highest: float) -> Slope:
    law = fit_power_law(spectrum, highest=highest)
    return Slope(
        exponent=law.exponent, half_width=law.half_width, steeper_than_4_5=law.steeper_than_4_5, fit_range=law.fit_range,
        rings=law.num_rings, residual_db=law.residual_db,
        quantiles_5_50_95=list(law.per_image_quantiles) if len(law.per_image) else None,
    )


@or_reason
def physical_delta(images: Spectrum, latents: Spectrum) -> Delta:
    """delta of latents against images at the latents' size, rows paired."""
    found = fit_delta_spectra(images, latents)
    return Delta(
        value=found.delta, half_width=found.half_width, half_width_jackknife=found.half_width_jackknife,
        allowance=found.allowance, residual_db=found.residual_db, is_power_law=found.is_power_law,
        fit_range=found.fit_range, rings=found.num_rings,
    )


def target(images: Spectrum, latents: Spectrum, *, delta: float) -> Target:
    """The images' spectrum flattened by f^delta, and the latents' distance from it, with a jackknife over paired rows."""
    area = math.prod(images.source) / math.prod(images.size)      # ideal downsampling divides power by it
    shape = (images.frequency * min(latents.size)) ** delta * area
    weight = latents.count.sqrt() * (latents.frequency >= 0.9 / min(latents.size))

    def decibel(image_power: Tensor, latent_power: Tensor) -> tuple[Tensor, Tensor]:
        ratio = 10 * torch.log10(latent_power / (shape * image_power))
        return ratio, (weight * ratio).sum(-1, keepdim=True) / weight.sum()

    ratio, gain = decibel(images.mean(), latents.mean())
    half_width = jackknife_half_widths(lambda *powers: torch.sub(*decibel(*powers)), images.power, latents.power)
    return Target(
        delta=delta, power=numbers(shape * images.mean()), gain_db=-gain.item(), residual_db=numbers(ratio - gain),
        half_width=numbers(half_width),
        divergence_db=_divergence(images, latents, delta),
    )


@or_reason
def _divergence(images: Spectrum, latents: Spectrum, delta: float) -> Decibel:
    return Decibel(value=physical_divergence_db(images, latents, delta=delta))


@or_reason
def _broken_power_law(latents: Spectrum) -> BrokenPowerLaw:
    found, side = fit_broken_power_law(latents, highest=HIGHEST_OF_LATENTS), min(latents.size)
    return BrokenPowerLaw(
        cycles_per_side=found.frequency * side, interval=[end * side for end in found.interval],
        exponent_below=found.exponent_below, exponent_above=found.exponent_above, slope_change=found.slope_change,
        half_width=found.slope_change_half_width, is_bent=found.is_bent,
    )


@or_reason
def _channel_deltas(images: Spectrum, table: RingTable, units: Units) -> ChannelDeltas:
    if (count := len(units.groups)) < FEWEST_IMAGES_FOR_CHANNELS:
        raise ValueError(f"a fit of single channels needs at least {FEWEST_IMAGES_FOR_CHANNELS} images, found {count}")
    at_size, channels = averaged(images), [averaged(units.collapsed(channel)) for channel in table.channels()]
    if not all(bool((channel.power > 0).all()) for channel in channels):
        raise ValueError("a channel has no power in one of the rings")
    return ChannelDeltas(values=[fit_delta_spectra(at_size, channel).delta for channel in channels])
