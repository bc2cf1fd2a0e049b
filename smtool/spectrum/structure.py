"""Similarity of the tokens of a feature map by their distance: iREPA's LDS and CDS (released-code.md#irepa-and-repa-dog).

LDS has two definitions, of iREPA's code and of its paper, which differ in the near and in the far pairs. Features are
(B, C, h, w). Similarity is the cosine of two tokens, distance is the Manhattan distance in tokens. Everything is computed in
float32 or float64.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

from smtool.spectrum.dct import full_precision, without_autocast
from smtool.spectrum.direction import rmsc

FAR = 6
SLOPE_DISTANCES = 8


def local_distant_similarity(features: Tensor) -> Tensor:
    """LDS of iREPA's code: mean cosine of tokens at distance 1 minus the mean cosine of pairs at least 6 tokens apart, (B,).

    Positive where tokens are more similar to their neighbours than to distant tokens. Raises ValueError for a grid without pairs
    6 tokens apart. Source: iREPA's `metric_lds` (released-code.md#irepa-and-repa-dog).
    """
    cosine, count = cosine_by_distance(features)
    if len(count) <= FAR:
        raise ValueError(f"LDS needs pairs {FAR} tokens apart, but a grid of {_by(features)} has none")
    return cosine[:, 1] - _mean(cosine, count, slice(FAR, None))


def local_distant_similarity_paper(features: Tensor) -> Tensor:
    """LDS of iREPA's paper: mean cosine of pairs less than r tokens apart minus that of pairs at least r apart, r = H / 2, (B,).

    H is the side of the grid in tokens, of a grid that is not square the shorter side. A pair consists of two different tokens.
    It has the sign of the other LDS, but another size, since its near pairs are further apart. Raises ValueError for a grid of
    fewer than 3 tokens a side, where no pair is nearer than r. Source: arXiv 2512.10794 (released-code.md#irepa-and-repa-dog).
    """
    cosine, count = cosine_by_distance(features)
    far = (min(features.shape[-2:]) + 1) // 2                                               # the first whole distance >= H / 2
    if far < 2:
        raise ValueError(f"LDS needs pairs nearer than half a side, but a grid of {_by(features)} has none")
    near, rest = (_mean(cosine, count, distances) for distances in (slice(1, far), slice(far, None)))
    return near - rest


def cosine_distance_slope(features: Tensor) -> Tensor:
    """CDS: minus the slope of the least-squares line of the mean cosine over distance, from 1 to 8 tokens, (B,).

    Raises ValueError for a grid without pairs 8 tokens apart. Source: iREPA (released-code.md#irepa-and-repa-dog).
    """
    cosine, count = cosine_by_distance(features)
    if len(count) <= SLOPE_DISTANCES:
        raise ValueError(f"CDS needs pairs {SLOPE_DISTANCES} tokens apart, but a grid of {_by(features)} has none")
    distance = torch.arange(1, SLOPE_DISTANCES + 1, dtype=cosine.dtype, device=cosine.device)
    centred = distance - distance.mean()
    return -(cosine[:, 1 : SLOPE_DISTANCES + 1] @ centred) / centred.square().sum()


SPATIAL_MEASURES: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType({
    "rmsc": rmsc,
    "lds": local_distant_similarity,
    "lds_paper": local_distant_similarity_paper,
    "cds": cosine_distance_slope,
})
"""iREPA's measures of feature maps, (B, C, h, w) -> (B,), by their names in results."""
SPATIAL_TITLES: Mapping[str, str] = MappingProxyType(
    {"rmsc": "RMSC", "lds": f"LDS (d >= {FAR})", "lds_paper": "LDS (r = H/2)", "cds": "CDS"}
)
"""Names of these measures in tables and logs."""


def cosine_by_distance(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cosine of all pairs of tokens at distances 0, 1 ... h + w - 2, (B, h + w - 1), and the numbers of ordered pairs.

    Sums over pairs with the same displacement are the autocorrelation of the unit tokens, computed by FFT: T log T operations
    instead of T^2 for all pairs.
    """
    height, width = features.shape[-2:]
    with without_autocast(features):
        tokens = functional.normalize(full_precision(features), dim=1).double()             # (B, C, h, w)
        spectrum = torch.fft.rfft2(tokens, s=(2 * height, 2 * width)).abs().square().sum(1)
        sums = torch.fft.irfft2(spectrum, s=(2 * height, 2 * width))                        # (B, 2h, 2w), by displacement
    down, right = (torch.arange(2 * side, device=features.device) for side in (height, width))
    down, right = torch.minimum(down, 2 * height - down), torch.minimum(right, 2 * width - right)
    pairs = ((height - down)[:, None] * (width - right)).flatten()
    distance = (down[:, None] + right).flatten().clamp(max=height + width - 2)              # beyond: no pairs
    count = pairs.new_zeros(height + width - 1).index_add(0, distance, pairs)
    sums = torch.where(pairs > 0, sums.flatten(1), 0)
    total = sums.new_zeros(len(sums), len(count)).index_add(1, distance, sums)
    return (total / count).to(full_precision(features).dtype), count


def _mean(cosine: Tensor, count: Tensor, distances: slice) -> Tensor:
    """Mean cosine over all pairs at the given distances, (B,)."""
    return (cosine[:, distances] * count[distances]).sum(1) / count[distances].sum()


def _by(features: Tensor) -> str:
    return f"{features.shape[-2]}x{features.shape[-1]}"
