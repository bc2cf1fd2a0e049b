"""Delta: how much flatter the power spectrum of latents is than that of their images, S_z ~ f^delta S_x."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from smtool.spectrum.calibration import FitRange
from smtool.spectrum.esm import matched_gain, reference_divergence
from smtool.spectrum.estimators import PHYSICAL
from smtool.spectrum.jackknife import jackknife_half_width
from smtool.spectrum.powerlaw import HIGHEST_OF_IMAGES, HIGHEST_OF_LATENTS, range_of
from smtool.spectrum.psd import Size, Spectrum, spectrum_of

LARGEST_RESIDUAL_DB = 3.0
LOWEST_DELTA, HIGHEST_DELTA, STEP = -1.0, 3.0, 0.05


@dataclass(frozen=True)
class Delta:
    """The PHYSICAL delta of a set of images and their latents.

    delta: image_exponent - latent_exponent. half_width_jackknife: half of the 95 % jackknife interval, where image i and its
    latent are left out together (infinite for a single image). allowance: bound on the error of the method itself.
    residual_db: largest absolute deviation of a ring of S_z / S_x from a power law, in dB. fit_range: lowest and highest
    frequency used, in cycles per latent pixel. num_rings, num_images: numbers of rings and images in the fit.
    """

    delta: float
    half_width_jackknife: float
    allowance: float
    residual_db: float
    fit_range: tuple[float, float]
    num_rings: int
    num_images: int
    image_exponent: float
    latent_exponent: float

    @property
    def half_width(self) -> float:
        """half_width_jackknife + allowance."""
        return self.half_width_jackknife + self.allowance

    @property
    def interval(self) -> tuple[float, float]:
        """delta - half_width and delta + half_width."""
        return self.delta - self.half_width, self.delta + self.half_width

    @property
    def is_power_law(self) -> bool:
        """Whether all rings lie within 3 dB of the line; otherwise S_z / S_x is not a power law and delta describes it poorly."""
        return self.residual_db <= LARGEST_RESIDUAL_DB


@dataclass(frozen=True)
class ReferenceDelta:
    """The REFERENCE delta and the mean KL at this delta.

    value: the delta with the smallest mean KL; None where there is no minimum inside [-1, 3]. divergence: that KL, in nats.
    gain: "raw" or "match", see `fit_reference_delta`.
    """

    value: float | None
    divergence: float
    gain: Literal["raw", "match"]

    @property
    def message(self) -> str:
        """The value with two decimals, or a phrase that says that there is no minimum."""
        return f"no minimum inside [{LOWEST_DELTA:.0f}, {HIGHEST_DELTA:.0f}]" if self.value is None else f"{self.value:.2f}"


def fit_delta(images: Tensor, latents: Tensor) -> Delta:
    """The PHYSICAL delta of images (N, C, H, W) at their full size and their latents (N, c, h, w), in the same order.

    Do not resize the images: the low h x w DCT cells at full size are the ideally downsampled image, while a bicubic resize
    changes delta by up to 1. Spectra are means over channels at the given scale: normalize the latents first, or report the
    result as that of raw latents. Raises ValueError as `fit_delta_spectra` does. Source: spectrum.md#delta.
    """
    size = (latents.shape[-2], latents.shape[-1])
    return fit_delta_spectra(spectrum_of(images, PHYSICAL, size), spectrum_of(latents, PHYSICAL))


def fit_delta_spectra(images: Spectrum, latents: Spectrum) -> Delta:
    """`fit_delta` from PHYSICAL ring powers, which can be collected batch by batch with `+`.

    images: measured at the latents' size. latents: row i belongs to the same image as row i of images.
    delta = exponent of the image rings - exponent of the latent rings, over the same rings: 0.9 / h to 0.5 cycles per latent
    pixel, or to 0.35 cycles per image pixel where that is lower.

    Raises ValueError for REFERENCE spectra, different sizes or numbers of rows, fewer than 8 x 8 cells or 3 rings, and a ring
    without power. Source: spectrum.md#delta.
    """
    of_images, of_latents = _paired_ranges(images, latents)

    def delta(image_power: Tensor, latent_power: Tensor) -> Tensor:
        return of_images.exponent(image_power) - of_latents.exponent(latent_power)

    image_mean, latent_mean = images.mean(), latents.mean()
    return Delta(
        delta=delta(image_mean, latent_mean).item(),
        half_width_jackknife=jackknife_half_width(delta, images.power, latents.power),
        allowance=_allowance(min(latents.size)),
        residual_db=of_latents.residual_db(latent_mean / image_mean),
        fit_range=(of_latents.low, of_latents.high),
        num_rings=of_latents.num_rings,
        num_images=len(latents),
        image_exponent=of_images.exponent(image_mean).item(),
        latent_exponent=of_latents.exponent(latent_mean).item(),
    )


def physical_divergence_db(images: Spectrum, latents: Spectrum, *, delta: float) -> float:
    """Distance in dB between the latents' spectrum S_z and the target f^delta S_x.

    It is the weighted root mean square of 10 log10(S_z / (f^delta S_x)) after its mean is subtracted: independent of gain, and
    symmetric. Rings and weights are those of `fit_delta`. As a scale: a slope that differs by .5 gives about 1.2 dB at 16 x 16
    cells. images: PHYSICAL, at the latents' size. Raises ValueError as `fit_delta_spectra` does. Source: spectrum.md#delta.
    """
    _, fit_range = _paired_ranges(images, latents)
    return fit_range.spread_db(latents.mean() / (images.mean() * images.frequency**delta))


def fit_reference_delta(images: Spectrum, latents: Spectrum, *, gain: Literal["raw", "match"] = "raw") -> ReferenceDelta:
    """The delta in [-1, 3] that minimizes the mean KL(target || latent) of a REFERENCE estimator: grid of .05, then a parabola.

    images: measured at the latents' size. latents: row i belongs to the same image as row i of images.
    gain: "raw" is the released procedure, whose result depends on the gain of the latents as much as on their slope. "match"
    first scales the latents to the target's total power; it recovers delta to .001 for latents that are made by multiplying
    the image's bins by (bin number)^delta. For latents of one channel, pass mean curves (one row each): the KL of single rows
    gives far too large a delta.

    Raises ValueError unless both sides have the same REFERENCE estimator, size and number of rows. Source: spectrum.md#delta.
    """
    if images.estimator.name != "reference" or latents.estimator != images.estimator:
        raise ValueError(f"both sides need one REFERENCE recipe, but got {images.estimator.label} and {latents.estimator.label}")
    _check_paired(images, latents)

    def divergence(delta: float) -> float:
        found = matched_gain(images.power, latents.power, latents.count, delta=delta) if gain == "match" else 1.0
        return reference_divergence(images.power, latents.power, images.estimator, delta=delta, gain=found).mean().item()

    grid = [LOWEST_DELTA + STEP * i for i in range(round((HIGHEST_DELTA - LOWEST_DELTA) / STEP) + 1)]
    values = [divergence(delta) for delta in grid]
    best = min(range(len(grid)), key=values.__getitem__)
    if best in (0, len(grid) - 1):
        return ReferenceDelta(None, values[best], gain)
    left, middle, right = values[best - 1:best + 2]
    value = grid[best] + 0.5 * STEP * (left - right) / (left - 2 * middle + right)
    return ReferenceDelta(value, divergence(value), gain)


def _paired_ranges(images: Spectrum, latents: Spectrum) -> tuple[FitRange, FitRange]:
    """The same rings on both sides, each with the calibration for the size that was transformed."""
    _check_paired(images, latents)
    of_latents = range_of(latents, highest=highest_frequency(images.size, images.source))
    return range_of(images, highest=of_latents.high), of_latents


def highest_frequency(size: Size, source: Size) -> float:
    """Upper limit of fits to latents (h, w) and their images (H, W), in cycles per latent pixel."""
    downsample = min(whole / kept for whole, kept in zip(source, size, strict=True))
    return min(HIGHEST_OF_LATENTS, HIGHEST_OF_IMAGES * downsample)


def _check_paired(images: Spectrum, latents: Spectrum) -> None:
    if images.size != latents.size:
        raise ValueError(f"images must be compared at the latents' size {latents.size}, but have the rings of {images.size}: "
                         "pass size to spectrum_of")
    if len(images) != len(latents):
        raise ValueError(f"{len(images)} images cannot be paired with {len(latents)} latents")


def _allowance(side: int) -> float:
    """Bound on the method's own error of delta, by the latent's side (spectrum.md#delta)."""
    return 0.04 if side < 16 else 0.02 if side < 32 else 0.01
