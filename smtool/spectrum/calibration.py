"""Calibration of fitted slopes: a table of the slope that the fit gives for a field of known exponent.

The DCT of a finite window leaks power between frequencies: without calibration, the fitted exponent of a small latent has an
error of up to .25 (spectrum.md#power-spectrum). The expected power has a closed form, so the table is computed, not simulated:
for a field of power spectral density S the expected power of the DCT cells is E = A_H S A_W^T, where
A[u, k] = |DTFT of DCT basis function u at frequency k / M|^2 / M.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from smtool.spectrum.dct import dct_matrix
from smtool.spectrum.estimators import PHYSICAL
from smtool.spectrum.psd import Size, ring_frequency, ring_means

LOWEST_EXPONENT, HIGHEST_EXPONENT, STEP = -1.5, 5.0, 0.1


@dataclass(frozen=True)
class FitRange:
    """The rings that a slope is fitted to, and their weights.

    size: (h, w) of the grid of the rings. source: (H, W) of the image or latent that was transformed. low, high: lowest and
    highest frequency, in cycles per pixel of the grid.
    """

    size: Size
    source: Size
    low: float
    high: float

    def slope(self, power: Tensor) -> Tensor:
        """Minus the slope of ln power over ln frequency, weights sqrt(cells), not calibrated: (..., bins) -> (...)."""
        x, weight, _ = _regressor(self)
        return -((self._log(power) * (weight * x)).sum(-1) / (weight * x.square()).sum())

    def exponent(self, power: Tensor) -> Tensor:
        """The calibrated exponent a of power ~ f^-a: (..., bins) -> (...). Extrapolated linearly beyond the table."""
        return _read_backwards(calibration_table(self), self.slope(power))

    def residual_db(self, power: Tensor) -> float:
        """The largest absolute deviation of a ring of (bins,) from the fitted line, in dB."""
        return _decibel(self.centred(power) + self.slope(power) * _regressor(self)[0]).abs().max().item()

    def spread_db(self, power: Tensor) -> float:
        """Root mean square deviation, weights sqrt(cells), of the rings of (bins,) from their mean level, in dB."""
        weight = _regressor(self)[1]
        return ((weight * _decibel(self.centred(power)).square()).sum() / weight.sum()).sqrt().item()

    def centred(self, power: Tensor) -> Tensor:
        """ln power in the rings of the range, minus its weighted mean: (..., bins) -> (..., rings)."""
        weight = _regressor(self)[1]
        log_power = self._log(power)
        return log_power - (weight * log_power).sum(-1, keepdim=True) / weight.sum()

    def has_power(self, power: Tensor) -> Tensor:
        """Whether every ring of the range has positive, finite power: (..., bins) -> (...)."""
        inside = power[..., _regressor(self)[2]]
        return ((inside > 0) & inside.isfinite()).all(-1)

    def _log(self, power: Tensor) -> Tensor:
        if not bool(self.has_power(power).all()):
            raise ValueError(f"a ring of the {self.size[0]}x{self.size[1]} spectrum has no power: nothing varies at its "
                             "frequencies")
        return power.double()[..., _regressor(self)[2]].log()

    @property
    def num_rings(self) -> int:
        return int(_regressor(self)[2].sum())

    def rings(self) -> tuple[Tensor, Tensor, Tensor]:
        """(frequency, number of cells, mask over the bins of the spectrum) of the rings in the range."""
        chosen = _regressor(self)[2]
        frequency, count = ring_frequency(*self.size, PHYSICAL)
        return frequency[chosen], count[chosen], chosen


def expected_power(exponent: float, size: Size, source: Size) -> Tensor:
    """Expected DCT power of a field of density f^-exponent: the low `size` cells of the DCT at `source`, (h, w) float64.

    Correct up to a constant factor. The power at frequency 0 (the field's mean) is left out.
    """
    return leaked_power(lambda squared: squared ** (-exponent / 2), size, source)


def leaked_power(density: Callable[[Tensor], Tensor], size: Size, source: Size) -> Tensor:
    """`expected_power` of any isotropic density.

    density: function of the squared frequency in (cycles per pixel)^2, float64. The power at frequency 0 is left out.
    """
    rows, columns = (_leakage(n, kept) for n, kept in zip(source, size, strict=True))
    y, x = (torch.arange(a.shape[1], dtype=torch.float64) / (2 * (a.shape[1] - 1)) for a in (rows, columns))
    squared = y.square()[:, None] + x.square()
    squared[0, 0] = squared[0, 1]
    power = density(squared)
    power[0, 0] = 0
    return rows @ power @ columns.T


@lru_cache(maxsize=64)
def calibration_table(fit_range: FitRange) -> tuple[Tensor, Tensor]:
    """(true exponents -1.5, -1.4, ... 5; slopes that the fit gives for them), both increasing.

    Takes 0.01 s at 32 cells and 0.2 s at 256. In the low cells of a large image, leakage exceeds the signal when the spectrum
    rises steeply with frequency (exponent below -1 for 8 of 256 cells). There the slopes do not increase with the exponent, so
    the table starts at the smallest slope.
    """
    steps = round((HIGHEST_EXPONENT - LOWEST_EXPONENT) / STEP)
    with torch.inference_mode(False), torch.no_grad(), torch.device("cpu"):
        true = torch.linspace(LOWEST_EXPONENT, HIGHEST_EXPONENT, steps + 1, dtype=torch.float64)
        rings = [ring_means(expected_power(a, fit_range.size, fit_range.source)[None], PHYSICAL) for a in true.tolist()]
        shown = fit_range.slope(torch.cat(rings))
        first = int(shown.argmin())
        return true[first:], shown[first:]


@lru_cache(maxsize=64)
def _regressor(fit_range: FitRange) -> tuple[Tensor, Tensor, Tensor]:
    """(ln frequency minus its weighted mean, weights, mask of the bins in the range)."""
    with torch.inference_mode(False):
        frequency, count = ring_frequency(*fit_range.size, PHYSICAL)
        chosen = (frequency >= fit_range.low) & (frequency <= fit_range.high)
        if int(chosen.sum()) < 3:
            raise ValueError(f"only {int(chosen.sum())} rings of a {fit_range.size[0]}x{fit_range.size[1]} spectrum lie between "
                             f"{fit_range.low:.3g} and {fit_range.high:.3g} cycles per pixel; a slope needs 3")
        weight = count[chosen].sqrt()
        x = frequency[chosen].log()
        return x - (weight * x).sum() / weight.sum(), weight, chosen


@lru_cache(maxsize=16)
def _leakage(size: int, kept: int) -> Tensor:
    """The module's matrix A over non-negative frequencies, with the negative ones added to them: (kept, M / 2 + 1).

    M = 8 size, or 4 size above 64 cells.
    """
    length = (8 if size <= 64 else 4) * size
    response = torch.fft.rfft(dct_matrix(size, dtype=torch.float64)[:kept], n=length, dim=1).abs().square() / length
    response[:, 1:-1] *= 2
    return response


def _read_backwards(table: tuple[Tensor, Tensor], slope: Tensor) -> Tensor:
    true, shown = table
    step = torch.searchsorted(shown, slope.contiguous()).clamp(1, len(shown) - 1)
    return true[step - 1] + (slope - shown[step - 1]) * (true[step] - true[step - 1]) / (shown[step] - shown[step - 1])


def _decibel(log_power: Tensor) -> Tensor:
    return log_power * (10 / math.log(10))
