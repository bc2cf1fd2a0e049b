"""Consequences of a power spectrum for a diffusion model: closed forms for independent Gaussian coefficients.

Source of the whole module: Spectrum Matching (arXiv 2603.14645), Proposition 3.1, and spectrum.md#noise-crossing.

`power` is S_k, the variance of coefficient k of the *normalized* latent under an orthonormal transform; the noise has variance 1.
Rectified flow, data at t = 0: x_t = (1 - t) x + t noise, velocity v = noise - x. DDPM: x_t = sqrt(abar) x + sqrt(1 - abar) noise.
`power` and `t` broadcast: `learnable_power(power, t[:, None])` is a table over (t, k).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor


def spectral_flatness(power: Tensor) -> Tensor:
    """Geometric mean over arithmetic mean of powers, (..., K) -> (...), in [0, 1].

    1 for a white spectrum, near 0 for power that is concentrated in few coefficients. Source: paper Lemma A.2.
    """
    power = power.double()
    return power.log().mean(-1).exp() / power.mean(-1)


def learnable_power(power: Tensor, t: Tensor, target: Literal["x", "velocity", "noise"] = "velocity") -> Tensor:
    """Power of a network's target that x_t explains: S SNR / (1 + SNR) times the weight of the target, SNR = (1 - t)^2 S / t^2.

    t: flow time, in (0, 1]. S SNR / (1 + SNR) is the reduction of the squared error of x relative to a prediction of its mean
    (target "x", weight 1). Networks that predict the velocity or the noise weight an error of x by 1 / t^2 or (1 - t)^2 / t^2.
    It differs from `velocity_explained`, which is relative to a prediction of v = 0. Raises ValueError for an unknown target.
    """
    return _learnable(power, 1 - t, t, target)


def learnable_power_ddpm(power: Tensor, abar: Tensor, target: Literal["x", "velocity", "noise"] = "noise") -> Tensor:
    """`learnable_power` for DDPM: SNR = abar S / (1 - abar), with weights 1, 1 / (1 - abar) and abar / (1 - abar).

    abar: in [0, 1). The weights are those of the targets "x", "velocity" and "noise".
    """
    return _learnable(power, abar.sqrt(), (1 - abar).sqrt(), target)


def velocity_floor(power: Tensor, t: Tensor) -> Tensor:
    """Squared error of v that remains for a perfect network on the flow: S / D, D = (1 - t)^2 S + t^2."""
    return power / _mixed(power, t)


def velocity_explained(power: Tensor, t: Tensor) -> Tensor:
    """Reduction of the squared error of v by a perfect network, relative to a prediction of v = 0: (t - (1 - t) S)^2 / D.

    D = (1 - t)^2 S + t^2. It is 0 at t / (1 - t) = S.
    """
    return (t - (1 - t) * power).square() / _mixed(power, t)


def mean_velocity_floor(power: Tensor) -> Tensor:
    """`velocity_floor` averaged over uniform t in [0, 1]: (pi / 2) sqrt(S).

    A band's fraction of the total floor is therefore its fraction of sum sqrt(S).
    """
    return power.sqrt() * (math.pi / 2)


def crossing_time(power: Tensor) -> Tensor:
    """The flow time at which the SNR of a coefficient falls below 1: t* = sqrt(S) / (1 + sqrt(S))."""
    return power.sqrt() / (1 + power.sqrt())


def crossing_abar(power: Tensor) -> Tensor:
    """The abar at which the SNR of a coefficient falls below 1 in DDPM: 1 / (1 + S)."""
    return 1 / (1 + power)


@dataclass(frozen=True)
class RecolouredCrossing:
    """What recolouring does to crossing times. All (K,), float64.

    power: S after recolouring. crossing: `crossing_time` of it. shift: gain of each band, which is the s of the time shift
    t' = s t / (1 + (s - 1) t) from the old to the new crossing time of that band.
    """

    power: Tensor
    crossing: Tensor
    shift: Tensor


def recoloured_crossing(power: Tensor, law: Tensor, *, count: Tensor) -> RecolouredCrossing:
    """Crossing times of latents of spectrum `power` after recolouring to the shape `law` at equal total power.

    A gain g multiplies S by g^2 and t* / (1 - t*) = sqrt(S) by g. So recolouring is a time shift for each frequency, while a
    time shift of the process is one gain for all: recolouring can also change the order and the spread of the crossing times. For
    a white law of variance 1, all bands cross at t = 0.5. power, law: (K,), positive; law correct up to a factor. count: (K,),
    cells of each band. Raises ValueError for different shapes and for powers that are not positive.
    Source: spectrum.md#recolouring.
    """
    if not (power.shape == law.shape == count.shape and power.ndim == 1):
        raise ValueError(f"one value per band is needed: power {tuple(power.shape)}, law {tuple(law.shape)}, "
                         f"count {tuple(count.shape)}")
    if not bool((power > 0).all() and (law > 0).all()):
        raise ValueError("recolouring needs positive power in every band of the latents and of the law")
    old, shape, cells = power.double(), law.double(), count.double()
    new = shape * ((cells * old).sum() / (cells * shape).sum())
    return RecolouredCrossing(new, crossing_time(new), (new / old).sqrt())


@dataclass(frozen=True)
class TimeShift:
    """The s of the time shift t' = s t / (1 + (s - 1) t) that gives latents B about the SNRs of a reference A.

    The shift multiplies t / (1 - t) by s. by_cells: s by equal mean log SNR over the cells. by_energy: s by the noise level at
    which half of the total power is still learnable (S SNR / (1 + SNR)). spread: ln[t* / (1 - t*)] of B's first cell minus that
    of its last, with t* the `crossing_time`; no shift changes it.
    """

    by_cells: float
    by_energy: float
    spread: float

    @property
    def rules_disagree(self) -> bool:
        """Whether the two values lie on opposite sides of 1: then the spectra differ in shape, which no time shift changes."""
        return (self.by_cells - 1) * (self.by_energy - 1) < 0


def time_shift(reference: Tensor, power: Tensor, *, count: Tensor) -> TimeShift:
    """The time shift that gives latents of spectrum `power` the signal-to-noise ratios of latents of spectrum `reference`.

    reference, power: (K,), positive, of the same cells or rings in cycles per image, lowest first. count: (K,), number of cells
    in each (ones for single cells). Spectra that differ by a gain only (std ratio g) give s = g by both rules; spectra of
    different shape cannot be made equal, see `TimeShift.rules_disagree`.

    Raises ValueError for different shapes and for powers that are not positive. Source: spectrum.md#noise-crossing.
    """
    if not (reference.shape == power.shape == count.shape and power.ndim == 1):
        raise ValueError(f"one value per matched cell is needed: reference {tuple(reference.shape)}, power {tuple(power.shape)}, "
                         f"count {tuple(count.shape)}")
    if not bool((reference > 0).all() and (power > 0).all()):
        raise ValueError("a time shift needs positive power in every cell of both spectra")
    a, b, cells = reference.double(), power.double(), count.double()
    log_ratio = (cells * (b.log() - a.log())).sum() / cells.sum()
    return TimeShift(
        by_cells=math.exp(0.5 * log_ratio.item()),
        by_energy=_half_energy_ratio(b, cells) / _half_energy_ratio(a, cells),
        spread=0.5 * (b[0].log() - b[-1].log()).item(),
    )


def _learnable(power: Tensor, alpha: Tensor, sigma: Tensor, target: str) -> Tensor:
    explained = (alpha * power).square() / (alpha.square() * power + sigma.square())
    if target == "x":
        return explained
    if target == "velocity":
        return explained / sigma.square()
    if target == "noise":
        return explained * (alpha / sigma).square()
    raise ValueError(f"target must be 'x', 'velocity' or 'noise', but is {target!r}")


def _mixed(power: Tensor, t: Tensor) -> Tensor:
    return (1 - t).square() * power + t.square()


def _half_energy_ratio(power: Tensor, cells: Tensor) -> float:
    """r = t / (1 - t) at which half of the power is still learnable: sum cells S^2 / (S + r^2) = 1/2 sum cells S."""
    half = 0.5 * (cells * power).sum()
    log_r = _bisect(lambda x: ((cells * power.square() / (power + math.exp(2 * x))).sum() > half).item(),
                    0.5 * power.min().log().item() - 1, 0.5 * power.max().log().item() + 1)
    return math.exp(log_r)


def _bisect(is_below: Callable[[float], bool | int | float], low: float, high: float) -> float:
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return 0.5 * (low + high)
