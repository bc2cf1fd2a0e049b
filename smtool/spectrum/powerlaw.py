"""The exponent of a power law, S(f) ~ f^-a: fitted to set-averaged ring powers, calibrated, with an interval over images."""

from dataclasses import dataclass

import torch
from torch import Tensor

from smtool.spectrum.calibration import FitRange
from smtool.spectrum.jackknife import jackknife_half_width
from smtool.spectrum.psd import Spectrum

HIGHEST_OF_IMAGES = 0.35
"""Upper limit of fits to images, in cycles per pixel: above it, resampling and JPEG change the slope of photographs
(spectrum.md#power-law-fit)."""
HIGHEST_OF_LATENTS = 0.5
"""Upper limit of fits to latents, in cycles per latent pixel."""
SMALLEST_SIDE = 8
STEEPEST = 4.5


@dataclass(frozen=True)
class PowerLaw:
    """The fitted exponent of a set of images or latents.

    exponent: of the set-averaged spectrum. half_width: half of the 95 % jackknife interval over images (infinite for a single
    image). fit_range: lowest and highest frequency used, in cycles per pixel. num_rings, num_images: numbers of rings and images
    in the fit. residual_db: largest absolute deviation of a ring from the fitted line, in dB. per_image: (M,), the exponents of
    single images; images in which a ring has no power are left out (M <= num_images).
    """

    exponent: float
    half_width: float
    fit_range: tuple[float, float]
    num_rings: int
    num_images: int
    residual_db: float
    per_image: Tensor

    @property
    def interval(self) -> tuple[float, float]:
        """exponent - half_width and exponent + half_width."""
        return self.exponent - self.half_width, self.exponent + self.half_width

    @property
    def per_image_quantiles(self) -> tuple[float, float, float]:
        """The 5, 50 and 95 % quantiles of the exponents of single images."""
        low, middle, high = torch.quantile(self.per_image, self.per_image.new_tensor([0.05, 0.5, 0.95])).tolist()
        return low, middle, high

    @property
    def steeper_than_4_5(self) -> bool:
        """Whether the exponent is above 4.5, where leakage hides the slope: report "steeper than 4.5" instead of the number."""
        return self.exponent > STEEPEST


def fit_power_law(spectrum: Spectrum, *, highest: float) -> PowerLaw:
    """Fit power ~ f^-a from 0.9 cycles per frame to `highest` cycles per pixel.

    spectrum: PHYSICAL, at least 8 x 8 cells. highest: HIGHEST_OF_IMAGES or HIGHEST_OF_LATENTS. The slope is a weighted least
    squares fit of ln(set-averaged ring power) over ln f, weights sqrt(cells); `calibration_table` converts it to the exponent.
    The range excludes the ring at half a cycle per frame, because it contains power from unknown lower frequencies.

    Raises ValueError for a REFERENCE spectrum, fewer than 8 x 8 cells or 3 rings, and a ring without power.
    Source: spectrum.md#power-law-fit.
    """
    fit_range = range_of(spectrum, highest=highest)
    return PowerLaw(
        exponent=fit_range.exponent(spectrum.mean()).item(),
        half_width=jackknife_half_width(fit_range.exponent, spectrum.power),
        fit_range=(fit_range.low, fit_range.high),
        num_rings=fit_range.num_rings,
        num_images=len(spectrum),
        residual_db=fit_range.residual_db(spectrum.mean()),
        per_image=fit_range.exponent(spectrum.power[fit_range.has_power(spectrum.power)]),
    )


def range_of(spectrum: Spectrum, *, highest: float) -> FitRange:
    """The rings of a PHYSICAL spectrum from 0.9 cycles per frame to `highest` cycles per pixel of its grid.

    Raises ValueError for a REFERENCE spectrum and for fewer than 8 x 8 cells.
    """
    if spectrum.estimator.name != "physical":
        raise ValueError(f"a power law is fitted to PHYSICAL rings, but this spectrum is {spectrum.estimator.label}")
    if min(spectrum.size) < SMALLEST_SIDE:
        raise ValueError(f"{spectrum.size[0]}x{spectrum.size[1]} cells are too few for a fit (8x8 is the smallest): "
                         "only the ring powers are meaningful")
    return FitRange(spectrum.size, spectrum.source, 0.9 / min(spectrum.size), highest)
