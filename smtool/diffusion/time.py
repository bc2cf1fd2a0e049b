"""Times of training examples and of sampling grids: densities over [0, 1] and the shift that moves them."""

import torch
from torch import Tensor


def logit_normal(uniform: Tensor, *, mean: float, std: float) -> Tensor:
    """Uniform numbers in [0, 1) -> t = sigmoid(mean + std z), z standard normal. Same shape and dtype.

    With mean 0 and std 1 this is also t = s / (1 + s), s = exp(z), the "lognormal" option of SiT and REPA (facts 8.3); Stable
    Diffusion 3 (arXiv 2403.03206, section 3.1) has mean and std as its m and s.
    """
    z = torch.special.ndtri(uniform.double())
    return torch.sigmoid(mean + std * z).to(uniform.dtype)


def shifted(t: Tensor, shift: float) -> Tensor:
    """t' = s t / (1 + (s - 1) t): multiplies t / (1 - t) by s, so that more time (s > 1) is spent at high noise.

    `spectrum.time_shift` says which s brings one latent space's signal-to-noise ratios to another's.
    """
    return shift * t / (1 + (shift - 1) * t)
