"""Input perturbation and epsilon scaling against their formulas, closed forms on Gaussian data, and scipy's integration."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad, solve_ivp
from torch.testing import assert_close

from smtool.diffusion import DDPM, VPSDE, Flow, Sampler, perturbed, sample
from smtool.diffusion.exposure import LARGEST_RATIO, epsilon_scaled
from smtool.diffusion.samplers import SAMPLERS

GAMMA = 0.3
CONFIGS = {
    "ddpm": DDPM(input_perturbation=GAMMA),
    "ddpm, c": DDPM(snr_scale=2.0, input_perturbation=GAMMA),
    "vp-sde": VPSDE(input_perturbation=GAMMA),
    "vp-sde, x0": VPSDE(prediction="x0", snr_scale=4.0, input_perturbation=GAMMA),
    "flow": Flow(input_perturbation=GAMMA),
    "flow, x": Flow(prediction="x", shift=2.0, input_perturbation=GAMMA),
    "flow, eps": Flow(prediction="eps", input_perturbation=GAMMA),
    "cosine": Flow(path="cosine", input_perturbation=GAMMA),
}
FIRST, LAST = 0.00085**0.5, 0.012**0.5
ABAR = [math.prod(1 - (FIRST + i / 999 * (LAST - FIRST)) ** 2 for i in range(n)) for n in range(1001)]


def _alpha_sigma(config, t):
    """The factors of data and noise at a time, in Python floats."""
    if config.kind == "flow":
        return (1 - t, t) if config.path == "linear" else (math.cos(math.pi * t / 2), math.sin(math.pi * t / 2))
    if config.kind == "ddpm":
        abar = ABAR[round(1000 * t)]
    else:
        abar = math.exp(-quad(lambda s: 0.1 + 19.9 * s, 0, t)[0])
    abar = config.snr_scale * abar / (1 + (config.snr_scale - 1) * abar)
    return math.sqrt(abar), math.sqrt(1 - abar)


def _draws(count, *shape, seed=0):
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(rng.standard_normal((count, *shape))) for _ in range(3)]


# -- input perturbation


@pytest.mark.parametrize("name", CONFIGS)
def test_a_perturbed_input_is_the_formula_and_the_target_stays(name):
    config = CONFIGS[name]
    x, noise, xi = _draws(5, 2, 3, 4)
    uniform = torch.tensor([0.01, 0.2, 0.5, 0.77, 0.995], dtype=torch.float64)
    process = config.build()
    plain = process.noised(x, noise, uniform)
    found = perturbed(process, plain, xi)
    assert found.target is plain.target and found.t is plain.t and found.network_time is plain.network_time
    for number, t in enumerate(plain.t.tolist()):
        alpha, sigma = _alpha_sigma(config, t)
        assert_close(found.x_t[number], alpha * x[number] + sigma * (noise[number] + GAMMA * xi[number]), rtol=0, atol=1e-10)


@pytest.mark.parametrize("gamma", [0.0, 0.15, 0.5])
def test_the_best_prediction_of_noise_shrinks_by_one_plus_gamma_squared(gamma):
    """Least squares on one number per example. At pure noise a flow predicts v = noise - x, with x of mean 0, as the noise."""
    count = 400_000
    x, noise, xi = (values.view(-1, 1, 1, 1) for values in _draws(count))
    process = Flow(input_perturbation=gamma).build()
    for uniform, power in ((1.0, 1.0), (0.6, 4.0)):
        example = perturbed(process, process.noised(math.sqrt(power) * x, noise, torch.full((count,), uniform).double()), xi)
        slope = float((example.x_t * noise).sum() / example.x_t.square().sum())
        alpha, sigma = 1 - uniform, uniform
        expected = sigma / (alpha**2 * power + sigma**2 * (1 + gamma**2))
        assert slope == pytest.approx(expected, abs=5 / math.sqrt(count))
        if uniform == 1:
            assert expected == 1 / (1 + gamma**2)
            assert float((example.x_t * example.target).sum() / example.x_t.square().sum()) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("config", [Flow, DDPM, VPSDE])
def test_a_negative_perturbation_is_refused(config):
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        config(input_perturbation=-0.1)


# -- epsilon scaling


@pytest.mark.parametrize("name", CONFIGS)
def test_a_scaled_prediction_implies_the_smaller_noise_and_the_data_that_goes_with_it(name):
    config, scale = CONFIGS[name], 1.25
    process = config.build()
    x_t, prediction, _ = _draws(2, 3, 4, 4)
    for t in (0.003, 0.5, 0.93):
        time = torch.tensor(t, dtype=torch.float64)
        noise = process.noise_of(prediction, x_t, time)
        assert_close(process.prediction_of(noise, x_t, time), prediction, rtol=0, atol=1e-9)
        network_time = process.network_time(time)
        assert_close(process.time_of_network(network_time), time, rtol=0, atol=1e-15)
        scaled = epsilon_scaled(process, lambda *given, step_time=None: prediction, scale)(x_t, network_time.expand(2))
        alpha, sigma = _alpha_sigma(config, t)
        assert_close(process.noise_of(scaled, x_t, time), noise / scale, rtol=0, atol=1e-9)
        assert_close(process.denoised(scaled, x_t, time), (x_t - sigma * noise / scale) / alpha, rtol=0, atol=1e-9)
        if name == "flow":
            assert_close(scaled, prediction + (1 / scale - 1) * (x_t + (1 - t) * prediction) / (1 - t), rtol=0, atol=1e-12)


POSSIBLE = [(kind, config) for kind in SAMPLERS for config in ("flow", "flow, x", "cosine", "ddpm", "vp-sde", "vp-sde, x0")
            if CONFIGS[config].kind in SAMPLERS[kind].processes]


@pytest.mark.parametrize(("kind", "name"), POSSIBLE)
def test_every_sampler_equals_itself_with_a_network_whose_noise_is_divided_by_hand(kind, name):
    """In the steps of a flow that begin at sigma <= 14.6 alpha, and in all steps of the others."""
    config, scale = CONFIGS[name], 1.1
    asked = {"vp-sde, x0": "x", "flow": "v", "flow, x": "x", "cosine": "v"}.get(name, "eps")

    def predicted(x, t, divided):
        """The prediction of a made-up network, from its noise."""
        alpha, sigma = _alpha_sigma(config, t)
        noise = (torch.tanh(x) + 0.1 * x.flip(-1)) / divided
        if asked == "eps":
            return noise
        if alpha < 1e-12:      # at t = 1, noise is x_t, whatever the network says; the network says x = tanh(x_t)
            data, noise = torch.tanh(x), x
        else:
            data = (x - sigma * noise) / alpha
        if asked == "x":
            return data
        return noise - data if config.path == "linear" else math.pi / 2 * (alpha * noise - sigma * data)

    def network(divided):
        def model(x, network_time, step_time=None):
            per_time = {"ddpm": 1000, "vp-sde": 999, "flow": 1}[config.kind]
            t, start = (float(time[0]) / per_time for time in (network_time, network_time if step_time is None else step_time))
            alpha, sigma = _alpha_sigma(config, start)
            return predicted(x, t, divided if config.kind != "flow" or sigma <= 14.6 * alpha else 1.0)

        return model

    noise, steps = _draws(2, 1, 4, 4)[0], [_draws(2, 1, 4, 4, seed=9 + i)[0] for i in range(20)]
    process, arguments = config.build(), {"step_noise": steps.__getitem__}
    found = sample(process, network(1.0), noise, Sampler(kind=kind, steps=20, epsilon_scale=scale), **arguments)
    expected = sample(process, network(scale), noise, Sampler(kind=kind, steps=20), **arguments)
    assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert float((found - sample(process, network(1.0), noise, Sampler(kind=kind, steps=20), **arguments)).abs().max()) > 1e-3


POWERS = torch.tensor([25.0, 1.0, 0.04], dtype=torch.float64).view(1, -1, 1, 1)


def _perfect(config):
    """The best network for Gaussian data of variance POWERS."""
    def model(x, network_time, step_time=None):
        t = float(network_time[0]) / {"ddpm": 1000, "vp-sde": 999, "flow": 1}[config.kind]
        alpha, sigma = _alpha_sigma(config, t)
        data, noise = (part / (alpha**2 * POWERS + sigma**2) * x for part in (alpha * POWERS, sigma))
        if config.kind != "flow":
            return noise
        return noise - data if config.path == "linear" else math.pi / 2 * (alpha * noise - sigma * data)

    return model


@pytest.mark.parametrize("scale", [1.0, 1.02, 0.98])
@pytest.mark.parametrize("name", ["flow", "cosine", "ddpm", "vp-sde"])
def test_the_variance_of_samples_of_gaussian_data_has_the_closed_form(name, scale):
    """With y = x_t / alpha and r = sigma / alpha, dy/dr = r y / (lambda (S + r^2)): y grows like (S + r^2)^(1 / (2 lambda)).

    From a start of variance V at ratio R: variance V (S / (S + R^2))^(1 / lambda). Above LARGEST_RATIO, a flow has lambda = 1.
    """
    config = CONFIGS[name]
    sampler, process = Sampler(kind="heun", steps=500 if name == "ddpm" else 300, epsilon_scale=scale), config.build()
    one = torch.ones(1, 3, 1, 1, dtype=torch.float64)
    found = sample(process, _perfect(config), one, sampler, step_noise=lambda i: None).square()
    ratios = [sigma / alpha if alpha > 1e-12 else math.inf
              for alpha, sigma in (_alpha_sigma(config, t) for t in sampler.times(process)[:-1].tolist())]
    if config.kind == "flow":
        first = next(ratio for ratio in ratios if ratio <= LARGEST_RATIO)
        start = POWERS + first**2
    else:
        first = ratios[0]
        start = 1 + first**2
    expected = start * (POWERS / (POWERS + first**2)) ** (1 / scale)
    rtol = 2e-3 if config.kind == "flow" else 5e-2      # the others end with a long step of first order
    assert_close(found, expected, rtol=rtol, atol=0)
    plain = POWERS if config.kind == "flow" else start * POWERS / (POWERS + first**2)
    assert_close((expected / plain).log() * (scale > 1), (expected / plain).log().clamp(min=0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("path", ["linear", "cosine"])
def test_samples_of_a_mixture_equal_scipys_integration(path):
    """Data is +1 or -1 plus a tenth of a normal number: dy/dr = noise / lambda from the first scaled step on."""
    spread, scale = 0.1, 1.05
    config = Flow(path=path)

    def noise_of(y, r):
        """E[noise | x + r noise = y]."""
        variance = spread**2 + r**2
        mean = math.tanh(y / variance)
        return r * (y - mean) / variance

    def model(x, network_time, step_time=None):
        alpha, sigma = _alpha_sigma(config, float(network_time[0]))
        data, noise = torch.zeros_like(x), x
        if alpha > 1e-12:
            noise = torch.tensor([noise_of(float(value) / alpha, sigma / alpha) for value in x.flatten()]).view_as(x).double()
            data = (x - sigma * noise) / alpha
        return noise - data if path == "linear" else math.pi / 2 * (alpha * noise - sigma * data)

    sampler, process = Sampler(kind="heun", steps=400, epsilon_scale=scale), config.build()
    starts = torch.tensor([-2.0, -0.3, 0.05, 1.1], dtype=torch.float64).view(4, 1, 1, 1)
    found = sample(process, model, starts, sampler, step_noise=lambda i: None).flatten().tolist()
    ratio = (lambda t: t / (1 - t)) if path == "linear" else (lambda t: math.tan(math.pi * t / 2))
    first = next(ratio(t) for t in sampler.times(process)[1:].tolist() if ratio(t) <= LARGEST_RATIO)
    exact = {"rtol": 1e-9, "atol": 1e-11, "method": "DOP853"}
    for start, sampled in zip(starts.flatten().tolist(), found, strict=True):
        far = 1e4                  # x_t = alpha y is the noise there, up to 1e-4
        entry = solve_ivp(lambda r, y: [noise_of(y[0], r)], (far, first), [start * math.hypot(1, far)], **exact).y[0, -1]
        expected = solve_ivp(lambda r, y: [noise_of(y[0], r) / scale], (first, 1e-6), [entry], **exact).y[0, -1]
        assert sampled == pytest.approx(expected, abs=0.02)


def test_a_flow_is_not_scaled_where_the_noise_is_nearly_known():
    """At t = 1 the noise is x_t whatever the network predicts, and the scaled velocity would be infinite."""
    seen = []

    def model(x, network_time, step_time=None):
        return torch.zeros_like(x)

    x = torch.ones(1, 1, 2, 2, dtype=torch.float64)
    scaled = epsilon_scaled(Flow().build(), model, 1.1)
    for t, step in ((1.0, None), (0.95, None), (0.9, 1.0), (0.9, None), (0.5, 0.9)):
        times = [None if time is None else torch.tensor([time], dtype=torch.float64) for time in (t, step)]
        seen.append(float(scaled(x, times[0], step_time=times[1]).abs().max()) > 0)
    assert seen == [False, False, False, True, True]
    assert math.sqrt((1 - ABAR[1000]) / ABAR[1000]) == pytest.approx(LARGEST_RATIO, abs=0.02)


def test_scales_that_cannot_work_are_refused():
    for scale in (0.0, -1.0, math.inf):
        with pytest.raises(ValueError, match="epsilon_scale"):
            Sampler(epsilon_scale=scale)
    found = dict(Sampler(epsilon_scale=1.01, steps=1).problems(Flow(), 0))
    assert list(found) == ["epsilon_scale"]
    assert "no step begins at sigma / alpha <= 14.6; use more steps" in found["epsilon_scale"]
    assert dict(Sampler(epsilon_scale=1.01, steps=2).problems(Flow(shift=1000), 0)).keys() == {"epsilon_scale"}
    for process, sampler in ((Flow(), Sampler(epsilon_scale=1.01, steps=2)), (DDPM(), Sampler(epsilon_scale=1.01, steps=1)),
                             (Flow(), Sampler(steps=1)), (Flow(), Sampler(epsilon_scale=1.01, steps=2**50))):
        assert list(sampler.problems(process, 0)) == []
    assert dict(Sampler(kind="dpm-solver-fast", epsilon_scale=1.01).problems(Flow(), 0)).keys() == {"kind"}
