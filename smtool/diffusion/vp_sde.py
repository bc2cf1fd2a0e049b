"""The variance-preserving SDE in continuous time, with a factor of the signal-to-noise ratio, as in DCTdiff.

Sources: Song et al., arXiv 2011.13456 (section 3.4); Ning et al., arXiv 2412.15032 (released-code.md#process-of-dctdiff).
"""

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from smtool.config import Config
from smtool.diffusion.process import INPUT_PERTURBATION, Noised, at_least_float32, over_samples

BETA_START, BETA_END = 0.1, 20.0
"""beta(0) and beta(1)."""
TIME_SCALE = 999.0
"""The network's time input is t times this."""


class VPSDE(Config):
    """dx = -beta x dt / 2 + sqrt(beta) dw, beta(t) = 0.1 + 19.9 t, t in [0, 1]; the network's time input is 999 t."""

    kind: Literal["vp-sde"] = "vp-sde"
    prediction: Literal["eps", "x0"] = Field("eps", description='output of the network: "eps" = the noise, "x0" = the data')
    snr_scale: float = Field(
        1.0, gt=0, description="factor of the signal-to-noise ratio alpha^2 / sigma^2 at every time; 1: the SDE of U-ViT"
    )
    input_perturbation: float = Field(0.0, ge=0, description=INPUT_PERTURBATION)

    def build(self, latent_shape: tuple[int, int, int] | None = None) -> "VPSDEProcess":
        return VPSDEProcess(self)


class VPSDEProcess:
    """x_t = sqrt(abar) x + sqrt(1 - abar) noise, abar = c e^-I / (1 + (c - 1) e^-I), I(t) = 0.1 t + 9.95 t^2, c = snr_scale.

    At t = 1 the state is drawn from N(0, I) for every c. Training times are uniform in [0, 1).
    """

    kind = "vp-sde"
    start = 1.0

    def __init__(self, config: VPSDE) -> None:
        self.config = config
        self.input_perturbation = config.input_perturbation

    def noised(self, latents: Tensor, noise: Tensor, uniform: Tensor) -> Noised:
        x, noise = at_least_float32(latents), at_least_float32(noise)
        alpha, sigma = self._at(uniform, x)
        target = noise if self.config.prediction == "eps" else x
        return Noised(alpha * x + sigma * noise, target, uniform, self.network_time(uniform))

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        integral = _integral(t)
        signal, rest = self.config.snr_scale * torch.exp(-integral), -torch.expm1(-integral)      # abar : 1 - abar
        return (signal / (signal + rest)).sqrt(), (rest / (signal + rest)).sqrt()

    def network_time(self, t: Tensor) -> Tensor:
        return t * TIME_SCALE

    def time_of_network(self, network_time: Tensor) -> Tensor:
        return network_time / TIME_SCALE

    def retimed(self, grid: Tensor) -> Tensor:
        return grid

    def clock(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(1 / alpha, sigma / alpha), as for ddpm: the slope of x_t / alpha by sigma / alpha is the noise."""
        alpha, sigma = self.alpha_sigma(t)
        return 1 / alpha, sigma / alpha

    def denoised(self, prediction: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The clean latents; not clipped."""
        if self.config.prediction == "x0":
            return prediction
        alpha, sigma = self._at(t, x_t)
        return (x_t - sigma * prediction) / alpha

    def noise_of(self, prediction: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The noise. Singular at t = 0 from x0."""
        if self.config.prediction == "eps":
            return prediction
        alpha, sigma = self._at(t, x_t)
        return (x_t - alpha * prediction) / sigma

    def prediction_of(self, noise: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The noise, or the data that noise and x_t imply."""
        if self.config.prediction == "eps":
            return noise
        alpha, sigma = self._at(t, x_t)
        return (x_t - sigma * noise) / alpha

    def velocity(self, prediction: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """d(x_t / alpha) / d(sigma / alpha), which is the noise."""
        return self.noise_of(prediction, x_t, t)

    def rate(self, t: Tensor) -> Tensor:
        """beta_c(t) = beta(t) / (1 + (c - 1) e^-I): drift -beta_c x / 2 and squared diffusion beta_c of the scaled SDE."""
        scale = self.config.snr_scale
        return (BETA_START + (BETA_END - BETA_START) * t) / (1 + (scale - 1) * torch.exp(-_integral(t)))

    def half_log_snr(self, t: Tensor) -> Tensor:
        """log(alpha / sigma), which falls in t; infinite at t = 0."""
        integral = _integral(t)
        return 0.5 * (math.log(self.config.snr_scale) - integral - torch.log(-torch.expm1(-integral)))

    def time_of(self, half_log_snr: Tensor) -> Tensor:
        """The inverse of `half_log_snr`: I = log(1 + c e^(-2 lambda)), t = (sqrt(0.01 + 39.8 I) - 0.1) / 19.9."""
        integral = torch.log1p(self.config.snr_scale * torch.exp(-2 * half_log_snr))
        slope = BETA_END - BETA_START
        return 2 * integral / (torch.sqrt(BETA_START**2 + 2 * slope * integral) + BETA_START)     # without cancellation

    def _at(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.alpha_sigma(over_samples(t, x))


def _integral(t: Tensor) -> Tensor:
    """I(t), the integral of beta from 0 to t."""
    return BETA_START * t + (BETA_END - BETA_START) / 2 * t.square()
