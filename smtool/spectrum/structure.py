"""How alike the tokens of a feature map are at which distance: iREPA's LDS and CDS (facts section 9).

Features are (B, C, h, w); likeness is the cosine of two tokens, distance is Manhattan, in tokens. Computed in float32 at least.
"""

import torch
from torch import Tensor
from torch.nn import functional

from smtool.spectrum.dct import full_precision, without_autocast

FAR = 6
SLOPE_DISTANCES = 8


def local_distant_similarity(features: Tensor) -> Tensor:
    """LDS: mean cosine of 4-neighbours less the mean cosine of pairs at least 6 tokens apart, (B,).

    Above 0 where tokens resemble their neighbours more than the rest of the image. Raises ValueError for a grid too small.
    """
    cosine, count = cosine_by_distance(features)
    if len(count) <= FAR:
        raise ValueError(f"LDS needs pairs {FAR} tokens apart, but a grid of {_by(features)} has none")
    far = (cosine[:, FAR:] * count[FAR:]).sum(1) / count[FAR:].sum()
    return cosine[:, 1] - far


def cosine_distance_slope(features: Tensor) -> Tensor:
    """CDS: minus the slope of the least-squares line of the mean cosine against distance, 1 ... 8 tokens, (B,).

    Raises ValueError for a grid whose corners are less than 8 apart.
    """
    cosine, count = cosine_by_distance(features)
    if len(count) <= SLOPE_DISTANCES:
        raise ValueError(f"CDS needs pairs {SLOPE_DISTANCES} tokens apart, but a grid of {_by(features)} has none")
    distance = torch.arange(1, SLOPE_DISTANCES + 1, dtype=cosine.dtype, device=cosine.device)
    centred = distance - distance.mean()
    return -(cosine[:, 1 : SLOPE_DISTANCES + 1] @ centred) / centred.square().sum()


def cosine_by_distance(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cosine of all pairs of tokens at distance 0, 1 ... h + w - 2: (B, h + w - 1), and the number of ordered pairs."""
    height, width = features.shape[-2:]
    with without_autocast(features):
        tokens = functional.normalize(full_precision(features).flatten(2), dim=1)  # (B, C, T)
        cosine = tokens.mT @ tokens  # (B, T, T)
    rows, columns = torch.arange(height).repeat_interleave(width), torch.arange(width).repeat(height)
    distance = ((rows[:, None] - rows).abs() + (columns[:, None] - columns).abs()).flatten().to(features.device)
    count = torch.bincount(distance, minlength=height + width - 1)
    total = cosine.new_zeros(len(cosine), len(count)).index_add(1, distance, cosine.flatten(1))
    return total / count, count


def _by(features: Tensor) -> str:
    return f"{features.shape[-2]}x{features.shape[-1]}"
