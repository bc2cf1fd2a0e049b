"""Times of training examples and of sampling grids: densities over [0, 1], and the time shift."""

import math

import torch
from torch import Tensor

from smtool.devices import in_float64

SHIFT_BASE = 4096
"""Number of values of a latent at which `dimension_shift` is 1."""


def logit_normal(uniform: Tensor, *, mean: float, std: float) -> Tensor:
    """Uniform numbers in [0, 1) -> t = sigmoid(mean + std z), z standard normal. Same shape and dtype.

    With mean 0 and std 1 this equals t = s / (1 + s), s = exp(z), the "lognormal" option of SiT and REPA
    (released-code.md#flow-matching-and-repa). Stable Diffusion 3 (arXiv 2403.03206, section 3.1) calls mean and std m and s.
    """
    z = torch.special.ndtri(in_float64(uniform))
    return torch.sigmoid(mean + std * z).to(uniform)


def shifted(t: Tensor, shift: float) -> Tensor:
    """t' = s t / (1 + (s - 1) t): multiplies t / (1 - t) by s = shift, which for s > 1 moves times to higher noise.

    `spectrum.time_shift` computes the s that gives one latent space the signal-to-noise ratios of another.
    """
    return shift * t / (1 + (shift - 1) * t)


def dimension_shift(latent_shape: tuple[int, ...]) -> float:
    """sqrt(m / 4096), m = C h w: the shift of RAE (arXiv 2510.11690; released-code.md#dit-dh), 6.928 for 768 x 16 x 16.

    A latent of more values keeps more of its information at a given noise level, so its times are moved to higher noise.
    """
    return math.sqrt(math.prod(latent_shape) / SHIFT_BASE)
