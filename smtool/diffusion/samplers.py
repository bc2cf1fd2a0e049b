"""Samplers, functions with one signature: (process, model, x, times, step_noise) -> latents at the last time.

x: (B, C, h, w), the state at times[0], in the dtype for the computation. times: (N + 1,) float64 on the CPU, falling to 0, or
to 1e-4 for DPM-Solver "fast".
model: (x, network_time (B,), step_time=...) -> prediction; guidance.py adds guidance to it.
step_noise: step i -> standard normal noise (B, C, h, w) of that step; only Euler-Maruyama on an SDE uses it.
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
from smtool.diffusion.vp_sde import VPSDEProcess

StepNoise = Callable[[int], Tensor]
SamplerFunction = Callable[[Process, Model, Tensor, Tensor, StepNoise], Tensor]
FAST_END = 1e-4
"""Time at which DPM-Solver "fast" ends, as published; there is no step to t = 0."""
SDE_END = 1e-3
"""Start time of the last step of Euler-Maruyama on vp-sde, as published."""


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
        raise ValueError(f"euler-maruyama solves the SDE of a flow and cannot sample a {process.kind} process; ddim can")
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


def euler_maruyama_sde(process: Process, model: Model, x: Tensor, times: Tensor, step_noise: StepNoise) -> Tensor:
    """Euler-Maruyama on the reverse SDE of vp-sde, in t: drift -beta_c x / 2 - beta_c score, score = -noise / sigma.

    Each step adds sqrt(beta_c |dt|) step_noise, except the last (arXiv 2011.13456, Eq. 6; released-code.md#process-of-dctdiff).
    Raises ValueError for another process.
    """
    last = len(times) - 2
    for i, (t, s) in enumerate(pairwise(times)):
        drift, rate = _sde_drift(process, model, x, t, share=1.0)
        x = x + drift * float(s - t)
        if i < last:
            x = x + math.sqrt(rate * float(t - s)) * step_noise(i).to(x)
    return x


def euler_maruyama_ode(process: Process, model: Model, x: Tensor, times: Tensor, step_noise: StepNoise) -> Tensor:
    """Euler's method on the probability flow ODE of vp-sde, in t: drift -beta_c x / 2 - beta_c score / 2.

    Source: arXiv 2011.13456, Eq. 13; grid: released-code.md#process-of-dctdiff. Raises ValueError for another process.
    """
    for t, s in pairwise(times):
        x = x + _sde_drift(process, model, x, t, share=0.5)[0] * float(s - t)
    return x


def dpm_solver_fast(process: Process, model: Model, x: Tensor, times: Tensor, step_noise: StepNoise) -> Tensor:
    """DPM-Solver "fast" for noise (arXiv 2206.00927, section 3.4): intervals of order 3, and of orders 2 and 1 at the end.

    times: those of all model calls, and the end (`fast_times`). Raises ValueError for another process than vp-sde.
    """
    first = 0
    for order in fast_orders(len(times) - 1):
        x = _interval(_vp_sde(process, "dpm-solver-fast"), model, x, times[first : first + order + 1])
        first += order
    return x


def fast_orders(steps: int) -> list[int]:
    """Orders of the steps // 3 + 1 intervals of DPM-Solver "fast"; their sum is `steps`, the number of model calls."""
    ending = ([2, 1], [1], [2])[steps % 3]
    return [3] * (steps // 3 + 1 - len(ending)) + ending


def even_times(process: Process, steps: int, stop: float = 0.0) -> Tensor:
    """(steps + 1,): evenly spaced from the process's start to `stop`, then `retimed` (shift, discrete noise levels)."""
    return _strictly_falling(process.retimed(torch.linspace(process.start, stop, steps + 1, dtype=torch.float64)))


def stochastic_times(process: Process, steps: int, end_time: float) -> Tensor:
    """(steps + 1,): linspace(start, end_time, steps), then 0: the grid of Euler-Maruyama in SiT and REPA.

    Source: released-code.md#euler-maruyama.
    """
    grid = torch.linspace(process.start, end_time, steps, dtype=torch.float64)
    return _strictly_falling(process.retimed(torch.cat([grid, grid.new_zeros(1)])))


def fast_times(process: Process, steps: int) -> Tensor:
    """(steps + 1,): times of the model calls of DPM-Solver "fast", and FAST_END.

    The intervals are equal in log(alpha / sigma); an interval of order n has n calls, at equal distances in it.
    """
    process = _vp_sde(process, "dpm-solver-fast")
    ends = torch.tensor([process.start, FAST_END], dtype=torch.float64)
    low, high = process.half_log_snr(ends).tolist()
    orders = fast_orders(steps)
    shares = [number + call / order for number, order in enumerate(orders) for call in range(order)]
    times = process.time_of(low + (high - low) * torch.tensor([*shares, len(orders)], dtype=torch.float64) / len(orders))
    times[0], times[-1] = ends
    return times


ALL_PROCESSES = ("flow", "ddpm", "vp-sde")


@dataclass(frozen=True)
class Method:
    """A sampler and its properties.

    times: (process, steps, end_time) -> time grid, (steps + 1,) float64 from noise to data. model_calls: steps -> calls per
    sample. processes: kinds of the processes that it can sample. stops: whether it may stop ahead of t = 0, on `even_times`.
    """

    run: SamplerFunction
    times: Callable[[Process, int, float], Tensor] = lambda process, steps, end_time: even_times(process, steps)
    model_calls: Callable[[int], int] = lambda steps: steps
    processes: tuple[str, ...] = ALL_PROCESSES
    stops: bool = False


def _sde_times(process: Process, steps: int, end_time: float) -> Tensor:
    """linspace(1, SDE_END, steps), then 0, whatever the end time in the recipe."""
    return stochastic_times(process, steps, SDE_END)


SAMPLERS: dict[str, Method] = {
    "ddim": Method(ddim, stops=True),
    "dpm-solver++": Method(dpm_solver_pp, stops=True),
    "euler": Method(euler, stops=True),
    "heun": Method(heun, model_calls=lambda steps: 2 * steps - 1),
    "euler-maruyama": Method(euler_maruyama, times=stochastic_times, processes=("flow",)),
    "dpm-solver-fast": Method(
        dpm_solver_fast, times=lambda process, steps, end_time: fast_times(process, steps), processes=("vp-sde",)
    ),
    "euler-maruyama-sde": Method(euler_maruyama_sde, times=_sde_times, processes=("vp-sde",)),
    "euler-maruyama-ode": Method(euler_maruyama_ode, times=_sde_times, processes=("vp-sde",)),
}
"""All samplers, by the name that recipes use. To add one, write a function and add an entry."""


def _strictly_falling(times: Tensor) -> Tensor:
    if not bool((times.diff() < 0).all()):
        raise ValueError(f"{len(times) - 1} steps do not fit: the process has fewer noise levels")
    return times


def _predict(process: Process, model: Model, x: Tensor, t: Tensor, step: Tensor | None = None) -> Tensor:
    """The model's prediction at time t, in a step that began at time `step` (None: at t). No copy to the device, which waits."""
    time, begin = (process.network_time(one).to(x.dtype) for one in (t, t if step is None else step))
    return model(x, torch.full((len(x),), time.item(), dtype=x.dtype, device=x.device), step_time=begin.expand(len(x)))


def _slope(process: Process, model: Model, x: Tensor, t: Tensor, step: Tensor | None = None) -> Tensor:
    return process.velocity(_predict(process, model, x, t, step), x, t)


def _moved(process: Process, x: Tensor, slope: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """One linear step from t to s in the coordinates of `Process.clock`."""
    (scale_t, clock_t), (scale_s, clock_s) = _numbers(*process.clock(t)), _numbers(*process.clock(s))
    return (scale_t * x + (clock_s - clock_t) * slope) / scale_s


def _vp_sde(process: Process, sampler: str) -> VPSDEProcess:
    if not isinstance(process, VPSDEProcess):
        raise ValueError(f"{sampler} needs a vp-sde process; ddim works with all")
    return process


def _sde_drift(process: Process, model: Model, x: Tensor, t: Tensor, *, share: float) -> tuple[Tensor, float]:
    """(-beta_c x / 2 - share beta_c score, beta_c) at time t."""
    process = _vp_sde(process, "Euler-Maruyama in t")
    rate, sigma = _numbers(process.rate(t), process.alpha_sigma(t)[1])
    score = -process.noise_of(_predict(process, model, x, t), x, t) / sigma
    return -rate * (0.5 * x + share * score), rate


def _interval(process: VPSDEProcess, model: Model, x: Tensor, times: Tensor) -> Tensor:
    """One interval of DPM-Solver: model calls at all `times` except the last, whose number is the order, 1 to 3."""
    start = times[0]
    alphas, sigmas = (values.tolist() for values in process.alpha_sigma(times))
    lengths = (process.half_log_snr(times) - process.half_log_snr(start)).tolist()      # r h of each time, h of the last

    def noise(state: Tensor, t: Tensor) -> Tensor:
        return process.noise_of(_predict(process, model, state, t, start), state, t)

    at_start = latest = noise(x, start)
    moved = x
    for number in range(1, len(times)):
        length, decay = lengths[number], math.expm1(lengths[number])
        moved = alphas[number] / alphas[0] * x - sigmas[number] * decay * at_start
        if number > 1:
            earlier = lengths[number - 1]
            factor = decay / 2 if len(times) == 3 else decay / length - 1
            moved = moved - sigmas[number] * factor * length / earlier * (latest - at_start)
        if number < len(times) - 1:
            latest = noise(moved, times[number])
    return moved


def _log_snr(alpha: float, sigma: float) -> float:
    """log(alpha / sigma): -inf at pure noise, +inf at pure data."""
    if alpha <= 0:
        return -math.inf
    return math.log(alpha / sigma) if sigma > 0 else math.inf


def _numbers(first: Tensor, second: Tensor) -> tuple[float, float]:
    return float(first), float(second)
