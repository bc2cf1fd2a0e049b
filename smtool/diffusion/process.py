"""The interface of a diffusion process for training and sampling. flow.py states the convention of time."""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

Target = Literal["v", "x", "eps"]


@dataclass(frozen=True)
class Noised:
    """Training examples: x_t and target (B, C, h, w), t (B,) in [0, 1], network_time (B,), the network's time input."""

    x_t: Tensor
    target: Tensor
    t: Tensor
    network_time: Tensor


class Process(Protocol):
    """x_t = alpha(t) x + sigma(t) noise, and the meaning of a network's prediction.

    t is (B,), or a scalar tensor for all samples; x_t and predictions are (B, C, h, w). start: the start time of sampling; kind:
    as in recipes; input_perturbation: gamma of `exposure.perturbed`, 0 for none.
    """

    @property
    def kind(self) -> str: ...

    @property
    def start(self) -> float: ...

    @property
    def input_perturbation(self) -> float: ...

    def noised(self, latents: Tensor, noise: Tensor, uniform: Tensor) -> Noised:
        """Training examples from normalized latents and noise; times are computed from `uniform` (B,) in [0, 1).

        The result is float32, or float64 for float64 latents.
        """
        ...

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The factors (alpha, sigma) of data and noise, with the shape of t."""
        ...

    def network_time(self, t: Tensor) -> Tensor:
        """t in the unit of the network's time input."""
        ...

    def time_of_network(self, network_time: Tensor) -> Tensor:
        """The inverse of `network_time`."""
        ...

    def retimed(self, grid: Tensor) -> Tensor:
        """The process's times for an evenly spaced grid over [0, 1]."""
        ...

    def denoised(self, prediction: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The clean latents that a prediction implies."""
        ...

    def noise_of(self, prediction: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The noise that a prediction implies."""
        ...

    def prediction_of(self, noise: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The prediction that implies a noise: the inverse of `noise_of`."""
        ...

    def velocity(self, prediction: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The slope d(scale x_t) / d(clock) of the deterministic path, in the coordinates of `clock`."""
        ...

    def clock(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(scale, clock): coordinates for Euler's and Heun's steps, in which the deterministic path is smooth up to t = 0."""
        ...


INPUT_PERTURBATION = (
    "gamma of noisier inputs in training, x_t = alpha x + sigma (noise + gamma xi), xi standard normal, with unchanged targets; "
    "DDPM-IP (arXiv 2301.11706) has 0.1 to 0.15; 0: none"
)


def over_samples(t: Tensor, x: Tensor) -> Tensor:
    """t, (B,) or scalar, in x's dtype and with the shape to multiply x (B, C, h, w). A scalar on the CPU stays there: operators
    take its value, and a copy to a GPU would wait for it."""
    if t.ndim == 0:
        return t.to(x.dtype)
    return t.to(x).reshape(-1, *[1] * (x.ndim - 1))


def at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
