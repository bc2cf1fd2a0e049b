"""Samplers of the VP-SDE on Gaussian data with the exact network, against exact solutions and recursions in Python floats.

Data has variance S per channel, so the noise's best prediction is sigma / D x_t, D = alpha^2 S + sigma^2, and the probability
flow ODE keeps x_t / sqrt(D).
"""

import math
from itertools import pairwise

import pytest
import torch
from torch.testing import assert_close

from smtool.diffusion import DDPM, VPSDE, Flow
from smtool.diffusion.samplers import (
    SAMPLERS,
    dpm_solver_fast,
    euler_maruyama_sde,
    even_times,
    fast_orders,
    fast_times,
    stochastic_times,
)

POWERS = (100.0, 1.0, 0.04, 0.01)
S = torch.tensor(POWERS, dtype=torch.float64).view(1, -1, 1, 1)
SCALE = 4.0


def _abar(t: float, scale: float = SCALE) -> float:
    survival = math.exp(-(0.1 * t + 9.95 * t * t))
    return scale * survival / (1 + (scale - 1) * survival)


def _beta(t: float, scale: float = SCALE) -> float:
    """The rate as DCTdiff writes it: beta minus a fraction."""
    beta, survival = 0.1 + 19.9 * t, math.exp(-(0.1 * t + 9.95 * t * t))
    return beta - beta * (scale - 1) * survival / (1 + (scale - 1) * survival)


def _power(t: float, power: float) -> float:
    return _abar(t) * power + 1 - _abar(t)


def _network(prediction: str = "eps"):
    def model(x, network_time, step_time=None):
        abar = _abar(network_time[0].item() / 999)
        total = abar * S + 1 - abar
        return math.sqrt(1 - abar) / total * x if prediction == "eps" else math.sqrt(abar) * S / total * x

    return model


def _no_noise(step):
    raise AssertionError("a deterministic sampler used step noise")


def _result(name: str, times: torch.Tensor, prediction: str = "eps") -> list[float]:
    one = torch.ones(1, len(POWERS), 1, 1, dtype=torch.float64)
    process = VPSDE(snr_scale=SCALE, prediction=prediction).build()
    return SAMPLERS[name].run(process, _network(prediction), one, times, _no_noise).flatten().tolist()


def _errors(steps: int) -> list[float]:
    """|result / exact - 1| of DPM-Solver fast at t = 1e-4."""
    found = _result("dpm-solver-fast", fast_times(VPSDE(snr_scale=SCALE).build(), steps))
    exact = [math.sqrt(_power(1e-4, power) / _power(1.0, power)) for power in POWERS]
    return [abs(one / other - 1) for one, other in zip(found, exact, strict=True)]


@pytest.mark.parametrize(("intervals", "twice"), [(40, 80), (80, 160)])
def test_dpm_solver_fast_has_order_3_where_its_last_interval_has_order_2(intervals, twice):
    """N mod 3 = 2: K intervals of equal length have N = 3 K - 1 calls, so twice the intervals halve the step."""
    ratios = [before / after for before, after in zip(_errors(3 * intervals - 1), _errors(3 * twice - 1), strict=True)]
    assert all(8 < ratio < 9 for ratio in ratios)                           # 8 with a correction that falls with the step


@pytest.mark.parametrize("rest", [0, 1])
def test_dpm_solver_fast_has_at_least_order_2_for_other_numbers_of_calls(rest):
    """The last interval of order 1 adds an error of order 2 to that of order 3: their difference falls by 4."""
    process = VPSDE(snr_scale=SCALE).build()

    def added(intervals):
        steps = {0: 3 * intervals - 3, 1: 3 * intervals - 2}[rest]
        assert steps % 3 == rest
        found, best = (_result("dpm-solver-fast", fast_times(process, n)) for n in (steps, 3 * intervals - 1))
        return [abs(one - other) for one, other in zip(found, best, strict=True)]

    assert all(4 < before / after < 4.3 for before, after in zip(added(160), added(320), strict=True))
    assert max(_errors({0: 477, 1: 478}[rest])) < 1e-6


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 6, 49, 50, 51])
def test_orders_and_times_are_the_published_ones(steps):
    """K = N // 3 + 1 intervals; N mod 3 = 0: 3 ... 3, 2, 1; 1: 3 ... 3, 1; 2: 3 ... 3, 2. Equal lengths in log(alpha / sigma)."""
    orders = fast_orders(steps)
    ending = {0: [2, 1], 1: [1], 2: [2]}[steps % 3]
    assert len(orders) == steps // 3 + 1 and sum(orders) == steps
    assert orders[-len(ending) :] == ending and set(orders[: -len(ending)]) <= {3}
    times = fast_times(VPSDE(snr_scale=SCALE).build(), steps).tolist()
    assert (len(times), times[0], times[-1]) == (steps + 1, 1.0, 1e-4)
    lengths = [0.5 * math.log(_abar(t) / (1 - _abar(t))) for t in times]
    whole = (lengths[-1] - lengths[0]) / len(orders)
    expected = [whole / order for order in orders for _ in range(order)]
    assert [b - a for a, b in pairwise(lengths)] == pytest.approx(expected, rel=1e-6)


def _published_fast(x: float, power: float, steps: int) -> float:
    """The steps of arXiv 2206.00927, algorithms 1 and 2, in the form of DCTdiff's sampler, for one band."""
    orders = fast_orders(steps)

    def half(t):
        return 0.5 * math.log(_abar(t) / (1 - _abar(t)))

    def time(value):
        integral = math.log(1 + SCALE * math.exp(-2 * value))
        return (math.sqrt(0.01 + 39.8 * integral) - 0.1) / 19.9

    def parts(t):
        return math.sqrt(_abar(t)), math.sqrt(1 - _abar(t))

    def eps(state, t):
        return parts(t)[1] / _power(t, power) * state

    bounds = [half(1.0) + (half(1e-4) - half(1.0)) * k / len(orders) for k in range(len(orders) + 1)]
    for (low, high), order in zip(pairwise(bounds), orders, strict=True):
        h, s, t = high - low, time(low), time(high)
        (a_s, _), (a_t, d_t), e = parts(s), parts(t), eps(x, s)
        if order == 1:
            x = a_t / a_s * x - d_t * math.expm1(h) * e
        elif order == 2:
            middle = time(low + h / 2)
            a, d = parts(middle)
            e1 = eps(a / a_s * x - d * math.expm1(h / 2) * e, middle)
            x = a_t / a_s * x - d_t * math.expm1(h) * e1                    # r = 1/2: the noise of the middle alone
        else:
            first, second = time(low + h / 3), time(low + 2 * h / 3)
            (a1, d1), (a2, d2) = parts(first), parts(second)
            e1 = eps(a1 / a_s * x - d1 * math.expm1(h / 3) * e, first)
            phi = math.expm1(2 * h / 3) / (2 * h / 3) - 1
            e2 = eps(a2 / a_s * x - d2 * math.expm1(2 * h / 3) * e - 2 * d2 * phi * (e1 - e), second)
            x = a_t / a_s * x - d_t * math.expm1(h) * e - 1.5 * d_t * (math.expm1(h) / h - 1) * (e2 - e)
    return x


@pytest.mark.parametrize("steps", [3, 4, 5, 50])
@pytest.mark.parametrize("prediction", ["eps", "x0"])
def test_dpm_solver_fast_follows_its_algorithms(steps, prediction):
    found = _result("dpm-solver-fast", fast_times(VPSDE(snr_scale=SCALE).build(), steps), prediction)
    assert found == pytest.approx([_published_fast(1.0, power, steps) for power in POWERS], rel=1e-8)


@pytest.mark.parametrize(("sampler", "largest"), [("ddim", 0.04), ("euler", 0.04), ("heun", 1e-3)])
def test_samplers_of_all_processes_converge_to_the_exact_solution(sampler, largest):
    """The last step, from sigma = sqrt(0.1 / N) to 0, is of order 1 in N for heun too, with a small factor."""
    process = VPSDE(snr_scale=SCALE).build()

    def errors(steps):
        found = _result(sampler, even_times(process, steps))
        exact = [math.sqrt(power / _power(1.0, power)) for power in POWERS]
        return [abs(one / other - 1) for one, other in zip(found, exact, strict=True)]

    for before, after in zip(errors(1600), errors(3200), strict=True):
        assert 1.8 < before / after < 4.3 and after < largest


def test_dpm_solver_pp_works_too():
    process = VPSDE(snr_scale=SCALE).build()
    found = _result("dpm-solver++", even_times(process, 2000))
    assert found == pytest.approx([math.sqrt(power / _power(1.0, power)) for power in POWERS], rel=2e-3)


def test_the_euler_ode_follows_its_recursion():
    times = stochastic_times(VPSDE().build(), 60, 1e-3)
    for gain, power in zip(_result("euler-maruyama-ode", times), POWERS, strict=True):
        x = 1.0
        for t, s in pairwise(times.tolist()):
            score = -x / _power(t, power)                                   # of a Gaussian of variance D
            x = x + (-0.5 * _beta(t) * x - 0.5 * _beta(t) * score) * (s - t)
        assert gain == pytest.approx(x, rel=1e-9)


@pytest.mark.parametrize("prediction", ["eps", "x0"])
def test_euler_maruyama_follows_its_variance_recursion(prediction):
    """In sample j of the batch, only the j-th of all noises is not 0, so the sum of squares is the variance."""
    process = VPSDE(snr_scale=SCALE, prediction=prediction).build()
    times = SAMPLERS["euler-maruyama-sde"].times(process, 50, 0.04)
    assert_close(times, torch.cat([torch.linspace(1, 1e-3, 50, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)]))
    drawn = []

    def unit(j):
        noise = torch.zeros(50, len(POWERS), 1, 1, dtype=torch.float64)
        noise[j] = 1
        return noise

    def step_noise(i):
        drawn.append(i)
        return unit(i + 1)

    out = euler_maruyama_sde(process, _network(prediction), unit(0), times, step_noise)
    assert drawn == list(range(49))                                         # none in the step to t = 0
    for found, power in zip(out.square().sum(0).flatten().tolist(), POWERS, strict=True):
        variance = 1.0
        for i, (t, s) in enumerate(pairwise(times.tolist())):
            factor = 1 + (s - t) * _beta(t) * (-0.5 + 1 / _power(t, power))
            variance = factor**2 * variance + (_beta(t) * (t - s) if i < 49 else 0.0)
        assert found == pytest.approx(variance, rel=1e-9)


@pytest.mark.parametrize("name", ["dpm-solver-fast", "euler-maruyama-sde", "euler-maruyama-ode"])
@pytest.mark.parametrize("config", [Flow(), DDPM()])
def test_samplers_of_the_vp_sde_refuse_other_processes(name, config):
    process = config.build()
    times = torch.linspace(1, 0, 5, dtype=torch.float64)
    with pytest.raises(ValueError, match="needs a vp-sde process; ddim works with all"):
        SAMPLERS[name].run(process, _network(), torch.ones(1, len(POWERS), 1, 1), times, _no_noise)


def test_euler_maruyama_of_flows_refuses_the_vp_sde():
    with pytest.raises(ValueError, match="cannot sample a vp-sde process; ddim can"):
        SAMPLERS["euler-maruyama"].run(
            VPSDE().build(), _network(), torch.ones(1, len(POWERS), 1, 1), torch.linspace(1, 0, 5), _no_noise
        )


def test_all_calls_of_an_interval_are_guided_by_where_it_begins():
    """And the model is called as often as `steps` says, at the times of the grid."""
    seen = []

    def model(x, network_time, step_time=None):
        seen.append((network_time[0].item() / 999, step_time[0].item() / 999))
        return x

    process = VPSDE().build()
    times = fast_times(process, 8)
    dpm_solver_fast(process, model, torch.ones(1, 1, 2, 2, dtype=torch.float64), times, _no_noise)
    assert [at for at, _ in seen] == pytest.approx(times[:-1].tolist())
    assert [begun for _, begun in seen] == pytest.approx([times[i].item() for i in (0, 0, 0, 3, 3, 3, 6, 6)])
