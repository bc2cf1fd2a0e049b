"""Extrapolates a score to infinitely many samples, from its values for all samples and for halves of them."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

GROUPS = 10


@dataclass(frozen=True)
class Extrapolation:
    """value: at 1 / N = 0, of the line through the score of `most` samples and the mean score of `fewest`; error: its standard
    error."""

    value: float
    error: float
    fewest: int
    most: int


def extrapolated(statistic: Callable[[Tensor], float], count: int, *, halvings: int, draws: Generator) -> Extrapolation:
    """Limit for N to infinity of a score whose bias is proportional to 1 / N.

    This holds for Frechet distances if N is well above the feature dimension (Chong, Forsyth 2020). statistic: indices (M,) int64
    of samples -> score. The limit is twice the score of all samples minus the mean over the halves of `halvings` random splits.
    The error is a jackknife over tenths of the samples, left out of all and of every half; it does not include bias of another
    form than 1 / N. Bias due to the finite number of reference images stays in the value.
    """
    if count < 2 * GROUPS:
        raise ValueError(f"{count} samples are too few to extrapolate from: at least {2 * GROUPS} are needed")
    orders = [torch.randperm(count, generator=draws) for _ in range(halvings)]

    def value(kept: Tensor) -> float:
        """kept: (count,) bool."""
        halves = [half[kept[half]] for order in orders for half in order.chunk(2)]
        return 2 * statistic(torch.nonzero(kept).flatten()) - sum(map(statistic, halves)) / len(halves)

    everything = torch.ones(count, dtype=torch.bool)
    group = torch.randperm(count, generator=draws) % GROUPS
    left_out = torch.tensor([value(group != number) for number in range(GROUPS)], dtype=torch.float64)
    spread = float((left_out - left_out.mean()).square().sum())
    return Extrapolation(value(everything), math.sqrt((GROUPS - 1) / GROUPS * spread), count // 2, count)
