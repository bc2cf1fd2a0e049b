"""Flow matching between data and noise.

**Time.** In smtool, data is at t = 0 and noise at t = 1, as in REPA's code; a sampler runs from 1 to 0. Many papers on flow
matching, and SiT's own code, use the opposite direction (SiT's weights are converted when they are read).
"""

import math
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from smtool.config import Config
from smtool.diffusion.process import INPUT_PERTURBATION, Noised, Target, at_least_float32, over_samples
from smtool.diffusion.time import dimension_shift, logit_normal, shifted

EPS_START = 0.999
"""Start time of sampling if the network predicts the noise: at t = 1, x = (x_t - sigma noise) / alpha divides by 0."""


class Flow(Config):
    """Flow matching, also called rectified flow or stochastic interpolant: x_t = alpha x + sigma noise."""

    kind: Literal["flow"] = "flow"
    path: Literal["linear", "cosine"] = Field(
        "linear", description='"linear": alpha = 1 - t, sigma = t; "cosine": alpha = cos(pi t / 2), sigma = sin(pi t / 2)'
    )
    prediction: Target = Field("v", description='output of the network: "v" = dx_t / dt, "x" = the data, "eps" = the noise')
    time: Literal["uniform", "logit-normal"] = Field("uniform", description="distribution of the training times t")
    logit_mean: float = Field(0.0, description="mean of logit(t) for logit-normal times; above 0: more training at high noise")
    logit_std: float = Field(1.0, gt=0, description="standard deviation of logit(t) for logit-normal times")
    shift: Annotated[float, Field(gt=0)] | Literal["dimension"] = Field(
        1.0,
        description="factor of t / (1 - t) for training times and sampling grids; 1: no shift; on the linear path 1 / sqrt(c) "
        'multiplies the signal-to-noise ratio ((1 - t) / t)^2 by c; "dimension": sqrt(C h w / 4096) of the latents, as in RAE',
    )
    input_perturbation: float = Field(0.0, ge=0, description=INPUT_PERTURBATION)

    @model_validator(mode="before")
    @classmethod
    def _snr_scale_is_a_shift(cls, values: Any) -> Any:
        if isinstance(values, dict) and "snr_scale" in values:
            raise ValueError('snr_scale is a key of "ddpm" and "vp-sde"; a flow has `shift`: 1 / sqrt(c) scales its SNR by c')
        return values

    def shift_of(self, latent_shape: tuple[int, int, int] | None) -> float:
        """The shift as a number. Raises ValueError if it depends on the latents (C, h, w) and these are not given."""
        if self.shift != "dimension":
            return self.shift
        if latent_shape is None:
            raise ValueError('shift = "dimension" needs the shape of the latents')
        return dimension_shift(latent_shape)

    def build(self, latent_shape: tuple[int, int, int] | None = None) -> "FlowProcess":
        return FlowProcess(self, self.shift_of(latent_shape))


class FlowProcess:
    """The process of a `Flow` table; shift: as a number. The velocity is dx_t / dt = alpha' x + sigma' noise.

    Source: released-code.md#flow-matching-and-repa.
    """

    kind = "flow"

    def __init__(self, config: Flow, shift: float) -> None:
        self.config = config
        self.shift = shift
        self.prediction = config.prediction
        self.input_perturbation = config.input_perturbation

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
        """t, in [0, 1], unscaled (released-code.md#sit)."""
        return t

    def time_of_network(self, network_time: Tensor) -> Tensor:
        return network_time

    def retimed(self, grid: Tensor) -> Tensor:
        return shifted(grid, self.shift)

    def clock(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(t), t

    def denoised(self, prediction: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The clean latents. From v: x = (sigma' x_t - sigma v) / (alpha sigma' - alpha' sigma). Singular at t = 1 from eps."""
        if self.prediction == "x":
            return prediction
        alpha, sigma = self._at(t, x_t)
        if self.prediction == "eps":
            return (x_t - sigma * prediction) / alpha
        alpha_slope, sigma_slope = self._slopes(alpha, sigma)
        return (sigma_slope * x_t - sigma * prediction) / (alpha * sigma_slope - alpha_slope * sigma)

    def noise_of(self, prediction: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The noise. From v: noise = (alpha v - alpha' x_t) / (alpha sigma' - alpha' sigma). Singular at t = 0 from x."""
        if self.prediction == "eps":
            return prediction
        alpha, sigma = self._at(t, x_t)
        if self.prediction == "x":
            return (x_t - alpha * prediction) / sigma
        alpha_slope, sigma_slope = self._slopes(alpha, sigma)
        return (alpha * prediction - alpha_slope * x_t) / (alpha * sigma_slope - alpha_slope * sigma)

    def prediction_of(self, noise: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The prediction for a noise and the data that it implies with x_t. Singular at t = 1 for v and x."""
        if self.prediction == "eps":
            return noise
        alpha, sigma = self._at(t, x_t)
        data = (x_t - sigma * noise) / alpha
        return data if self.prediction == "x" else self._mixed_slope(data, noise, t)

    def velocity(self, prediction: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """dx_t / dt."""
        if self.prediction == "v":
            return prediction
        return self._mixed_slope(self.denoised(prediction, x_t, t), self.noise_of(prediction, x_t, t), t)

    def _training_times(self, uniform: Tensor) -> Tensor:
        config = self.config
        if config.time == "logit-normal":
            uniform = logit_normal(uniform, mean=config.logit_mean, std=config.logit_std)
        return shifted(uniform, self.shift)

    def _mixed_slope(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        alpha_slope, sigma_slope = self._slopes(*self._at(t, x))
        return alpha_slope * x + sigma_slope * noise

    def _at(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.alpha_sigma(over_samples(t, x))

    def _slopes(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha', sigma'), the derivatives with respect to t."""
        if self.config.path == "linear":
            return -torch.ones_like(alpha), torch.ones_like(sigma)
        return -math.pi / 2 * sigma, math.pi / 2 * alpha
