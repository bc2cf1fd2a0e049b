"""Flow matching between data and noise.

**Time.** Everywhere in smtool data is at t = 0 and noise at t = 1, as in REPA's code; a sampler runs from 1 to 0.
Many papers on flow matching run the other way, and so does SiT's own code (its weights are turned when they are opened).
"""

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from smtool.config import Config
from smtool.diffusion.process import Noised, Target, at_least_float32, over_samples
from smtool.diffusion.time import logit_normal, shifted

EPS_START = 0.999
"""Where sampling starts if the network predicts the noise: at t = 1 that says nothing of the data, and x = (x_t - noise) / 0."""


class Flow(Config):
    """Flow matching, also called rectified flow or stochastic interpolant: x_t = alpha x + sigma noise."""

    kind: Literal["flow"] = "flow"
    path: Literal["linear", "cosine"] = Field(
        "linear", description='"linear": alpha = 1 - t, sigma = t; "cosine": alpha = cos(pi t / 2), sigma = sin(pi t / 2)'
    )
    prediction: Target = Field("v", description='what the network predicts: "v" = dx_t / dt, "x" the data, "eps" the noise')
    time: Literal["uniform", "logit-normal"] = Field("uniform", description="density of training times")
    logit_mean: float = Field(0.0, description="of the logit-normal density; above 0: more time at high noise")
    logit_std: float = Field(1.0, gt=0, description="of the logit-normal density")
    shift: float = Field(1.0, gt=0, description="multiplies t / (1 - t) of training times and of sampling grids; 1: no shift")

    def build(self) -> "FlowProcess":
        return FlowProcess(self)


class FlowProcess:
    """The maths of `Flow`. Along a path d(x_t) / dt = alpha' x + sigma' noise; that is the velocity (SiT, facts 8.3)."""

    def __init__(self, config: Flow) -> None:
        self.config = config
        self.prediction = config.prediction

    @property
    def start(self) -> float:
        return EPS_START if self.prediction == "eps" else 1.0

    def noised(self, latents: Tensor, noise: Tensor, uniform: Tensor) -> Noised:
        x, noise = at_least_float32(latents), at_least_float32(noise)
        t = self._training_times(uniform)
        alpha, sigma = self._at(t, x)
        target = {"v": self._mixed_slope(x, noise, t), "x": x, "eps": noise}[self.prediction]
        return Noised(alpha * x + sigma * noise, target, t, self.network_time(t))

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        if self.config.path == "linear":
            return 1 - t, t
        return torch.sin((1 - t) * (math.pi / 2)), torch.sin(t * (math.pi / 2))      # not cos(t pi / 2): exactly 0 at t = 1

    def network_time(self, t: Tensor) -> Tensor:
        """t itself, in [0, 1], unscaled (facts 8.2)."""
        return t

    def retimed(self, grid: Tensor) -> Tensor:
        return shifted(grid, self.config.shift)

    def clock(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(t), t

    def denoised(self, prediction: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """From v: x = (sigma' x_t - sigma v) / (alpha sigma' - alpha' sigma). From eps this is singular at t = 1."""
        if self.prediction == "x":
            return prediction
        alpha, sigma = self._at(t, x_t)
        if self.prediction == "eps":
            return (x_t - sigma * prediction) / alpha
        alpha_slope, sigma_slope = self._slopes(alpha, sigma)
        return (sigma_slope * x_t - sigma * prediction) / (alpha * sigma_slope - alpha_slope * sigma)

    def noise_of(self, prediction: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """From v: noise = (alpha v - alpha' x_t) / (alpha sigma' - alpha' sigma). From x this is singular at t = 0."""
        if self.prediction == "eps":
            return prediction
        alpha, sigma = self._at(t, x_t)
        if self.prediction == "x":
            return (x_t - alpha * prediction) / sigma
        alpha_slope, sigma_slope = self._slopes(alpha, sigma)
        return (alpha * prediction - alpha_slope * x_t) / (alpha * sigma_slope - alpha_slope * sigma)

    def velocity(self, prediction: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """dx_t / dt."""
        if self.prediction == "v":
            return prediction
        return self._mixed_slope(self.denoised(prediction, x_t, t), self.noise_of(prediction, x_t, t), t)

    def _training_times(self, uniform: Tensor) -> Tensor:
        config = self.config
        if config.time == "logit-normal":
            uniform = logit_normal(uniform, mean=config.logit_mean, std=config.logit_std)
        return shifted(uniform, config.shift)

    def _mixed_slope(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        alpha_slope, sigma_slope = self._slopes(*self._at(t, x))
        return alpha_slope * x + sigma_slope * noise

    def _at(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.alpha_sigma(over_samples(t, x))

    def _slopes(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha', sigma'), derivatives by t."""
        if self.config.path == "linear":
            return -torch.ones_like(alpha), torch.ones_like(sigma)
        return -math.pi / 2 * sigma, math.pi / 2 * alpha
