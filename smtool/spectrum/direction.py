"""Spectra of directions: how much the unit token vectors of a feature map vary in space, and the filters that change it.

Features are (B, C, h, w): C numbers (a token) at each of h x w places. Everything is computed in float32 at least, under
autocast too.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from smtool.spectrum.dct import dct2, full_precision, idct2, without_autocast


def rmsc(features: Tensor) -> Tensor:
    """Root mean square contrast of the token directions: sqrt(mean over places of |u - mean u|^2), u = token / |token|.

    features: (B, C, h, w). Returns (B,), between 0 (all tokens point one way) and 1 (their directions cancel).
    Source: iREPA's measure, facts section 9. Equals the square root of `directional_energy` (Spectrum Matching, Proposition 3.2).
    """
    directions = _directions(features)
    centred = directions - directions.mean((-2, -1), keepdim=True)
    return centred.square().sum(1).mean((-2, -1)).sqrt()


def directional_energy(features: Tensor) -> Tensor:
    """Energy per token of the directions outside DC: (1 / T) sum over k >= 1 of |c_k|^2, c the orthonormal DCT of the unit
    tokens.

    features: (B, C, h, w), T = h * w. Returns (B,). Proposition 3.2: this is rmsc^2. The 2-D DCT is used; any orthonormal
    transform whose first function is constant gives the same sum.
    """
    energy = dct2(_directions(features)).square().sum(1)                                    # (B, h, w)
    energy[..., 0, 0] = 0
    return energy.mean((-2, -1))


def difference_of_gaussians(features: Tensor, sigma1: float, sigma2: float, alpha: float) -> Tensor:
    """REPA-DoG (Spectrum Matching, Eq. 6): y = (G1 * F - alpha G2 * F) / (std of F's tokens + 1e-6), per image and channel.

    features: (B, C, h, w). The Gaussians act in the DCT domain, that is with half-sample symmetric borders: the gain along an
    axis of N tokens is exp(-sigma^2 (pi k / N)^2 / 2). sigma in tokens: 0 is the identity, `math.inf` exactly the mean over the
    tokens. sigma1 = 0 with sigma2 = inf is `spatial_normalize` with gamma = alpha. The std is that of the unfiltered tokens,
    unbiased. The paper prints neither sigma nor kernel; this form is ours (facts section 9).
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

    features: (B, C, h, w); the default gamma is that of iREPA's released code (facts section 9).
    """
    with without_autocast(features):
        x = full_precision(features)
        return (x - gamma * x.mean((-2, -1), keepdim=True)) / _token_std(x)


def _directions(features: Tensor) -> Tensor:
    with without_autocast(features):
        return functional.normalize(full_precision(features), dim=1, eps=1e-12)


def _gain(size: int, sigma: float, like: Tensor) -> Tensor:
    """Gain of a Gaussian along one axis of the DCT domain: (size,), 1 at DC for every sigma, infinite included."""
    k = torch.arange(1, size, dtype=torch.float64, device=like.device)
    rest = torch.exp(-0.5 * (sigma * math.pi / size * k).square())
    return torch.cat([rest.new_ones(1), rest]).to(like.dtype)


def _token_std(x: Tensor) -> Tensor:
    return x.std((-2, -1), keepdim=True) + 1e-6

