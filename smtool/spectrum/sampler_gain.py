"""Gain of a sampler in each frequency band: closed forms for independent Gaussian coefficients and a perfect network.

`power` is S, the variance of a coefficient of the normalized latent, (K,). With the best linear prediction every sampler is a
linear map of its noise, so the variance S' of its samples follows exactly. All functions return amplitudes sqrt(S' / S): 1 means
that the band keeps its power, below 1 that it is damped. The flow is x_t = (1 - t) x + t noise; "ddim" uses DDPM's scaled-linear
schedule of 1000 levels (released-code.md#u-vit). On the flow, DDIM and Euler are the same.
"""

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

GainSampler = Literal["ddim", "euler", "heun", "euler-maruyama"]
LEVELS = 1000
PUBLISHED_LAST_TIME = 0.04
"""Time at which SiT's and REPA's Euler-Maruyama sampler begins its last step (released-code.md#euler-maruyama)."""


def sampler_amplitude(power: Tensor, sampler: GainSampler, *, steps: int, last_t: float | None = None) -> Tensor:
    """sqrt(S' / S) of a whole sampling run that starts from unit noise: (K,) -> (K,), float64.

    power: (K,), positive. steps: 1 or more; the times are linspace(1, last_t, steps), then 0. last_t: time at which the last
    step begins, in (0, 1), or 1 for a single step. None means 1 / steps (even times), and 0.04 for Euler-Maruyama as published.
    "ddim" uses the nearest of its 1000 levels. Heun's last step is an Euler step.

    Raises ValueError for an unknown sampler, steps or last_t out of range, and more steps than levels. Source: derived here.
    """
    times = _grid(sampler, steps, last_t)
    step = _STEPS[sampler]
    power = power.double()
    variance = torch.ones_like(power)
    for t, s in pairwise(times):
        gain, noise = step(power, t, s)
        variance = gain.square() * variance + noise
    return (variance / power).sqrt()


def last_step_amplitude(power: Tensor, sampler: GainSampler, *, last_t: float) -> Tensor:
    """sqrt(S' / S) of the last step alone, from an exact x_t at t = last_t to 0: (K,) -> (K,), float64.

    DDIM, Euler and Heun return the mean of x given x_t: S' / S = SNR / (1 + SNR). Euler-Maruyama returns (1 - t ((2 - t) v +
    1)) x_t with v = (t - (1 - t) S) / D and D = (1 - t)^2 S + t^2. Both damp weak bands (SNR < 1), whatever the number of steps
    before. Source: derived here.
    """
    power = power.double()
    alpha, sigma = _ddpm(last_t) if sampler == "ddim" else (1 - last_t, last_t)
    gain, _ = _STEPS[sampler](power, last_t, 0.0)
    return gain.abs() * ((alpha**2 * power + sigma**2) / power).sqrt()


def _ddim(power: Tensor, t: float, s: float) -> tuple[Tensor, float]:
    (alpha_t, sigma_t), (alpha_s, sigma_s) = _ddpm(t), _ddpm(s)
    return (alpha_s * alpha_t * power + sigma_s * sigma_t) / (alpha_t**2 * power + sigma_t**2), 0.0


def _euler(power: Tensor, t: float, s: float) -> tuple[Tensor, float]:
    return 1 + (s - t) * _velocity(power, t), 0.0


def _heun(power: Tensor, t: float, s: float) -> tuple[Tensor, float]:
    guess, _ = _euler(power, t, s)
    if s == 0:
        return guess, 0.0
    return 1 + (s - t) / 2 * (_velocity(power, t) + _velocity(power, s) * guess), 0.0


def _euler_maruyama(power: Tensor, t: float, s: float) -> tuple[Tensor, float]:
    """The drift is v - t score with score = (-(1 - t) v - x) / t, that is (2 - t) v + x; w = 2t. The last step adds no noise."""
    return 1 + (s - t) * ((2 - t) * _velocity(power, t) + 1), 2 * t * (t - s) if s > 0 else 0.0


_STEPS: dict[str, Callable[[Tensor, float, float], tuple[Tensor, float]]] = {
    "ddim": _ddim,
    "euler": _euler,
    "heun": _heun,
    "euler-maruyama": _euler_maruyama,
}
"""(power, t, s) -> (factor of x_t in one step from t to s, variance of the noise that the step adds)."""


def _velocity(power: Tensor, t: float) -> Tensor:
    """The best prediction of noise - x, divided by x_t."""
    return (t - (1 - t) * power) / ((1 - t) ** 2 * power + t**2)


def _ddpm(t: float) -> tuple[float, float]:
    """alpha and sigma of level 1000 t; level 0 is the data."""
    abar = _abar()[round(LEVELS * t)].item()
    return abar**0.5, (1 - abar) ** 0.5


@lru_cache(maxsize=1)
def _abar() -> Tensor:
    """(1001,): 1, then the cumulative products of 1 - beta_i.

    The sqrt(beta_i) are evenly spaced from sqrt(0.00085) to sqrt(0.012) (released-code.md#u-vit).
    """
    with torch.inference_mode(False), torch.device("cpu"):
        beta = torch.linspace(0.00085**0.5, 0.012**0.5, LEVELS, dtype=torch.float64).square()
        return torch.cat([beta.new_ones(1), (1 - beta).cumprod(0)])


def _grid(sampler: str, steps: int, last_t: float | None) -> list[float]:
    if sampler not in _STEPS:
        raise ValueError(f"the gain is known for {', '.join(_STEPS)}, but not for {sampler!r}")
    last = last_t if last_t is not None else PUBLISHED_LAST_TIME if sampler == "euler-maruyama" else 1 / max(steps, 1)
    if steps < 1 or not 0 < last <= 1 or (steps > 1) != (last < 1):
        raise ValueError(f"a run needs steps >= 1 and 0 < last_t < 1 (one step starts at 1), but got {steps} and {last}")
    times = [*torch.linspace(1, last, steps, dtype=torch.float64).tolist(), 0.0]
    if sampler == "ddim":
        times = [round(LEVELS * t) / LEVELS for t in times]
    if any(s >= t for t, s in pairwise(times)):
        raise ValueError(f"{steps} steps do not fit on ddim's {LEVELS} levels")
    return times
