"""What training and sampling need to know of a diffusion process. The convention of time is stated in flow.py."""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

Target = Literal["v", "x", "eps"]


@dataclass(frozen=True)
class Noised:
    """A training example: x_t and target (B, C, h, w), t (B,) in [0, 1], network_time (B,) what the network is told of t."""

    x_t: Tensor
    target: Tensor
    t: Tensor
    network_time: Tensor


class Process(Protocol):
    """x_t = alpha(t) x + sigma(t) noise, and what a network predicts of it.

    t is (B,), or a scalar tensor for all samples; x_t and predictions are (B, C, h, w).
    start: the time that sampling starts from.
    """

    @property
    def start(self) -> float: ...

    def noised(self, latents: Tensor, noise: Tensor, uniform: Tensor) -> Noised:
        """Training examples of normalized latents: `uniform` (B,) in [0, 1) becomes their times. Float32 at least."""
        ...

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Share of data and of noise, shaped as t."""
        ...

    def network_time(self, t: Tensor) -> Tensor:
        """t in the unit that the network embeds."""
        ...

    def retimed(self, grid: Tensor) -> Tensor:
        """The process's own times for an even grid over [0, 1]."""
        ...

    def denoised(self, prediction: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The clean latents that a prediction implies."""
        ...

    def noise_of(self, prediction: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The noise that a prediction implies."""
        ...

    def velocity(self, prediction: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Slope d(scale x_t) / d(clock) of the deterministic path, in the coordinates of `clock`."""
        ...

    def clock(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(scale, clock): coordinates in which the deterministic path is smooth up to t = 0, for Euler's and Heun's steps."""
        ...


def over_samples(t: Tensor, x: Tensor) -> Tensor:
    """t, (B,) or scalar, in x's dtype and shaped to multiply x (B, C, h, w)."""
    return t.to(x).reshape(-1, *[1] * (x.ndim - 1))


def at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
