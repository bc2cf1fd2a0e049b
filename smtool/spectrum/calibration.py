"""What slope the DCT shows for a field of known exponent: the table through which measured slopes are read.

The DCT of a finite window leaks: the fitted exponent of a small latent is off by up to .25 (definition sheet, section 1). The
expectation is exact, so the table is computed, not simulated: for a field of power spectral density S the mean power of the DCT
cells is E = A_H S A_W^T with A[u, k] = |DTFT of DCT basis function u at k / M|^2 / M.
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
    """The rings that a slope is fitted on, and their weights.

    size: grid of the rings; source: size of what was transformed; low, high: limits in cycles per pixel of the grid.
    """

    size: Size
    source: Size
    low: float
    high: float

    def slope(self, power: Tensor) -> Tensor:
        """Minus the slope of ln power over ln frequency, weights sqrt(cells): (..., bins) -> (...). Uncalibrated."""
        x, weight, _ = _regressor(self)
        return -((self._log(power) * (weight * x)).sum(-1) / (weight * x.square()).sum())

    def exponent(self, power: Tensor) -> Tensor:
        """The calibrated exponent a of power ~ f^-a: (..., bins) -> (...). Beyond the table its last step goes on straight."""
        return _read_backwards(calibration_table(self), self.slope(power))

    def residual_db(self, power: Tensor) -> float:
        """The largest distance of a ring of (bins,) from the fitted line, in dB."""
        return _decibel(self.centred(power) + self.slope(power) * _regressor(self)[0]).abs().max().item()

    def spread_db(self, power: Tensor) -> float:
        """Root mean square, weights sqrt(cells), of the rings of (bins,) round their mean level, in dB."""
        weight = _regressor(self)[1]
        return ((weight * _decibel(self.centred(power)).square()).sum() / weight.sum()).sqrt().item()

    def centred(self, power: Tensor) -> Tensor:
        """ln power in the rings of the range, less its weighted mean: (..., bins) -> (..., rings)."""
        weight = _regressor(self)[1]
        log_power = self._log(power)
        return log_power - (weight * log_power).sum(-1, keepdim=True) / weight.sum()

    def has_power(self, power: Tensor) -> Tensor:
        """(..., bins) -> (...): whether every ring of the range has power."""
        inside = power[..., _regressor(self)[2]]
        return ((inside > 0) & inside.isfinite()).all(-1)

    def _log(self, power: Tensor) -> Tensor:
        if not bool(self.has_power(power).all()):
            raise ValueError(f"a ring of the {self.size[0]}x{self.size[1]} spectrum has no power: nothing varies there")
        return power.double()[..., _regressor(self)[2]].log()

    @property
    def num_rings(self) -> int:
        return int(_regressor(self)[2].sum())

    def rings(self) -> tuple[Tensor, Tensor, Tensor]:
        """(frequency, cells, which bins of the spectrum they are) of the rings in the range."""
        chosen = _regressor(self)[2]
        frequency, count = ring_frequency(*self.size, PHYSICAL)
        return frequency[chosen], count[chosen], chosen


def expected_power(exponent: float, size: Size, source: Size) -> Tensor:
    """Expected DCT power of a field of density f^-exponent: the low `size` cells of the DCT at `source`, (h, w) float64.

    A constant factor is left out, and so is the field's mean.
    """
    return leaked_power(lambda squared: squared ** (-exponent / 2), size, source)


def leaked_power(density: Callable[[Tensor], Tensor], size: Size, source: Size) -> Tensor:
    """`expected_power` of any isotropic density: a function of the squared frequency, (cycles per pixel)^2, float64.

    The field's mean, frequency 0, is left out.
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
    """(true exponents -1.5, -1.4, ... 5, slopes that the fit shows for them), both rising. 0.01 s at 32 cells, 0.2 s at 256.

    The few low cells of a large image see more leakage than signal when its spectrum rises steeply (exponent below -1 at 8 of
    256 cells): there slopes turn back, and the table starts where they rise.
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
    """(ln frequency less its weighted mean, weights, which bins are in the range)."""
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
    """(kept, M / 2 + 1): A over non-negative frequencies, the negative ones folded in; M = 8 size, above 64 cells 4 size."""
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
