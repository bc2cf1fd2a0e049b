"""The VP-SDE compared with closed forms of the papers and with integrals by scipy."""

import math
from itertools import pairwise

import pytest
import torch
from scipy.integrate import quad
from torch.testing import assert_close

from smtool.diffusion import DDPM, VPSDE, Flow
from smtool.diffusion.samplers import ddim, even_times

SCALES = (1.0, 2.0, 4.0, 0.25)


def _numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _abar(t: float, scale: float) -> float:
    integral = quad(lambda u: 0.1 + 19.9 * u, 0, t)[0]
    return scale * math.exp(-integral) / (1 + (scale - 1) * math.exp(-integral))


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return tuple(torch.randn(4, 3, 4, 6, generator=rng, dtype=torch.float64) for _ in range(2))


def test_at_scale_1_alpha_and_sigma_are_those_of_the_papers_closed_form():
    """log alpha = -t^2 (beta_max - beta_min) / 4 - t beta_min / 2 (arXiv 2011.13456, Eq. 33)."""
    times = torch.linspace(0.01, 1, 50, dtype=torch.float64)
    log_mean = -0.25 * times**2 * (20 - 0.1) - 0.5 * times * 0.1
    alpha, sigma = VPSDE().build().alpha_sigma(times)
    assert_close(alpha, log_mean.exp(), rtol=1e-12, atol=0)
    assert_close(sigma, (1 - torch.exp(2 * log_mean)).sqrt(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("scale", SCALES)
def test_the_scale_multiplies_the_signal_to_noise_ratio(scale):
    times = torch.linspace(0.001, 1, 40, dtype=torch.float64)
    (alpha, sigma), (plain, noise) = (VPSDE(snr_scale=c).build().alpha_sigma(times) for c in (scale, 1.0))
    assert_close((alpha / sigma) ** 2, scale * (plain / noise) ** 2, rtol=1e-12, atol=0)
    assert_close(alpha**2 + sigma**2, torch.ones_like(alpha), rtol=1e-14, atol=0)
    assert_close(alpha**2, _numbers(*(_abar(t, scale) for t in times.tolist())), rtol=1e-10, atol=0)


@pytest.mark.parametrize("scale", SCALES)
def test_the_integral_of_the_scaled_rate_is_minus_the_log_of_abar(scale):
    process = VPSDE(snr_scale=scale).build()
    for t in (0.01, 0.3, 1.0):
        integral = quad(lambda u: float(process.rate(_numbers(u))), 0, t, epsabs=1e-12)[0]
        assert integral == pytest.approx(-math.log(_abar(t, scale)), rel=1e-9)


@pytest.mark.parametrize("scale", SCALES)
def test_the_half_log_snr_and_its_inverse_agree(scale):
    process = VPSDE(snr_scale=scale).build()
    times = torch.logspace(-6, 0, 30, dtype=torch.float64)
    alpha, sigma = process.alpha_sigma(times)
    assert_close(process.half_log_snr(times), torch.log(alpha / sigma), rtol=0, atol=1e-9)
    assert_close(process.time_of(process.half_log_snr(times)), times, rtol=1e-10, atol=0)


@pytest.mark.parametrize(("scale", "ends"), [(1.0, (5.752, -5.025)), (4.0, (6.445, -4.332))])
def test_the_ends_of_the_published_grid(scale, ends):
    found = VPSDE(snr_scale=scale).build().half_log_snr(_numbers(1e-4, 1.0))
    assert_close(found, _numbers(*ends), rtol=0, atol=5e-4)


@pytest.mark.parametrize("prediction", ["eps", "x0"])
def test_noised_latents_targets_and_both_recovered_parts(pair, prediction):
    x, noise = pair
    process = VPSDE(prediction=prediction, snr_scale=3.0).build()
    uniform = _numbers(1e-3, 0.2, 0.7, 1 - 1e-9)
    example = process.noised(x, noise, uniform)
    for i, t in enumerate(uniform.tolist()):
        abar = _abar(t, 3.0)
        assert_close(example.x_t[i], math.sqrt(abar) * x[i] + math.sqrt(1 - abar) * noise[i], rtol=0, atol=1e-9)
    assert torch.equal(example.target, noise if prediction == "eps" else x)
    assert torch.equal(example.network_time, 999 * uniform) and torch.equal(example.t, uniform)
    assert_close(process.denoised(example.target, example.x_t, example.t), x, rtol=0, atol=1e-9)
    assert_close(process.noise_of(example.target, example.x_t, example.t), noise, rtol=0, atol=1e-9)


def test_at_the_times_of_equal_signal_to_noise_ratio_it_is_the_discrete_process(pair):
    x, noise = pair
    discrete, continuous = DDPM().build(), VPSDE().build()
    levels = _numbers(0.001, 0.25, 0.5, 1.0)
    alpha, sigma = discrete.alpha_sigma(levels)
    times = continuous.time_of(torch.log(alpha / sigma))
    theirs = discrete.noised(x, noise, levels - 5e-4)
    assert torch.equal(theirs.t, levels)
    assert_close(continuous.noised(x, noise, times).x_t, theirs.x_t, rtol=0, atol=1e-12)


def test_ddim_between_equal_signal_to_noise_ratios_is_that_of_the_discrete_process():
    def network(x, network_time, step_time=None):
        return torch.tanh(x) + 0.3 * x

    discrete, continuous = DDPM().build(), VPSDE().build()
    levels = even_times(discrete, 20)
    alpha, sigma = discrete.alpha_sigma(levels)
    times = continuous.time_of(torch.log(alpha / sigma))
    start = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    one, other = (ddim(p, network, start, grid, None) for p, grid in ((discrete, levels), (continuous, times)))
    assert_close(one, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize("scale", SCALES)
def test_the_discrete_process_has_scaled_signal_to_noise_ratios_too(scale):
    plain, scaled = (DDPM(snr_scale=c).build().abar[1:] for c in (1.0, scale))
    assert_close(scaled / (1 - scaled), scale * plain / (1 - plain), rtol=1e-9, atol=0)
    assert DDPM(snr_scale=scale).build().abar[0] == 1


def test_on_the_linear_path_a_shift_of_1_over_the_root_of_c_scales_the_signal_to_noise_ratio_by_c():
    scale, grid = 4.0, torch.linspace(0.05, 0.95, 9, dtype=torch.float64)
    process = Flow(shift=1 / math.sqrt(scale)).build()
    alpha, sigma = process.alpha_sigma(process.retimed(grid))
    assert_close((alpha / sigma) ** 2, scale * ((1 - grid) / grid) ** 2, rtol=1e-12, atol=0)


def test_a_flow_refuses_the_scale_and_says_what_works():
    with pytest.raises(ValueError, match=r"a flow has `shift`: 1 / sqrt\(c\)"):
        Flow(snr_scale=4.0)


@pytest.mark.parametrize("kind", [DDPM, VPSDE])
def test_a_scale_of_zero_is_refused(kind):
    with pytest.raises(ValueError, match="greater than 0"):
        kind(snr_scale=0)


def test_in_the_clocks_coordinates_the_path_of_one_noise_is_straight(pair):
    x, noise = pair
    process = VPSDE(snr_scale=2.0).build()
    states = []
    for t in (0.0, 0.2, 1.0):
        alpha, sigma = process.alpha_sigma(_numbers(t)[0])
        scale, clock = process.clock(_numbers(t)[0])
        states.append((scale * (alpha * x + sigma * noise), clock))
    for (one, at), (other, later) in pairwise(states):
        assert_close(other - one, (later - at) * noise, rtol=1e-9, atol=1e-9)
