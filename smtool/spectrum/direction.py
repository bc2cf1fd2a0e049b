"""Spectra of directions: how much the unit token vectors of a feature map vary in space, and filters that change this.

Features are (B, C, h, w): a token of C numbers at each of h x w positions. Everything is computed in float32 or float64, also
under autocast.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from smtool.devices import float64_device
from smtool.spectrum.dct import dct2, full_precision, idct2, without_autocast


def rmsc(features: Tensor) -> Tensor:
    """Root mean square contrast of the token directions: sqrt(mean over positions of |u - mean u|^2), u = token / |token|.

    features: (B, C, h, w). Returns (B,), between 0 (all tokens have the same direction) and 1 (the mean direction is 0).
    Source: iREPA's measure (released-code.md#irepa-and-repa-dog). It is the square root of `directional_energy` (Spectrum
    Matching, arXiv 2603.14645, Proposition 3.2).
    """
    directions = _directions(features)
    centred = directions - directions.mean((-2, -1), keepdim=True)
    return centred.square().sum(1).mean((-2, -1)).sqrt()


def directional_energy(features: Tensor) -> Tensor:
    """Energy per token of the directions outside DC: (1 / T) sum over k >= 1 of |c_k|^2, c the orthonormal DCT of the unit
    tokens.

    features: (B, C, h, w), T = h * w. Returns (B,), between 0 and 1. It equals rmsc^2. The 2-D DCT is used here; any orthonormal
    transform whose first function is constant gives the same sum. Source: arXiv 2603.14645, Proposition 3.2.
    """
    energy = dct2(_directions(features)).square().sum(1)                                    # (B, h, w)
    energy[..., 0, 0] = 0
    return energy.mean((-2, -1))


def difference_of_gaussians(features: Tensor, sigma1: float, sigma2: float, alpha: float) -> Tensor:
    """The filter of REPA-DoG: y = (G1 * F - alpha G2 * F) / (std of F's tokens + 1e-6), per image and channel.

    features: F, (B, C, h, w). sigma1, sigma2: widths of the Gaussians G1 and G2 in tokens, 0 or more; 0 is the identity and
    `math.inf` is exactly the mean over the tokens. The Gaussians act in the DCT domain (half-sample symmetric borders): the gain
    along an axis of N tokens is exp(-sigma^2 (pi k / N)^2 / 2). The std is unbiased and that of the unfiltered tokens.
    sigma1 = 0 with sigma2 = inf equals `spatial_normalize` with gamma = alpha. Raises ValueError for a negative sigma.
    Source: Spectrum Matching (arXiv 2603.14645), Eq. 6. The paper states neither sigma nor kernel, so this form is this
    project's choice (released-code.md#irepa-and-repa-dog).
    """
    for name, sigma in (("sigma1", sigma1), ("sigma2", sigma2)):
        if not sigma >= 0:
            raise ValueError(f"{name} must be 0 or more tokens (math.inf is allowed), but is {sigma}")
    with without_autocast(features):
        x = full_precision(features)
        coefficients = dct2(x)
        height, width = x.shape[-2:]
        inner, outer = (_gain(height, s, x)[:, None] * _gain(width, s, x) for s in (sigma1, sigma2))
        return idct2(coefficients * (inner - alpha * outer)) / _token_std(x)


def spatial_normalize(features: Tensor, gamma: float = 0.6) -> Tensor:
    """iREPA's spatial normalization: y = (F - gamma mean F) / (std F + 1e-6), per image and channel, unbiased std.

    features: (B, C, h, w). gamma: fraction of the mean that is subtracted; the default is that of iREPA's released code
    (released-code.md#irepa-and-repa-dog).
    """
    with without_autocast(features):
        x = full_precision(features)
        return (x - gamma * x.mean((-2, -1), keepdim=True)) / _token_std(x)


def _directions(features: Tensor) -> Tensor:
    with without_autocast(features):
        return functional.normalize(full_precision(features), dim=1, eps=1e-12)


def _gain(size: int, sigma: float, like: Tensor) -> Tensor:
    """Gain of a Gaussian along one axis of the DCT domain: (size,); 1 at DC for every sigma, also for infinity."""
    k = torch.arange(1, size, dtype=torch.float64, device=float64_device(like.device))
    rest = torch.exp(-0.5 * (sigma * math.pi / size * k).square())
    return torch.cat([rest.new_ones(1), rest]).to(like)


def _token_std(x: Tensor) -> Tensor:
    return x.std((-2, -1), keepdim=True) + 1e-6

