"""A score for infinitely many samples, from what it is for all samples and for halves of them."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

GROUPS = 10


@dataclass(frozen=True)
class Extrapolation:
    """value at 1 / N = 0 of the line through the scores of `most` samples and, on average, of `fewest`; error: standard."""

    value: float
    error: float
    fewest: int
    most: int


def extrapolated(statistic: Callable[[Tensor], float], count: int, *, halvings: int, draws: Generator) -> Extrapolation:
    """A score whose excess falls like 1 / N, such as a Frechet distance of N well above its dimension (Chong, Forsyth 2020).

    statistic: indices (M,) int64 of samples -> score. Twice the score of all, less the mean over halves, at `halvings` random
    ways to halve. The error is the jackknife's, leaving out a tenth of the samples at a time from all and from every half; it
    says nothing of what is not like 1 / N. What the other side's finite number adds stays in the value.
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
