"""Power: how often a distance puts two sets into the right order."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from smtool.randomness import generator

QUANTILE = 1.959964      # of the normal distribution, for 95 %


@dataclass(frozen=True)
class Row:
    """One metric on one extractor at one number of images, for two neighbouring levels of a ladder.

    amounts, means: of the better and the worse level: their degradation, and mean distance; power: share of right orders, with
    its 95 % interval (low, high) over `subsets` comparisons; ms_per_image: core time of the features.
    """

    ladder: str
    title: str
    features: str
    metric: str
    count: int
    amounts: tuple[float, float]
    means: tuple[float, float]
    power: float
    low: float
    high: float
    subsets: int
    ms_per_image: float


def right_orders(better: Tensor, worse: Tensor) -> float:
    """Share of comparisons, (S,) each, in which `better` has the smaller distance; ties count as half."""
    return float(((better < worse).double() + 0.5 * (better == worse)).mean())


def interval(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of `count` independent comparisons. It is too narrow where subsets share images."""
    square = QUANTILE**2
    centre = (share + square / (2 * count)) / (1 + square / count)
    width = QUANTILE / (1 + square / count) * math.sqrt(share * (1 - share) / count + square / (4 * count**2))
    return centre - width, centre + width


def random_rows(size: int, count: int, subsets: int, *key: str | int) -> Tensor:
    """(subsets, count): rows of random subsets, each without repetition."""
    draws = generator("judge study", *key)
    return torch.stack([torch.randperm(size, generator=draws)[:count] for _ in range(subsets)])
