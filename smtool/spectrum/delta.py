"""delta: how much flatter latents are than their images, S_z ~ f^delta S_x."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from smtool.spectrum.calibration import FitRange
from smtool.spectrum.esm import matched_gain, reference_divergence
from smtool.spectrum.estimators import PHYSICAL
from smtool.spectrum.jackknife import jackknife_half_width
from smtool.spectrum.powerlaw import HIGHEST_OF_IMAGES, HIGHEST_OF_LATENTS, range_of
from smtool.spectrum.psd import Spectrum, spectrum_of

LARGEST_RESIDUAL_DB = 3.0
LOWEST_DELTA, HIGHEST_DELTA, STEP = -1.0, 3.0, 0.05


@dataclass(frozen=True)
class Delta:
    """The PHYSICAL delta of a set of images and their latents.

    half_width_jackknife: 95 %, image i left out on both sides at once (infinite for a single image); allowance: what the method
    itself may be off by; the interval adds both. residual_db: largest distance of ln(S_z / S_x) from a line. fit_range: lowest
    and highest frequency used, cycles per latent pixel. image_exponent - latent_exponent = delta.
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
        return self.half_width_jackknife + self.allowance

    @property
    def interval(self) -> tuple[float, float]:
        return self.delta - self.half_width, self.delta + self.half_width

    @property
    def is_power_law(self) -> bool:
        """False where a ring lies more than 3 dB off the line: "not a power law; delta summarises poorly"."""
        return self.residual_db <= LARGEST_RESIDUAL_DB


@dataclass(frozen=True)
class ReferenceDelta:
    """The REFERENCE delta: where the mean KL is least, and that KL. value is None where there is no minimum inside [-1, 3]."""

    value: float | None
    divergence: float
    gain: Literal["raw", "match"]

    @property
    def message(self) -> str:
        return f"no minimum inside [{LOWEST_DELTA:.0f}, {HIGHEST_DELTA:.0f}]" if self.value is None else f"{self.value:.2f}"


def fit_delta(images: Tensor, latents: Tensor) -> Delta:
    """delta of images (N, C, H, W) at their full size and their latents (N, c, h, w), in the same order.

    Never resize the images: their side is the low h x w DCT cells of the full size, which is ideal downsampling (a bicubic
    resize moves delta by up to 1). Averages over channels are taken as the channels are: normalize the latents first, or say
    "raw". Source: definition sheet, section 3. Oracle: fields of known exponent and delta (tests/spectrum/test_delta.py).
    """
    size = (latents.shape[-2], latents.shape[-1])
    return fit_delta_spectra(spectrum_of(images, PHYSICAL, size), spectrum_of(latents, PHYSICAL))


def fit_delta_spectra(images: Spectrum, latents: Spectrum) -> Delta:
    """`fit_delta` from PHYSICAL ring tables, which passes over many images build by `+`: images at the latents' size, rows
    paired.

    delta = exponent of the image rings - exponent of the latent rings, over the same rings: 0.9 / h to 0.5 cycles per latent
    pixel, or to 0.35 cycles per image pixel where that is less.
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
    """Weighted rms of 10 log10(S_z / (f^delta S_x)) after the best gain, in dB: blind to gain, symmetric, rings and weights of
    `fit_delta`.

    images: PHYSICAL, at the latents' size. A slope that is off by .5 is about 1.2 dB at 16 cells.
    """
    _, fit_range = _paired_ranges(images, latents)
    return fit_range.spread_db(latents.mean() / (images.mean() * images.frequency**delta))


def fit_reference_delta(images: Spectrum, latents: Spectrum, *, gain: Literal["raw", "match"] = "raw") -> ReferenceDelta:
    """argmin over delta in [-1, 3] of the mean KL(target || latent) of a REFERENCE recipe: grid of .05, then a parabola.

    images: at the latents' size, rows paired. "raw", the released recipe, measures loudness as much as slope; "match" first
    gives the latents the target's total power and finds a latent coloured in the recipe's own bins to .001 (definition sheet,
    section 3). For latents of one channel pass the mean curves (one row each): the KL of single rows runs away.
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
    """The same rings on both sides, each with the calibration of what was transformed."""
    _check_paired(images, latents)
    downsample = min(whole / kept for whole, kept in zip(images.source, images.size, strict=True))
    of_latents = range_of(latents, highest=min(HIGHEST_OF_LATENTS, HIGHEST_OF_IMAGES * downsample))
    return range_of(images, highest=of_latents.high), of_latents


def _check_paired(images: Spectrum, latents: Spectrum) -> None:
    if images.size != latents.size:
        raise ValueError(f"images must be compared at the latents' size {latents.size}, but have the rings of {images.size}: "
                         "pass size to spectrum_of")
    if len(images) != len(latents):
        raise ValueError(f"{len(images)} images cannot be paired with {len(latents)} latents")


def _allowance(side: int) -> float:
    """What delta may be off by besides the spread over images, by latent side (definition sheet, section 3)."""
    return 0.04 if side < 16 else 0.02 if side < 32 else 0.01
