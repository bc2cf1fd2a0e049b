"""A broken power law: S ~ f^-a below a break frequency and S ~ f^-b above it, fitted to a power spectrum with intervals."""

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
"""A slope needs three rings, so the break is searched between the third-lowest and the third-highest ring."""
CANDIDATES = 65
STEPS = 8
LEAST_CHANGE = 0.25


@dataclass(frozen=True)
class BrokenPowerLaw:
    """Two power laws that meet at the break `frequency`, in cycles per pixel.

    interval: 95 % interval of `frequency`, computed on its logarithm and clipped to the range in which the break is searched.
    exponent_below, exponent_above: exponents of the field on both sides of the break, corrected for leakage of the DCT.
    slope_change_half_width: half of the 95 % interval of `slope_change`. Both intervals are jackknife intervals over images.
    num_rings, num_images: numbers of rings and images in the fit.
    """

    frequency: float
    interval: tuple[float, float]
    exponent_below: float
    exponent_above: float
    slope_change_half_width: float
    num_rings: int
    num_images: int

    @property
    def slope_change(self) -> float:
        """exponent_above - exponent_below."""
        return self.exponent_above - self.exponent_below

    @property
    def is_bent(self) -> bool:
        """Whether |slope_change| exceeds its half-width and 0.25; otherwise a single power law describes the spectrum."""
        return abs(self.slope_change) > max(self.slope_change_half_width, LEAST_CHANGE)


def fit_broken_power_law(spectrum: Spectrum, *, highest: float) -> BrokenPowerLaw:
    """Fit two power laws that meet at a break, from 0.9 cycles per frame to `highest` cycles per pixel.

    spectrum: PHYSICAL, at least 16 x 16 cells and 64 images or latents.

    The fit minimizes the squared error of ln(set-averaged ring power) with weights sqrt(cells). It starts from two straight
    lines whose break is chosen from 65 frequencies, evenly spaced in ln f. Gauss-Newton steps then fit the ring means that the
    DCT gives for a field with this law, leakage included. The jackknife linearizes the fit around its result.

    Raises ValueError for a REFERENCE spectrum, too few cells, images or rings, and a ring without power.
    Source: the method is this project's own; spectrum.md#power-law-fit gives the sizes for which a break can be fitted.
    """
    fit_range = range_of(spectrum, highest=highest)
    if min(spectrum.size) < SMALLEST_SIDE or len(spectrum) < FEWEST_IMAGES:
        raise ValueError(f"a broken power law needs {SMALLEST_SIDE}x{SMALLEST_SIDE} cells and {FEWEST_IMAGES} images, but there "
                         f"are {spectrum.size[0]}x{spectrum.size[1]} cells and {len(spectrum)} images")
    frequency, count, chosen = fit_range.rings()
    log_power = _log(torch.cat([spectrum.mean()[None], leave_one_out(spectrum.power)])[:, chosen])
    law, pull = _fitted(log_power[0], _Broken(fit_range, frequency.log(), count.sqrt(), chosen))
    moved = (log_power[1:] - log_power[0]) @ pull.T                                        # (N, 4): replicates minus the estimate
    t = student_t_quantile(0.975, len(spectrum) - 1)
    _, below, above, place = law.tolist()
    half_width = t * _jackknife_error(moved[:, 3])
    low, high = frequency[RINGS_EACH_SIDE - 1].item(), frequency[-RINGS_EACH_SIDE].item()
    return BrokenPowerLaw(
        frequency=math.exp(place),
        interval=(max(math.exp(place - half_width), low), min(math.exp(place + min(half_width, 10.0)), high)),
        exponent_below=below,
        exponent_above=above,
        slope_change_half_width=t * _jackknife_error(moved[:, 2] - moved[:, 1]),
        num_rings=len(frequency),
        num_images=len(spectrum),
    )


@dataclass(frozen=True)
class _Broken:
    """The rings that a broken power law is fitted to. A law is (level, exponent below, exponent above, ln f of the break)."""

    fit_range: FitRange
    x: Tensor
    weight: Tensor
    chosen: Tensor

    def shown(self, law: Tensor) -> Tensor:
        """ln of the ring means that the DCT gives for a field with this law: (rings,)."""
        level, below, above, place = law.tolist()
        place -= math.log(min(self.fit_range.source) / min(self.fit_range.size))            # to cycles per pixel of the source

        def density(squared: Tensor) -> Tensor:
            x = 0.5 * squared.log() - place
            return torch.exp(level - below * x - (above - below) * x.clamp(min=0))

        power = leaked_power(density, self.fit_range.size, self.fit_range.source)
        return ring_means(power[None], PHYSICAL)[0, self.chosen].log()

    def slopes(self, law: Tensor) -> Tensor:
        """Jacobian of `shown` by central differences: (rings, 4)."""
        steps = 1e-3 * torch.eye(4, dtype=torch.float64)
        return torch.stack([(self.shown(law + step) - self.shown(law - step)) / 2e-3 for step in steps], dim=1)

    def misfit(self, log_power: Tensor, law: Tensor) -> float:
        return (self.weight * (log_power - self.shown(law)).square()).sum().item()

    def straight_lines(self, log_power: Tensor) -> Tensor:
        """The law with the smallest misfit among the candidate breaks, without leakage."""
        places = torch.linspace(self.x[RINGS_EACH_SIDE - 1].item(), self.x[-RINGS_EACH_SIDE].item(), CANDIDATES,
                                dtype=torch.float64)
        beyond = self.x - places[:, None]
        root = self.weight.sqrt()
        rows = root[:, None] * torch.stack([torch.ones_like(beyond), beyond.clamp(max=0), beyond.clamp(min=0)], dim=-1)
        wanted = (root * log_power)[:, None].expand(CANDIDATES, -1, -1)
        found = torch.linalg.lstsq(rows, wanted).solution                                   # (candidates, 3, 1)
        best = int((rows @ found - wanted).square().sum((1, 2)).argmin())
        level, below, above = found[best, :, 0].tolist()
        return torch.tensor([level, -below, -above, places[best].item()], dtype=torch.float64)


def _fitted(log_power: Tensor, broken: _Broken) -> tuple[Tensor, Tensor]:
    """The fitted law (4,), and the matrix (4, rings) that maps small changes of ln power to changes of the law.

    A step that does not reduce the misfit is halved, at most three times.
    """
    law = broken.straight_lines(log_power)
    misfit = broken.misfit(log_power, law)
    low, high = broken.x[RINGS_EACH_SIDE - 1], broken.x[-RINGS_EACH_SIDE]
    for _ in range(STEPS):
        step = _pull(broken, law) @ (log_power - broken.shown(law))
        for part in (1.0, 0.5, 0.25, 0.125):
            trial = law + part * step
            trial[3] = trial[3].clamp(low, high)
            if (smaller := broken.misfit(log_power, trial)) < misfit:
                law, misfit = trial, smaller
                break
        else:
            break
    return law, _pull(broken, law)


def _pull(broken: _Broken, law: Tensor) -> Tensor:
    """(4, rings): weighted least squares for a small change of the law, with a small ridge term for equal slopes."""
    slopes = broken.slopes(law)
    weighted = slopes.T * broken.weight
    normal = weighted @ slopes
    return torch.linalg.solve(normal + 1e-9 * normal.diagonal().max() * torch.eye(4, dtype=torch.float64), weighted)


def _log(power: Tensor) -> Tensor:
    if not bool((power > 0).all()):
        raise ValueError("a ring of the spectrum has no power: nothing varies at its frequencies")
    return power.log()


def _jackknife_error(replicates: Tensor) -> float:
    return math.sqrt((len(replicates) - 1) / len(replicates) * (replicates - replicates.mean()).square().sum().item())
