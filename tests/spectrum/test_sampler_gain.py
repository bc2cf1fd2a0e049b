"""Compare the closed forms with a simulation of every sampler, with released-code.md#euler-maruyama, and with their limits."""

import math

import pytest
import torch
from torch.testing import assert_close

from smtool.spectrum import last_step_amplitude, sampler_amplitude

POWER = torch.tensor([100.0, 1.0, 0.04, 0.01], dtype=torch.float64)
SAMPLERS = ("ddim", "euler", "heun", "euler-maruyama")


def level(t):
    """(alpha, sigma) of DDPM's level 1000 t, by a loop."""
    abar = 1.0
    for i in range(round(1000 * t)):
        abar *= 1 - (0.00085**0.5 + i / 999 * (0.012**0.5 - 0.00085**0.5)) ** 2
    return math.sqrt(abar), math.sqrt(1 - abar)


def step(sampler, x, t, s, generator, last):
    """One step of the sampler with the optimal network, on samples x (N, bands)."""
    if sampler == "ddim":
        (alpha, sigma), (alpha_s, sigma_s) = level(t), level(s)
        data = alpha * POWER / (alpha**2 * POWER + sigma**2) * x
        return alpha_s * data + sigma_s * (x - alpha * data) / sigma
    def velocity(y, time):
        data = (1 - time) * POWER / ((1 - time) ** 2 * POWER + time**2) * y
        return (y - (1 - time) * data) / time - data                    # noise - data
    v = velocity(x, t)
    if sampler == "euler-maruyama":
        score = (-(1 - t) * v - x) / t
        x = x + (v - 0.5 * 2 * t * score) * (s - t)
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        return x if last else x + math.sqrt(2 * t * (t - s)) * noise
    ahead = x + (s - t) * v
    return ahead if sampler == "euler" or last else x + (s - t) / 2 * (v + velocity(ahead, s))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_amplitudes_are_those_of_a_simulation(sampler):
    steps, last_t, count = 10, 0.1, 100_000
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, len(POWER), generator=generator, dtype=torch.float64)
    times = [*torch.linspace(1, last_t, steps, dtype=torch.float64).tolist(), 0.0]
    for i in range(steps):
        x = step(sampler, x, times[i], times[i + 1], generator, last=i == steps - 1)
    found = sampler_amplitude(POWER, sampler, steps=steps, last_t=last_t)
    assert_close(found, (x.square().mean(0) / POWER).sqrt(), rtol=0.012, atol=0)        # 5 sd of 100 000 samples


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_last_step_is_that_of_a_simulation(sampler):
    generator = torch.Generator().manual_seed(0)
    alpha, sigma = level(0.1) if sampler == "ddim" else (0.9, 0.1)
    data, noise = (torch.randn(100_000, len(POWER), generator=generator, dtype=torch.float64) for _ in range(2))
    x = step(sampler, alpha * data * POWER.sqrt() + sigma * noise, 0.1, 0.0, generator, last=True)
    assert_close(last_step_amplitude(POWER, sampler, last_t=0.1), (x.square().mean(0) / POWER).sqrt(), rtol=0.012, atol=0)


def test_the_published_euler_maruyama_sampler_damps_weak_bands():
    """S' / S = .92, .98, .61 for S = 100, 1, .01 with 100 steps (released-code.md#euler-maruyama); more steps do not help."""
    power = torch.tensor([100.0, 1.0, 0.01])
    share = sampler_amplitude(power, "euler-maruyama", steps=100).square()
    assert [round(value, 2) for value in share.tolist()] == [0.92, 0.98, 0.61]
    many = sampler_amplitude(power, "euler-maruyama", steps=4000).square()
    assert many[2].item() == pytest.approx(0.59, abs=0.01)
    assert many[2].item() == pytest.approx(last_step_amplitude(power, "euler-maruyama", last_t=0.04)[2].item() ** 2, abs=0.002)


@pytest.mark.parametrize("sampler", ["ddim", "euler", "heun"])
def test_the_last_step_returns_the_mean_given_x_t(sampler):
    """S' / S = SNR / (1 + SNR): half of the power at an SNR of 1."""
    alpha, sigma = level(0.04) if sampler == "ddim" else (0.96, 0.04)
    covered = torch.tensor([(sigma / alpha) ** 2], dtype=torch.float64)
    assert last_step_amplitude(covered, sampler, last_t=0.04).item() == pytest.approx(math.sqrt(0.5), rel=1e-9)
    snr = alpha**2 * POWER / sigma**2
    assert_close(last_step_amplitude(POWER, sampler, last_t=0.04).square(), snr / (1 + snr), rtol=1e-9, atol=0)


@pytest.mark.parametrize("sampler", ["euler", "heun", "ddim"])
def test_deterministic_samplers_become_faithful_with_many_steps(sampler):
    coarse, fine = (sampler_amplitude(POWER, sampler, steps=steps) for steps in (50, 1000))
    assert bool(((fine - 1).abs() < (coarse - 1).abs()).all())
    if sampler != "ddim":                                               # it has 1000 levels at most
        assert_close(fine, torch.ones_like(fine), rtol=0, atol=0.01)


def test_one_step_from_noise_returns_the_mean():
    assert_close(sampler_amplitude(POWER, "euler", steps=1), torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("options", "sentence"), [
    ({"steps": 0}, "steps >= 1"),
    ({"steps": 10, "last_t": 0.0}, "0 < last_t < 1"),
    ({"steps": 1, "last_t": 0.5}, "one step starts at 1"),
])
def test_grids_that_make_no_sense_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        sampler_amplitude(POWER, "euler", **options)


def test_unknown_samplers_and_too_many_steps_are_refused():
    with pytest.raises(ValueError, match="known for ddim, euler, heun, euler-maruyama, but not for 'dpm'"):
        sampler_amplitude(POWER, "dpm", steps=10)
    with pytest.raises(ValueError, match="1500 steps do not fit on ddim's 1000 levels"):
        sampler_amplitude(POWER, "ddim", steps=1500)
