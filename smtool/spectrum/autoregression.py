"""Spectral autoregression: diffusion generates an image from low to high frequencies, because its spectrum falls with frequency.

x_t = alpha x + sigma noise. The noise is white, so the signal-to-noise ratio of a frequency is R S(f), with S the power of the
data (noise: 1) and R = alpha^2 / sigma^2, which is abar / (1 - abar) in DDPM. For S = K f^-a, the SNR is above a threshold gamma
up to f* = (K R / gamma)^(1 / a), and R grows as noise is removed. Source: DCTdiff (arXiv 2412.15032);
spectrum.md#spectral-autoregression.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

NUM_RATIOS = 200
"""Values of R, evenly spaced in log R, over which measured and predicted frequencies are compared."""


def flow_ratio(t: Tensor) -> Tensor:
    """R = (1 - t)^2 / t^2 of rectified flow at time t in (0, 1]; data at t = 0."""
    return ((1 - t) / t).square()


def highest_frequency(frequency: Tensor, power: Tensor, ratio: Tensor, *, threshold: float = 1.0) -> Tensor:
    """f*: the highest frequency at which R S(f) is at least the threshold, (T,) for the ratios R (T,), float64.

    frequency, power: (K,), ascending frequencies and the measured power S there; between two of them, log S is linear in log f.
    The result is NaN where no frequency is above the threshold, and frequency[-1] where the last one is: then the true f* is at
    least that. It does not fall as R grows, for any spectrum. Raises ValueError for other shapes, for values that are not
    positive, and for frequencies that do not ascend.
    """
    _check(frequency, power, threshold)
    x, y = frequency.double().log(), power.double().log()
    level = (threshold / ratio.double()).log()      # -inf without noise: all frequencies are above
    above = y >= level[:, None]                     # (T, K)
    last = len(x) - 1 - above.flip(1).int().argmax(1)
    left = last.clamp(max=len(x) - 2)
    fall = y[left] - y[left + 1]
    part = ((y[left] - level) / torch.where(fall > 0, fall, 1.0)).clamp(0, 1)
    between = x[left] + part * (x[left + 1] - x[left])
    found = torch.where(last == len(x) - 1, frequency[-1].double(), between.exp())
    return found.where(above.any(1), math.nan)


@dataclass(frozen=True)
class FallingPower:
    """S(f) = level f^-exponent, with a positive exponent."""

    level: float
    exponent: float

    def highest_frequency(self, ratio: Tensor, *, threshold: float = 1.0) -> Tensor:
        """f* = (K R / gamma)^(1 / a), not limited to any range."""
        return (self.level * ratio.double() / threshold) ** (1 / self.exponent)

    def gain(self, snr_scale: float) -> float:
        """The factor of f* when the SNR of all frequencies is multiplied by snr_scale: c^(1 / a)."""
        return snr_scale ** (1 / self.exponent)


def falling_power(frequency: Tensor, power: Tensor, count: Tensor, exponent: float) -> FallingPower:
    """The power law of a known exponent through a spectrum: ln K = mean of ln S + a ln f, weights sqrt(count).

    frequency, power, count: (K,) of the rings of the fit; exponent: of `fit_power_law`. Raises ValueError for values that are not
    positive, and for an exponent that is not: then no frequency is the last to emerge.
    """
    _check(frequency, power, 1.0)
    if not exponent > 0:
        raise ValueError(f"the power does not fall with frequency (exponent {exponent:.2f}), so frequencies have no order")
    weight = count.double().sqrt()
    level = (weight * (power.double().log() + exponent * frequency.double().log())).sum() / weight.sum()
    return FallingPower(math.exp(level), exponent)


@dataclass(frozen=True)
class PredictionError:
    """How well a power law predicts f*. rms, largest: |log2(predicted / measured)| in octaves.

    gain: measured factor of f*, median over R, when R is multiplied by snr_scale; NaN if the spectrum is too short for it.
    """

    rms: float
    largest: float
    gain: float


def prediction_error(frequency: Tensor, power: Tensor, law: FallingPower, *, snr_scale: float) -> PredictionError:
    """Compare the measured f* with the law's over all R at which the measured one lies between the first and the last frequency.

    The R are evenly spaced in log R, so the result does not depend on a process. Raises ValueError for inputs that
    `highest_frequency` refuses, and for a flat spectrum, in which f* has no value between its ends.
    """
    _check(frequency, power, 1.0)
    levels = power.double().log()
    ratio = torch.linspace(-float(levels.max()), -float(levels.min()), NUM_RATIOS + 2, dtype=torch.float64)[1:-1].exp()
    measured = highest_frequency(frequency, power, ratio)
    inside = _inside(measured, frequency)
    if not bool(inside.any()):
        raise ValueError("all frequencies emerge at the same noise level")
    octaves = (law.highest_frequency(ratio) / measured)[inside].log2().abs()
    scaled = highest_frequency(frequency, power, snr_scale * ratio)
    both = inside & _inside(scaled, frequency)
    gain = (scaled / measured)[both].median().item() if bool(both.any()) else math.nan
    return PredictionError(octaves.square().mean().sqrt().item(), octaves.max().item(), gain)


def _inside(found: Tensor, frequency: Tensor) -> Tensor:
    return (found > frequency[0]) & (found < frequency[-1])


def _check(frequency: Tensor, power: Tensor, threshold: float) -> None:
    if frequency.ndim != 1 or frequency.shape != power.shape or len(frequency) < 2:
        raise ValueError(f"at least two frequencies with a power each are needed, but got shapes {tuple(frequency.shape)} and "
                         f"{tuple(power.shape)}")
    if not bool((frequency > 0).all() and (frequency.diff() > 0).all()):
        raise ValueError("frequencies must be positive and ascend")
    if not bool(((power > 0) & power.isfinite()).all()):
        raise ValueError("every frequency needs a positive, finite power")
    if not (threshold > 0 and math.isfinite(threshold)):
        raise ValueError(f"the threshold of the SNR must be a positive number, but is {threshold}")
