"""What a spectrum means to a diffusion model: closed forms for independent Gaussian coefficients (Spectrum Matching,
Proposition 3.1).

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
    """Geometric over arithmetic mean of powers, (..., K) -> (...): 1 for white, towards 0 for concentrated (Lemma A.2)."""
    power = power.double()
    return power.log().mean(-1).exp() / power.mean(-1)


def learnable_power(power: Tensor, t: Tensor, target: Literal["x", "velocity", "noise"] = "velocity") -> Tensor:
    """Power that looking at x_t explains in a network's target: S SNR / (1 + SNR), SNR = (1 - t)^2 S / t^2, in the target's own
    weight.

    It is the fall of the squared error of x against the prior mean (`target = "x"`). A network that predicts the velocity or
    the noise weighs an error of x by 1 / t^2 or (1 - t)^2 / t^2. It differs from the variance of v that is explained from v =
    0, `velocity_explained`.
    """
    return _learnable(power, 1 - t, t, target)


def learnable_power_ddpm(power: Tensor, abar: Tensor, target: Literal["x", "velocity", "noise"] = "noise") -> Tensor:
    """`learnable_power` on DDPM's path: SNR = abar S / (1 - abar), and the weights are 1, 1 / (1 - abar), abar / (1 - abar)."""
    return _learnable(power, abar.sqrt(), (1 - abar).sqrt(), target)


def velocity_floor(power: Tensor, t: Tensor) -> Tensor:
    """Squared error of v that remains for a perfect network of the flow: S / D, D = (1 - t)^2 S + t^2."""
    return power / _mixed(power, t)


def velocity_explained(power: Tensor, t: Tensor) -> Tensor:
    """Variance of v that a perfect network explains, from v = 0: (t - (1 - t) S)^2 / D. It vanishes at t / (1 - t) = S."""
    return (t - (1 - t) * power).square() / _mixed(power, t)


def mean_velocity_floor(power: Tensor) -> Tensor:
    """`velocity_floor` averaged over uniform t: (pi / 2) sqrt(S). A band's fraction of the floor is that of sum sqrt(S)."""
    return power.sqrt() * (math.pi / 2)


def crossing_time(power: Tensor) -> Tensor:
    """The flow time at which the SNR of a coefficient falls below 1: t* = sqrt(S) / (1 + sqrt(S))."""
    return power.sqrt() / (1 + power.sqrt())


def crossing_abar(power: Tensor) -> Tensor:
    """The abar at which the SNR of a coefficient falls below 1 in DDPM: 1 / (1 + S)."""
    return 1 / (1 + power)


@dataclass(frozen=True)
class TimeShift:
    """The s of t' = s t / (1 + (s - 1) t) that brings latents B nearest to a reference A; the map multiplies t / (1 - t) by s.

    by_cells: equal mean log SNR over the cells. by_energy: equal noise level at which half of the total power has an SNR below 1.
    spread: ln[t* / (1 - t*)] of B's first cell less that of its last: the width that no shift changes.
    """

    by_cells: float
    by_energy: float
    spread: float

    @property
    def rules_disagree(self) -> bool:
        """Whether the two rules point to opposite sides of 1: the spectra differ in shape, and a shift cannot change this."""
        return (self.by_cells - 1) * (self.by_energy - 1) < 0


def time_shift(reference: Tensor, power: Tensor, *, count: Tensor) -> TimeShift:
    """The shift that gives latents of spectrum `power` the signal-to-noise ratios of latents of spectrum `reference`.

    reference, power: (K,), matched cells or rings in cycles per image, lowest first; count: (K,) cells in each (ones for single
    cells). A pure gain (std ratio g) gives s = g by both rules. Shapes cannot be equalized: see `TimeShift.rules_disagree`.
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
    """t / (1 - t) at which half of the power is still learnable: sum cells S^2 / (S + r^2) = 1/2 sum cells S."""
    half = 0.5 * (cells * power).sum()
    log_r = _bisect(lambda x: ((cells * power.square() / (power + math.exp(2 * x))).sum() > half).item(),
                    0.5 * power.min().log().item() - 1, 0.5 * power.max().log().item() + 1)
    return math.exp(log_r)


def _bisect(is_below: Callable[[float], bool | int | float], low: float, high: float) -> float:
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return 0.5 * (low + high)
