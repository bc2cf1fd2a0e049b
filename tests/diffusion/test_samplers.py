"""Samplers compared with diffusers and, on Gaussian data with the exact network, with the variance recursion of their grid.

Data has variance S per channel, so the best prediction of x from x_t is alpha S / D x_t, D = alpha^2 S + sigma^2. Every sampler
is then a linear map of its noises, which is computed here with Python floats.
"""

import math
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from smtool.diffusion import DDPM, Flow, guided
from smtool.diffusion.samplers import SAMPLERS, ddim, dpm_solver_pp, euler, euler_maruyama, even_times, heun, stochastic_times

POWERS = (100.0, 1.0, 0.04, 0.01)
S = torch.tensor(POWERS, dtype=torch.float64).view(1, -1, 1, 1)
ABAR = [1.0]
for i in range(1000):
    ABAR.append(ABAR[-1] * (1 - (0.00085**0.5 + i / 999 * (0.012**0.5 - 0.00085**0.5)) ** 2))

PROCESSES = {
    "linear": Flow(),
    "linear, x": Flow(prediction="x"),
    "linear, eps": Flow(prediction="eps"),
    "linear, shifted": Flow(shift=3.0),
    "cosine": Flow(path="cosine"),
    "cosine, eps": Flow(path="cosine", prediction="eps"),
    "ddpm": DDPM(),
}


def _alpha_sigma(config, t):
    if config.kind == "ddpm":
        abar = ABAR[round(1000 * t)]
        return math.sqrt(abar), math.sqrt(1 - abar)
    return (1 - t, t) if config.path == "linear" else (math.cos(math.pi * t / 2), math.sin(math.pi * t / 2))


def _perfect_network(config):
    def model(x, network_time, step_time=None):
        assert network_time.shape == (len(x),)
        time = network_time[0].item()
        alpha, sigma = _alpha_sigma(config, time / 1000 if config.kind == "ddpm" else time)
        power = alpha**2 * S + sigma**2
        data, noise = alpha * S / power * x, sigma / power * x
        prediction = "eps" if config.kind == "ddpm" else config.prediction
        if prediction == "v":
            linear = config.path == "linear"
            return noise - data if linear else math.pi / 2 * (alpha * noise - sigma * data)
        return data if prediction == "x" else noise

    return model


def _no_noise(step):
    raise AssertionError("a deterministic sampler used step noise")


def _gains(sampler, config, times):
    """Factor of a deterministic sampler from its starting noise to its result, per band."""
    one = torch.ones(1, len(POWERS), 1, 1, dtype=torch.float64)
    return SAMPLERS[sampler].run(config.build(), _perfect_network(config), one, times, _no_noise).flatten().tolist()


def _expected_gain(sampler, config, times, power):
    """The factor by the recursion x <- a x of each method, for a band of variance `power`."""
    times = times.tolist()
    gain, kept, h_kept = 1.0, None, None
    for t, s in pairwise(times):
        (alpha, sigma), (alpha_s, sigma_s) = _alpha_sigma(config, t), _alpha_sigma(config, s)
        d = alpha**2 * power + sigma**2
        data, noise = alpha * power / d, sigma / d
        if sampler == "ddim":
            gain *= alpha_s * data + sigma_s * noise
        elif sampler in ("euler", "heun"):
            step, slope, after, scale = _ode(config, t, s, power)
            ahead = 1 + step * slope
            gain *= scale * (ahead if sampler == "euler" or s == 0 else 1 + step / 2 * (slope + after * ahead))
        else:
            data *= gain
            if s == 0:
                gain = alpha_s * data
            elif alpha < 1e-9:
                gain = sigma_s / sigma * gain + alpha_s * data
                h_kept = math.inf
            else:
                h = math.log(alpha_s / sigma_s) - math.log(alpha / sigma)
                both = data if kept is None else (1 + h / h_kept / 2) * data - h / h_kept / 2 * kept
                gain = sigma_s / sigma * gain - alpha_s * math.expm1(-h) * both
                h_kept = h
            kept = data
    return gain


def _ode(config, t, s, power):
    """(step, slope at t, slope at s, factor back to x) of a linear ODE dy/dc = slope y, for unit y at t."""
    def slope(u):
        alpha, sigma = _alpha_sigma(config, u)
        d = alpha**2 * power + sigma**2
        if config.kind == "ddpm":
            return sigma / d * alpha                                # noise over x, and x = alpha y
        da, ds = (-1, 1) if config.path == "linear" else (-math.pi / 2 * sigma, math.pi / 2 * alpha)
        return (da * alpha * power + ds * sigma) / d
    if config.kind != "ddpm":
        return s - t, slope(t), slope(s), 1.0
    (alpha, sigma), (alpha_s, sigma_s) = _alpha_sigma(config, t), _alpha_sigma(config, s)
    return sigma_s / alpha_s - sigma / alpha, slope(t), slope(s), alpha_s / alpha


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("sampler", ["ddim", "dpm-solver++", "euler", "heun"])
def test_deterministic_samplers_follow_their_variance_recursion(sampler, process):
    config = PROCESSES[process]
    times = even_times(config.build(), 25)
    expected = [_expected_gain(sampler, config, times, power) for power in POWERS]
    assert_close(torch.tensor(_gains(sampler, config, times)), torch.tensor(expected), rtol=1e-6, atol=1e-9)


def _error(sampler, config, times):
    """|returned / true standard deviation - 1| per band."""
    return [abs(gain / power**0.5 - 1) for gain, power in zip(_gains(sampler, config, times), POWERS, strict=True)]


@pytest.mark.parametrize("path", ["linear", "cosine"])
@pytest.mark.parametrize(("sampler", "low", "high"), [("ddim", 1.9, 2.1), ("euler", 1.9, 2.1), ("heun", 3.8, 4.2)])
def test_the_error_falls_at_the_order_of_the_method(sampler, low, high, path):
    """With twice the steps, which also halves the last step to t = 0, the error is a half or a quarter."""
    config = Flow(path=path)
    coarse, fine = (_error(sampler, config, even_times(config.build(), steps)) for steps in (400, 800))
    for before, after in zip(coarse, fine, strict=True):
        if before > 1e-9:                                           # on the cosine path S = 1 is exact for euler and heun
            assert low < before / after < high


def test_dpm_solver_falls_by_log_n_over_n_squared_on_the_whole_interval():
    config = Flow()
    coarse, fine = (_error("dpm-solver++", config, even_times(config.build(), steps)) for steps in (1000, 2000))
    expected = 4 * math.log(1000) / math.log(2000)                  # 3.63
    for before, after in zip(coarse, fine, strict=True):
        assert before / after == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("path", ["linear", "cosine"])
def test_dpm_solver_has_order_two_between_two_times_inside(path):
    config = Flow(path=path)
    start, end = 0.9, 0.1

    def errors(steps):
        gains = _gains("dpm-solver++", config, torch.linspace(start, end, steps + 1, dtype=torch.float64))
        for power, gain in zip(POWERS, gains, strict=True):
            (alpha, sigma), (alpha_s, sigma_s) = _alpha_sigma(config, start), _alpha_sigma(config, end)
            yield abs(gain / math.sqrt((alpha_s**2 * power + sigma_s**2) / (alpha**2 * power + sigma**2)) - 1)

    for before, after in zip(errors(1600), errors(3200), strict=True):
        assert 3.8 < before / after < 4.2


def _em_variance(times, config=None):
    """Exact variance returned by Euler-Maruyama: in sample j of the batch, only the j-th of all noises is not 0."""
    config = config or Flow()
    count = len(times) - 1                                          # the start and count - 1 step noises
    def unit(j):
        noise = torch.zeros(count, len(POWERS), 1, 1, dtype=torch.float64)
        noise[j] = 1
        return noise
    drawn = []
    def step_noise(i):
        drawn.append(i)
        return unit(i + 1)
    out = euler_maruyama(config.build(), _perfect_network(config), unit(0), times, step_noise)
    assert drawn == list(range(count - 1))                          # once in each step except the last
    return out.square().sum(0).flatten().tolist()


def _em_recursion(times, power):
    """Linear path: drift v - w s / 2 with w = 2t and s = (-(1 - t) v - x) / t (released-code.md#euler-maruyama)."""
    variance, times = 1.0, times.tolist()
    for i, (t, s) in enumerate(pairwise(times)):
        v = (t - (1 - t) * power) / ((1 - t) ** 2 * power + t**2)
        score = (-(1 - t) * v - 1) / t
        step = 1 + (s - t) * (v - t * score)
        variance = step**2 * variance + (2 * t * (t - s) if i < len(times) - 2 else 0.0)
    return variance


@pytest.mark.parametrize("prediction", ["v", "x"])
def test_euler_maruyama_follows_its_variance_recursion(prediction):
    config = Flow(prediction=prediction)
    times = stochastic_times(config.build(), 60, 0.04)
    expected = [_em_recursion(times, power) for power in POWERS]
    assert_close(torch.tensor(_em_variance(times, config)), torch.tensor(expected), rtol=1e-6, atol=0)


def test_the_published_grid_damps_bands_of_low_variance():
    """S'/S = .92, .98, .61 for S = 100, 1, .01 with 100 steps; ten times as many hardly change the lowest value.

    Source: released-code.md#euler-maruyama.
    """
    found = dict(zip(POWERS, _em_variance(stochastic_times(Flow().build(), 100, 0.04)), strict=True))
    assert [round(found[power] / power, 2) for power in (100.0, 1.0, 0.01)] == [0.92, 0.98, 0.61]
    assert _em_recursion(stochastic_times(Flow().build(), 1000, 0.04), 0.01) / 0.01 == pytest.approx(0.594, abs=0.001)


def test_euler_maruyama_has_order_one_as_its_end_time_goes_to_zero():
    """For S = .01 the error ratio per doubling is 2.9 at 400 steps and 2.2 at 1600; it reaches 2 with still more steps."""
    coarse, fine = (_em_variance(stochastic_times(Flow().build(), steps, 1 / steps)) for steps in (200, 400))
    for power, before, after in zip(POWERS[:2], coarse, fine, strict=False):
        assert 1.95 < abs(before / power - 1) / abs(after / power - 1) < 2.05
    errors = [abs(_em_recursion(stochastic_times(Flow().build(), steps, 1 / steps), 0.01) / 0.01 - 1) for steps in (6400, 12800)]
    assert 1.95 < errors[0] / errors[1] < 2.1


def test_euler_maruyama_of_random_noise_has_that_variance():
    """40,000 values per band, so the standard error of a variance ratio is 0.7 %."""
    config = Flow()
    times = stochastic_times(config.build(), 20, 0.04)
    rng = torch.Generator().manual_seed(0)
    noise = [torch.randn(10_000, len(POWERS), 2, 2, generator=rng, dtype=torch.float64) for _ in range(20)]
    out = euler_maruyama(config.build(), _perfect_network(config), noise[0], times, lambda i: noise[i + 1])
    expected = torch.tensor([_em_recursion(times, power) for power in POWERS], dtype=torch.float64)
    assert_close(out.square().mean((0, 2, 3)) / expected, torch.ones_like(expected), rtol=0, atol=0.03)


def test_grids_are_those_of_the_papers():
    flow, ddpm = Flow().build(), DDPM().build()
    assert_close(even_times(flow, 4), torch.tensor([1, 0.75, 0.5, 0.25, 0], dtype=torch.float64))
    assert (even_times(ddpm, 100) * 1000).round().long().tolist() == [*range(1000, 0, -10), 0]
    assert_close(stochastic_times(flow, 3, 0.04), torch.tensor([1, 0.52, 0.04, 0], dtype=torch.float64))
    shifted = even_times(Flow(shift=3.0).build(), 2)
    assert_close(shifted, torch.tensor([1, 0.75, 0], dtype=torch.float64))       # t / (1 - t) = 1 becomes 3
    with pytest.raises(ValueError, match="1001 steps do not fit"):
        even_times(ddpm, 1001)


def test_stable_diffusions_schedule_leaves_signal_in_its_last_step():
    """Even an exact solver returns a band of high variance with too little: S / (abar S + 1 - abar), 68 % for S = 100."""
    gain = _gains("heun", DDPM(), even_times(DDPM().build(), 500))[0]
    assert gain**2 / 100 == pytest.approx(1 / (ABAR[1000] * 100 + 1 - ABAR[1000]), abs=1e-4)
    assert gain**2 / 100 == pytest.approx(0.684, abs=0.001)


def _nonlinear(x, network_time, step_time=None):
    return torch.tanh(x + network_time.view(-1, 1, 1, 1) / 700) + 0.3 * x


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize(
    ("name", "steps"), [("ddim", 10), ("ddim", 100), ("dpm-solver++", 10), ("dpm-solver++", 30), ("dpm-solver++", 100)]
)
def test_ddpm_samplers_equal_diffusers(name, steps):
    """With the same starting noise and the same nonlinear network. diffusers' tables are float32.

    diffusers' DDIM steps by 1000 // steps, which equals the distance of its times only if `steps` divides 1000."""
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "timestep_spacing": "trailing"}
    if name == "ddim":
        theirs = DDIMScheduler(clip_sample=False, set_alpha_to_one=True, **schedule)
    else:
        theirs = DPMSolverMultistepScheduler(algorithm_type="dpmsolver++", final_sigmas_type="zero", **schedule)
    theirs.set_timesteps(steps)
    start = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = start
    for timestep in theirs.timesteps:
        n = torch.full((2,), float(timestep) + 1)
        expected = theirs.step(_nonlinear(expected, n), timestep, expected).prev_sample
    process = DDPM().build()
    found = SAMPLERS[name].run(process, _nonlinear, start, even_times(process, steps), _no_noise)
    assert_close(found, expected.double(), rtol=1e-4, atol=1e-4)


def test_euler_is_ddim_on_the_linear_path_and_on_ddpm():
    start = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for config in (Flow(), Flow(prediction="x"), DDPM()):
        process = config.build()
        times = even_times(process, 12)
        one, other = (method(process, _nonlinear, start, times, _no_noise) for method in (ddim, euler))
        assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("method", "calls"), [(ddim, 12), (dpm_solver_pp, 12), (euler, 12), (heun, 23)])
def test_the_number_of_model_calls_is_the_stated_one(method, calls):
    called = []

    def counting(x, network_time, step_time=None):
        called.append(network_time[0].item())
        return x

    process = Flow().build()
    method(process, counting, torch.ones(1, 1, 2, 2, dtype=torch.float64), even_times(process, 12), _no_noise)
    assert len(called) == calls
    assert 0.0 not in called                                        # the model is never called at t = 0


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.3, 0.7), (0.25, 0.6)])
def test_heun_guides_both_calls_of_a_step_by_where_the_step_begins(low, high):
    """Compared with a restatement of REPA's euler_sampler(heun=True), where t_cur decides on guidance for both calls."""
    scale, labels = 2.5, torch.tensor([3.0, 7.0]).view(2, 1, 1, 1)

    def velocity(x, t, y):
        return torch.sin(x + y / 5) - t

    x = start = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    grid = np.linspace(1, 0, 9)
    for i, (now, then) in enumerate(pairwise(grid)):
        def drift(x, t, guided=low <= now <= high):
            with_label = velocity(x, t, labels)
            without = velocity(x, t, torch.zeros_like(labels))
            return without + scale * (with_label - without) if guided else with_label

        slope = drift(x, now)
        ahead = x + (then - now) * slope
        x = x + (then - now) * (slope + drift(ahead, then)) / 2 if i < 7 else ahead

    def network(x, t, y):
        values = torch.where(y == 10, 0, y).view(-1, 1, 1, 1).double()
        return SimpleNamespace(output=velocity(x.double(), t.view(-1, 1, 1, 1).double(), values))

    model = guided(network, torch.tensor([3, 7]), null=10, scale=scale, interval=(low, high))
    process = Flow().build()
    found = heun(process, model, start, even_times(process, 8), _no_noise)
    assert_close(found, x, rtol=0, atol=1e-6)      # network inputs are float32


def test_euler_maruyama_refuses_a_ddpm_process():
    process = DDPM().build()
    with pytest.raises(ValueError, match="cannot sample a ddpm process; ddim can"):
        euler_maruyama(process, _nonlinear, torch.ones(1, 1, 2, 2), stochastic_times(process, 10, 0.04), _no_noise)
