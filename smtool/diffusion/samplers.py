"""Samplers, functions with one signature: (process, model, x, times, step_noise) -> latents at the last time.

x: (B, C, h, w), the state at times[0], in the dtype for the computation. times: (N + 1,) float64 on the CPU, falling to 0.
model: (x, network_time (B,), step_time=...) -> prediction; guidance.py adds guidance to it.
step_noise: step i -> standard normal noise (B, C, h, w) of that step; only Euler-Maruyama uses it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from smtool.diffusion.flow import FlowProcess
from smtool.diffusion.guidance import Model
from smtool.diffusion.process import Process

StepNoise = Callable[[int], Tensor]
SamplerFunction = Callable[[Process, Model, Tensor, Tensor, StepNoise], Tensor]


def ddim(process: Process, model: Model, x: Tensor, times: Tensor, step_noise: StepNoise) -> Tensor:
    """DDIM with eta = 0 (arXiv 2010.02502, Eq. 12): x_s = alpha_s x0 + sigma_s noise. One model call per step."""
    for t, s in pairwise(times):
        prediction = _predict(process, model, x, t)
        alpha, sigma = _numbers(*process.alpha_sigma(s))
        x = alpha * process.denoised(prediction, x, t) + sigma * process.noise_of(prediction, x, t)
    return x


def dpm_solver_pp(process: Process, model: Model, x: Tensor, times: Tensor, step_noise: StepNoise) -> Tensor:
    """DPM-Solver++ 2M (arXiv 2211.01095, Algorithm 2): second order with one model call per step.

    The first and the last step are of first order: the first has no predecessor, and log(alpha / sigma) is infinite at t = 0.
    On a flow's even grid from t = 1, where this logarithm is infinite too, the error falls like log N / N^2.
    """
    previous: Tensor | None = None
    h_previous = math.inf
    for t, s in pairwise(times):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = _numbers(*process.alpha_sigma(t)), _numbers(*process.alpha_sigma(s))
        h = _log_snr(alpha_s, sigma_s) - _log_snr(alpha_t, sigma_t)
        data = process.denoised(_predict(process, model, x, t), x, t)
        ahead = data
        if previous is not None and math.isfinite(h):
            ahead = data + h / (2 * h_previous) * (data - previous)
        x = sigma_s / sigma_t * x + (alpha_s - sigma_s / sigma_t * alpha_t) * ahead
        previous, h_previous = data, h
    return x


def euler(process: Process, model: Model, x: Tensor, times: Tensor, step_noise: StepNoise) -> Tensor:
    """Euler's method on the deterministic path. For the linear flow and for DDPM it equals DDIM."""
    for t, s in pairwise(times):
        x = _moved(process, x, _slope(process, model, x, t), t, s)
    return x


def heun(process: Process, model: Model, x: Tensor, times: Tensor, step_noise: StepNoise) -> Tensor:
    """Heun's method, of second order: two model calls per step, one in the last step, which ends at t = 0.

    Source: released-code.md#euler-maruyama.
    """
    for t, s in pairwise(times):
        slope = _slope(process, model, x, t)
        guess = _moved(process, x, slope, t, s)
        x = guess if s == 0 else _moved(process, x, (slope + _slope(process, model, guess, s, step=t)) / 2, t, s)
    return x


def euler_maruyama(process: Process, model: Model, x: Tensor, times: Tensor, step_noise: StepNoise) -> Tensor:
    """Euler-Maruyama on the reverse SDE with w(t) = 2t, as in SiT and REPA (released-code.md#euler-maruyama).

    score = -noise / sigma, drift d = v - w score / 2, x <- x + d dt + sqrt(w |dt|) step_noise; the last step adds no noise.
    With the published grid, 1 ... 0.04 and then 0, bands of low variance lose variance for any number of steps.
    Raises ValueError for a process that is not a flow.
    """
    if not isinstance(process, FlowProcess):
        raise ValueError("euler-maruyama solves the SDE of a flow and cannot sample a ddpm process; ddim can")
    last = len(times) - 2
    for i, (t, s) in enumerate(pairwise(times.tolist())):
        now = times[i]
        prediction = _predict(process, model, x, now)
        w, dt = 2 * t, s - t
        score = -process.noise_of(prediction, x, now) / _numbers(*process.alpha_sigma(now))[1]
        x = x + (process.velocity(prediction, x, now) - 0.5 * w * score) * dt
        if i < last:
            x = x + math.sqrt(w * -dt) * step_noise(i).to(x)
    return x


def even_times(process: Process, steps: int) -> Tensor:
    """(steps + 1,): evenly spaced from the process's start to 0, then `retimed` (shift, discrete noise levels)."""
    return _strictly_falling(process.retimed(torch.linspace(process.start, 0, steps + 1, dtype=torch.float64)))


def stochastic_times(process: Process, steps: int, end_time: float) -> Tensor:
    """(steps + 1,): linspace(start, end_time, steps), then 0: the grid of Euler-Maruyama in SiT and REPA.

    Source: released-code.md#euler-maruyama.
    """
    grid = torch.linspace(process.start, end_time, steps, dtype=torch.float64)
    return _strictly_falling(process.retimed(torch.cat([grid, grid.new_zeros(1)])))


@dataclass(frozen=True)
class Method:
    """A sampler and its properties.

    times: (process, steps, end_time) -> time grid, (steps + 1,) float64 from noise to data. model_calls: steps -> calls per
    sample. needs_flow: whether it cannot sample a ddpm process.
    """

    run: SamplerFunction
    times: Callable[[Process, int, float], Tensor] = lambda process, steps, end_time: even_times(process, steps)
    model_calls: Callable[[int], int] = lambda steps: steps
    needs_flow: bool = False


SAMPLERS: dict[str, Method] = {
    "ddim": Method(ddim),
    "dpm-solver++": Method(dpm_solver_pp),
    "euler": Method(euler),
    "heun": Method(heun, model_calls=lambda steps: 2 * steps - 1),
    "euler-maruyama": Method(euler_maruyama, times=stochastic_times, needs_flow=True),
}
"""All samplers, by the name that recipes use. To add one, write a function and add an entry."""


def _strictly_falling(times: Tensor) -> Tensor:
    if not bool((times.diff() < 0).all()):
        raise ValueError(f"{len(times) - 1} steps do not fit: the process has fewer noise levels")
    return times


def _predict(process: Process, model: Model, x: Tensor, t: Tensor, step: Tensor | None = None) -> Tensor:
    """The model's prediction at time t, in a step that began at time `step` (None: at t)."""
    time = process.network_time(t).to(x).expand(len(x))
    if step is None:
        return model(x, time)
    return model(x, time, step_time=process.network_time(step).to(x).expand(len(x)))


def _slope(process: Process, model: Model, x: Tensor, t: Tensor, step: Tensor | None = None) -> Tensor:
    return process.velocity(_predict(process, model, x, t, step), x, t)


def _moved(process: Process, x: Tensor, slope: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """One linear step from t to s in the coordinates of `Process.clock`."""
    (scale_t, clock_t), (scale_s, clock_s) = _numbers(*process.clock(t)), _numbers(*process.clock(s))
    return (scale_t * x + (clock_s - clock_t) * slope) / scale_s


def _log_snr(alpha: float, sigma: float) -> float:
    """log(alpha / sigma): -inf at pure noise, +inf at pure data."""
    if alpha <= 0:
        return -math.inf
    return math.log(alpha / sigma) if sigma > 0 else math.inf


def _numbers(first: Tensor, second: Tensor) -> tuple[float, float]:
    return float(first), float(second)
