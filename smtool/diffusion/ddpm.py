"""Discrete denoising diffusion with Stable Diffusion's schedule, as in the training of U-ViT (released-code.md#u-vit)."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from smtool.config import Config
from smtool.devices import float64_device, to_device
from smtool.diffusion.process import INPUT_PERTURBATION, Noised, at_least_float32, over_samples

NUM_STEPS = 1000


class DDPM(Config):
    """1000 noise levels, beta_i = (sqrt(.00085) + i / 999 (sqrt(.012) - sqrt(.00085)))^2; the network predicts the noise."""

    kind: Literal["ddpm"] = "ddpm"
    snr_scale: float = Field(
        1.0, gt=0, description="factor of the signal-to-noise ratio abar / (1 - abar) of every level; 1: Stable Diffusion's"
    )
    input_perturbation: float = Field(0.0, ge=0, description=INPUT_PERTURBATION)

    def build(self, latent_shape: tuple[int, int, int] | None = None) -> "DDPMProcess":
        return DDPMProcess(self.snr_scale, input_perturbation=self.input_perturbation)


class DDPMProcess:
    """x_t = sqrt(abar_n) x + sqrt(1 - abar_n) noise at t = n / 1000, n = 1 ... 1000; n = 0 is the data (abar = 1).

    Times are rounded to the nearest of these. The network's time input is n, as a float. abar_1000 is 0.0047, not 0: from pure
    noise, even an exact solver returns a band of variance S with variance S / (.0047 S + .9953), 68 % for S = 100.
    """

    kind = "ddpm"
    start = 1.0

    def __init__(self, snr_scale: float = 1.0, *, input_perturbation: float = 0.0) -> None:
        self.abar = scaled_snr(scaled_linear_abar(), snr_scale)
        self.input_perturbation = input_perturbation

    def noised(self, latents: Tensor, noise: Tensor, uniform: Tensor) -> Noised:
        x, noise = at_least_float32(latents), at_least_float32(noise)
        t = ((uniform * NUM_STEPS).floor() + 1) / NUM_STEPS
        alpha, sigma = self._at(t, x)
        return Noised(alpha * x + sigma * noise, noise, t, self.network_time(t))

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        home = float64_device(t.device)
        abar = to_device(self.abar, home)[self.network_time(t).long().to(home)]
        return abar.sqrt().to(t), (1 - abar).sqrt().to(t)

    def network_time(self, t: Tensor) -> Tensor:
        return (t * NUM_STEPS).round()

    def time_of_network(self, network_time: Tensor) -> Tensor:
        return network_time / NUM_STEPS

    def retimed(self, grid: Tensor) -> Tensor:
        """The grid rounded to multiples of 1 / 1000: for 100 steps n = 1000, 990, ... 10, 0 ("trailing" in diffusers)."""
        return self.network_time(grid) / NUM_STEPS

    def clock(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(1 / alpha, sigma / alpha): the slope of x_t / alpha by sigma / alpha is the noise (arXiv 2206.00364; DDIM, Eq. 14)."""
        alpha, sigma = self.alpha_sigma(t)
        return 1 / alpha, sigma / alpha

    def denoised(self, prediction: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The clean latents; not clipped, because latents have no fixed range."""
        alpha, sigma = self._at(t, x_t)
        return (x_t - sigma * prediction) / alpha

    def noise_of(self, prediction: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        return prediction

    def prediction_of(self, noise: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        return noise

    def velocity(self, prediction: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """d(x_t / alpha) / d(sigma / alpha), which is the noise."""
        return prediction

    def _at(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = self.alpha_sigma(t)
        return over_samples(alpha, x), over_samples(sigma, x)


def scaled_linear_abar() -> Tensor:
    """(1001,) float64: abar_0 = 1 (data) ... abar_1000, the cumulative products of 1 - beta."""
    beta = torch.linspace(0.00085**0.5, 0.012**0.5, NUM_STEPS, dtype=torch.float64).square()
    return torch.cat([beta.new_ones(1), (1 - beta).cumprod(0)])


def scaled_snr(abar: Tensor, scale: float) -> Tensor:
    """c abar / (1 + (c - 1) abar): its signal-to-noise ratio is c = scale times that of abar (arXiv 2412.15032)."""
    return scale * abar / (1 + (scale - 1) * abar)
