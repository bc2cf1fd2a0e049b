import pytest
import torch
from torch.testing import assert_close

from smtool.diffusion import DDPM


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return tuple(torch.randn(4, 3, 4, 6, generator=rng) for _ in range(2))


def _theirs():
    from diffusers import DDPMScheduler

    return DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


def test_the_schedule_is_diffusers():
    """diffusers multiplies 1000 float32 numbers, hence a tolerance of 1e-5."""
    abar = DDPM().build().abar
    assert abar.dtype == torch.float64 and abar[0] == 1
    assert_close(abar[1:], _theirs().alphas_cumprod.double(), rtol=1e-5, atol=0)
    assert abar[1000].item() == pytest.approx(0.0047, abs=5e-5)


@pytest.mark.parametrize("step", [1, 2, 354, 999, 1000])
def test_noised_latents_equal_diffusers(pair, step):
    x, noise = pair
    example = DDPM().build().noised(x, noise, torch.full((4,), (step - 0.5) / 1000))
    expected = _theirs().add_noise(x, noise, torch.full((4,), step - 1))
    assert_close(example.x_t, expected, rtol=0, atol=1e-5)
    assert torch.equal(example.target, noise)
    assert example.network_time.tolist() == [step] * 4
    assert_close(example.t, torch.full((4,), step / 1000))


def test_uniform_numbers_become_all_steps_equally_often():
    zeros = torch.zeros(5000, 1, 1, 1)
    example = DDPM().build().noised(zeros, zeros, (torch.arange(5000) + 0.5) / 5000)
    steps, counts = example.network_time.unique(return_counts=True)
    assert steps.tolist() == list(range(1, 1001))
    assert set(counts.tolist()) == {5}


def test_the_extreme_uniform_numbers_are_the_first_and_the_last_step():
    zeros = torch.zeros(2, 1, 1, 1)
    assert DDPM().build().noised(zeros, zeros, torch.tensor([0.0, 1 - 2**-24])).network_time.tolist() == [1, 1000]


def test_the_data_is_recovered_from_the_noise(pair):
    x, noise = (value.double() for value in pair)
    process = DDPM().build()
    example = process.noised(x, noise, torch.tensor([0.0, 0.3, 0.7, 0.999], dtype=torch.float64))
    assert_close(process.denoised(noise, example.x_t, example.t), x, rtol=0, atol=1e-12)
    assert process.noise_of(noise, example.x_t, example.t) is noise


def test_in_the_clocks_coordinates_the_path_of_one_noise_is_straight(pair):
    """x_t / alpha = x + (sigma / alpha) noise: its slope is the noise at every time, and its value at t = 0 is the data."""
    x, noise = (value.double() for value in pair)
    process = DDPM().build()
    for t in (0.001, 0.2, 1.0):
        alpha, sigma = process.alpha_sigma(torch.tensor(t, dtype=torch.float64))
        scale, clock = process.clock(torch.tensor(t, dtype=torch.float64))
        assert_close(scale * (alpha * x + sigma * noise), x + clock * noise)
    assert process.clock(torch.tensor(0.0)) == (1, 0)
