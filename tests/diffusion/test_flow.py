import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch.testing import assert_close

from smtool.diffusion import Flow
from smtool.diffusion.flow import EPS_START
from smtool.diffusion.time import logit_normal, shifted

PATHS = ("linear", "cosine")
PREDICTIONS = ("v", "x", "eps")


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return tuple(torch.randn(5, 3, 4, 6, generator=rng, dtype=torch.float64) for _ in range(2))


UNIFORM = torch.tensor([0.01, 0.25, 0.5, 0.9, 0.99], dtype=torch.float64)


def _position(path, x, noise, t):
    """x_t, computed per sample."""
    alpha = [1 - u if path == "linear" else math.cos(math.pi * u / 2) for u in t.tolist()]
    sigma = [u if path == "linear" else math.sin(math.pi * u / 2) for u in t.tolist()]
    return torch.stack([a * one + s * other for a, s, one, other in zip(alpha, sigma, x, noise, strict=True)])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_target_gives_back_data_noise_and_velocity(pair, path, prediction):
    """Conversions x -> v -> eps -> x agree. The expected velocity is a central difference of x_t, step 1e-5 (error 1e-9)."""
    x, noise = pair
    process = Flow(path=path, prediction=prediction).build()
    example = process.noised(x, noise, UNIFORM)
    assert_close(example.x_t, _position(path, x, noise, UNIFORM), rtol=0, atol=1e-12)
    assert_close(example.t, UNIFORM)
    assert_close(example.network_time, UNIFORM)
    difference = (_position(path, x, noise, UNIFORM + 1e-5) - _position(path, x, noise, UNIFORM - 1e-5)) / 2e-5
    assert_close(process.denoised(example.target, example.x_t, example.t), x, rtol=0, atol=1e-10)
    assert_close(process.noise_of(example.target, example.x_t, example.t), noise, rtol=0, atol=1e-10)
    assert_close(process.velocity(example.target, example.x_t, example.t), difference, rtol=0, atol=1e-8)


@pytest.mark.parametrize("path", PATHS)
def test_targets_are_velocity_data_and_noise(pair, path):
    x, noise = pair
    target = {name: Flow(path=path, prediction=name).build().noised(x, noise, UNIFORM).target for name in PREDICTIONS}
    assert_close(target["x"], x)
    assert_close(target["eps"], noise)
    if path == "linear":
        assert_close(target["v"], noise - x)


@pytest.mark.parametrize("path", PATHS)
def test_data_is_at_0_and_noise_at_1_exactly(pair, path):
    x, noise = pair
    process = Flow(path=path).build()
    assert torch.equal(process.noised(x, noise, torch.zeros(5, dtype=torch.float64)).x_t, x)
    assert torch.equal(process.noised(x, noise, torch.ones(5, dtype=torch.float64)).x_t, noise)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("end", ["start", "last"])
def test_conversions_are_finite_at_all_times_of_samplers(pair, path, prediction, end):
    x, noise = pair
    process = Flow(path=path, prediction=prediction).build()
    t = torch.tensor(process.start if end == "start" else 1e-3, dtype=torch.float64)
    assert process.start == (EPS_START if prediction == "eps" else 1.0)
    for convert in (process.denoised, process.noise_of, process.velocity):
        assert convert(noise, x, t).isfinite().all()


def test_half_precision_latents_are_noised_in_float32(pair):
    x, noise = (value.bfloat16() for value in pair)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        example = Flow().build().noised(x, noise, UNIFORM.float())
    assert example.x_t.dtype == example.target.dtype == torch.float32
    assert_close(example.x_t, _position("linear", x.float(), noise.float(), UNIFORM).float())


def test_logit_normal_times_have_scipys_quantiles():
    uniform = torch.linspace(0.001, 0.999, 101, dtype=torch.float64)
    expected = torch.sigmoid(torch.from_numpy(scipy.stats.norm.ppf(uniform.numpy(), loc=-0.4, scale=1.3)))
    assert_close(logit_normal(uniform, mean=-0.4, std=1.3), expected, rtol=0, atol=1e-12)
    config = Flow(time="logit-normal", logit_mean=-0.4, logit_std=1.3)
    x = torch.zeros(101, 1, 1, 1, dtype=torch.float64)
    assert_close(config.build().noised(x, x, uniform).t, expected, rtol=0, atol=1e-12)


def test_the_extreme_uniform_numbers_of_float32_are_times():
    t = logit_normal(torch.tensor([0.0, 2**-24, 1 - 2**-24]), mean=0.0, std=1.0)
    assert ((t >= 0) & (t < 1)).all()
    assert t[0] == 0


def test_a_shift_multiplies_t_over_1_minus_t(pair):
    t = torch.tensor([0.0, 0.2, 0.5, 0.9, 1.0], dtype=torch.float64)
    moved = shifted(t, 2.5)
    assert moved[0] == 0 and moved[-1] == 1
    assert_close((moved / (1 - moved))[1:-1], 2.5 * (t / (1 - t))[1:-1])
    assert_close(shifted(moved, 1 / 2.5), t)
    x, noise = pair
    assert_close(Flow(shift=2.5).build().noised(x, noise, t).t, moved)


@pytest.mark.parametrize(("shape", "shift"), [((768, 16, 16), 6.928), ((768, 32, 32), 13.856), ((16, 16, 16), 1.0)])
def test_the_shift_of_the_dimension_is_raes(shape, shift):
    """Published numbers, and the formula written out, for training times and sampling grid (released-code.md#dit-dh)."""
    process = Flow(shift="dimension", time="logit-normal").build(shape)
    assert process.shift == pytest.approx(shift, abs=5e-4)
    s = np.sqrt(np.prod(shape) / 4096)
    t = np.linspace(1, 0.001, 50)
    grid = process.retimed(torch.from_numpy(t)).numpy()
    np.testing.assert_allclose(grid, s * t / (1 + (s - 1) * t), rtol=1e-12)
    if shape == (768, 16, 16):
        assert grid[-1] == pytest.approx(0.0069, abs=5e-5)      # where its sampler ends
    uniform = torch.tensor([0.1, 0.5, 0.8], dtype=torch.float64)
    odds = s * np.exp(scipy.stats.norm.ppf(uniform.numpy()))      # t / (1 - t)
    x = torch.zeros(3, *shape[:1], 1, 1, dtype=torch.float64)
    np.testing.assert_allclose(process.noised(x, x, uniform).t.numpy(), odds / (1 + odds), rtol=1e-12)


def test_a_shift_of_the_dimension_needs_latents():
    with pytest.raises(ValueError, match=r'shift = "dimension" needs the shape of the latents'):
        Flow(shift="dimension").build()
    assert Flow(shift=2).build().shift == Flow(shift=2).build((768, 16, 16)).shift == 2


def test_unknown_values_are_refused():
    with pytest.raises(ValueError, match="'linear' or 'cosine'"):
        Flow(path="vp")
    with pytest.raises(ValueError, match="greater than 0"):
        Flow(shift=0)
    with pytest.raises(ValueError, match="'dimension'"):
        Flow(shift="size")
