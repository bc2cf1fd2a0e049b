"""The exponent of a power law, S(f) ~ f^-a: fitted on set-averaged ring powers, calibrated, with an interval over images."""

from dataclasses import dataclass

import torch
from torch import Tensor

from smtool.spectrum.calibration import FitRange
from smtool.spectrum.jackknife import jackknife_half_width
from smtool.spectrum.psd import Spectrum

HIGHEST_OF_IMAGES = 0.35
"""Cycles per pixel: above, resampling and JPEG bend the spectrum of photographs at their own size (sheet, section 2)."""
HIGHEST_OF_LATENTS = 0.5
"""Cycles per latent pixel."""
SMALLEST_SIDE = 8
STEEPEST = 4.5


@dataclass(frozen=True)
class PowerLaw:
    """The fitted exponent of a set of images or latents.

    exponent: of the set-averaged spectrum. interval, half_width: 95 %, jackknife over images (infinite for a single image).
    fit_range: lowest and highest frequency used, cycles per pixel. residual_db: largest distance of a ring from the line.
    per_image: (M,), the exponents of single images, those with an empty ring left out (M <= num_images).
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
        return self.exponent - self.half_width, self.exponent + self.half_width

    @property
    def per_image_quantiles(self) -> tuple[float, float, float]:
        """The 5, 50 and 95 % quantiles of the exponents of single images."""
        low, middle, high = torch.quantile(self.per_image, self.per_image.new_tensor([0.05, 0.5, 0.95])).tolist()
        return low, middle, high

    @property
    def steeper_than_4_5(self) -> bool:
        """Above 4.5 leakage hides the slope: report "steeper than 4.5", not the number."""
        return self.exponent > STEEPEST


def fit_power_law(spectrum: Spectrum, *, highest: float) -> PowerLaw:
    """Fit power ~ f^-a from 0.9 cycles per frame up to `highest` cycles per pixel (HIGHEST_OF_IMAGES or HIGHEST_OF_LATENTS).

    spectrum: PHYSICAL, of something at least 8 cells high and wide. Weighted least squares of ln(set-averaged ring power) on ln
    f, weights sqrt(cells), read through `calibration_table`; the range starts at one cycle per frame because what lies below is
    not known. Source: definition sheet, section 2. Oracle: fields of known exponent cut out of larger ones
    (tests/spectrum/test_powerlaw.py).
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
    """The rings of a PHYSICAL spectrum from 0.9 cycles per frame to `highest` cycles per pixel of its grid."""
    if spectrum.estimator.name != "physical":
        raise ValueError(f"a power law is fitted on PHYSICAL rings, but this spectrum is {spectrum.estimator.label}")
    if min(spectrum.size) < SMALLEST_SIDE:
        raise ValueError(f"{spectrum.size[0]}x{spectrum.size[1]} cells are too few for a fit (8x8 is the smallest): "
                         "only a table of powers is honest")
    return FitRange(spectrum.size, spectrum.source, 0.9 / min(spectrum.size), highest)
