"""The knee of a spectrum: where one power law goes over into another, S ~ f^-a below it and S ~ f^-b above."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from smtool.spectrum.calibration import FitRange, leaked_power
from smtool.spectrum.estimators import PHYSICAL
from smtool.spectrum.jackknife import leave_one_out, student_t_quantile
from smtool.spectrum.powerlaw import range_of
from smtool.spectrum.psd import Spectrum, ring_means

SMALLEST_SIDE = 16
FEWEST_IMAGES = 64
RINGS_EACH_SIDE = 3
"""A slope needs three rings, so a knee is looked for between the third ring from below and the third from above."""
CANDIDATES = 65
LEAST_CHANGE = 0.25
ROUNDS = 3
"""Rounds in which the leakage of the law found so far is taken out."""


@dataclass(frozen=True)
class Knee:
    """Two power laws that meet at `frequency`, cycles per pixel.

    interval: 95 %, jackknife over images on the logarithm of the frequency, cut to where a knee is looked for. exponent_below,
    exponent_above: read through the calibration table. slope_change: above less below, its half_width by the jackknife;
    fall_of_residual: share of the weighted squared deviation from one straight line that the second slope takes away.
    """

    frequency: float
    interval: tuple[float, float]
    exponent_below: float
    exponent_above: float
    slope_change: float
    slope_change_half_width: float
    fall_of_residual: float
    num_rings: int
    num_images: int

    @property
    def is_bent(self) -> bool:
        """Whether the two slopes differ for sure (by their interval) and by more than 0.25; otherwise one slope serves."""
        return abs(self.slope_change) > max(self.slope_change_half_width, LEAST_CHANGE)


def fit_knee(spectrum: Spectrum, *, highest: float) -> Knee:
    """Fit two slopes that meet in a knee, from 0.9 cycles per frame to `highest` cycles per pixel.

    spectrum: PHYSICAL, of something at least 16 cells high and wide, 64 images or more; otherwise a ValueError says which is
    missing. Weighted least squares of ln(set-averaged power) on ln f, weights sqrt(cells), with the leakage of the law found so
    far taken out ring by ring; knees are tried on an even grid of ln f and refined by a parabola. Source: definition sheet,
    section 2 (where it is honest; the method is ours). Oracle: fields of known knee (tests/spectrum/test_knee.py).
    """
    fit_range = range_of(spectrum, highest=highest)
    if min(spectrum.size) < SMALLEST_SIDE or len(spectrum) < FEWEST_IMAGES:
        raise ValueError(f"a knee needs {SMALLEST_SIDE}x{SMALLEST_SIDE} cells and {FEWEST_IMAGES} images, but there are "
                         f"{spectrum.size[0]}x{spectrum.size[1]} cells and {len(spectrum)} images")
    frequency, count, chosen = fit_range.rings()
    lines = _Lines(frequency.log(), count.sqrt())
    log_power = _log(torch.cat([spectrum.mean()[None], leave_one_out(spectrum.power)])[:, chosen])
    leakage = torch.zeros_like(frequency)
    for _ in range(ROUNDS):
        law = lines.fit(log_power[:1] - leakage)
        leakage = _leakage_of(law, fit_range, frequency, chosen)
    place, slopes, residual = lines.fit(log_power - leakage)
    t = student_t_quantile(0.975, len(spectrum) - 1)
    half_width, change = t * _jackknife_error(place[1:]), slopes[:, 1] - slopes[:, 0]
    low, high = lines.candidates[0], lines.candidates[-1]
    return Knee(
        frequency=math.exp(place[0]),
        interval=(math.exp(max(place[0] - half_width, low)), math.exp(min(place[0] + half_width, high))),
        exponent_below=slopes[0, 0].item(),
        exponent_above=slopes[0, 1].item(),
        slope_change=change[0].item(),
        slope_change_half_width=t * _jackknife_error(change[1:]),
        fall_of_residual=residual[0].item(),
        num_rings=len(frequency),
        num_images=len(spectrum),
    )


class _Lines:
    """Weighted least squares of two slopes that meet, with the knee tried at places evenly spaced in ln f."""

    def __init__(self, x: Tensor, weight: Tensor) -> None:
        self.x, self.weight = x, weight
        low, high = x[RINGS_EACH_SIDE - 1].item(), x[-RINGS_EACH_SIDE].item()
        self.candidates = torch.linspace(low, high, CANDIDATES, dtype=torch.float64)
        scaled = weight.sqrt()[:, None] * self._regressors(self.candidates)                 # (candidates, rings, 3)
        self._explained, _ = torch.linalg.qr(scaled)
        self._line, _ = torch.linalg.qr(weight.sqrt()[:, None] * self._regressors(self.candidates[:1])[..., :2])

    def fit(self, log_power: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, rings) -> (ln f of the knee (N,), exponents below and above (N, 2), share of the residual that the knee takes
        (N,))."""
        y = log_power * self.weight.sqrt()
        total = y.square().sum(1)
        left = total - torch.einsum("nr,krp->nkp", y, self._explained).square().sum(-1)       # (N, candidates)
        straight = total - torch.einsum("nr,krp->np", y, self._line).square().sum(-1)
        place = self._refined(left)
        scaled = self.weight.sqrt()[:, None] * self._regressors(place)
        solution = torch.linalg.lstsq(scaled, y[..., None]).solution[..., 0]
        exponents = -torch.stack([solution[:, 1], solution[:, 1] + solution[:, 2]], dim=1)
        return place, exponents, 1 - left.min(1).values / straight

    def _regressors(self, knees: Tensor) -> Tensor:
        """(K,) -> (K, rings, 3): constant, ln f less the knee's, and the same above the knee only."""
        beyond = self.x - knees[:, None]
        return torch.stack([torch.ones_like(beyond), beyond, beyond.clamp(min=0)], dim=-1)

    def _refined(self, left: Tensor) -> Tensor:
        """The place of the least residual, by a parabola through it and its neighbours."""
        best = left.argmin(1).clamp(1, CANDIDATES - 2)
        before, at, after = (left.gather(1, (best + step)[:, None])[:, 0] for step in (-1, 0, 1))
        bend = (before - 2 * at + after).clamp(min=torch.finfo(torch.float64).tiny)
        step = self.candidates[1] - self.candidates[0]
        return self.candidates[best] + step * (0.5 * (before - after) / bend).clamp(-1, 1)


def _leakage_of(law: tuple[Tensor, Tensor, Tensor], fit_range: FitRange, frequency: Tensor, chosen: Tensor) -> Tensor:
    """ln of what the DCT shows of a field of two slopes, less ln of its density at the rings: (rings,), up to a constant."""
    place, exponents, _ = law
    below, above = exponents[0].tolist()

    def density(squared: Tensor) -> Tensor:
        x = 0.5 * squared.log() - place
        return torch.exp(-below * x - (above - below) * x.clamp(min=0))

    shown = ring_means(leaked_power(density, fit_range.size, fit_range.source)[None], PHYSICAL)[0, chosen]
    return (shown / density(frequency.square())).log()


def _log(power: Tensor) -> Tensor:
    if not bool((power > 0).all()):
        raise ValueError("a ring of the spectrum has no power: nothing varies there")
    return power.log()


def _jackknife_error(replicates: Tensor) -> float:
    return math.sqrt((len(replicates) - 1) / len(replicates) * (replicates - replicates.mean()).square().sum().item())
