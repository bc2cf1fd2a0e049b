"""Spearman's rank correlation with what a few points can say of it: an interval, and how often chance does as well."""

import math
from dataclasses import dataclass
from itertools import permutations

import torch
from torch import Generator, Tensor

REPLICATES = 2000
FEWEST = 8
MOST_PERMUTED = 7      # up to 7! = 5,040 orders are all gone through


@dataclass(frozen=True)
class RankCorrelation:
    """value; low, high: 95 % percentile interval of the bootstrap over points, NaN below FEWEST points, where it would often be
    a single value; chance: share of random orders that correlate at least as strongly, either way; points: their number."""

    value: float
    low: float
    high: float
    chance: float
    points: int


def ranks(values: Tensor) -> Tensor:
    """Ranks from 1, float64; equal values share their mean rank."""
    _, inverse, counts = torch.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts.double() - 1) / 2)[inverse]


def spearman(x: Tensor, y: Tensor) -> float:
    """Pearson's correlation of the ranks (Spearman 1904), in [-1, 1]; NaN where one side is all equal."""
    if x.shape != y.shape or x.ndim != 1 or len(x) < 2:
        raise ValueError(f"two lists of one length of at least 2 are needed, found {tuple(x.shape)} and {tuple(y.shape)}")
    return _pearson(ranks(x), ranks(y))


def rank_correlation(x: Tensor, y: Tensor, *, draws: Generator) -> RankCorrelation:
    """Spearman's correlation with its uncertainty. Points must be independent: average seeds of one racer first."""
    value = spearman(x, y)
    low, high = _bootstrap(x, y, draws) if len(x) >= FEWEST else (math.nan, math.nan)
    return RankCorrelation(value, low, high, _chance(ranks(x), ranks(y), abs(value), draws), len(x))


def repeatability(scores: Tensor) -> float:
    """How well one repetition orders things as the others do: scores (things, repetitions), of at least two repetitions.

    Mean over repetitions of Spearman's correlation with the mean of all other repetitions, in [-1, 1].
    """
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise ValueError(f"scores (things, at least 2 repetitions) are needed, found {tuple(scores.shape)}")
    others = (scores.sum(1, keepdim=True) - scores) / (scores.shape[1] - 1)
    found = [spearman(one, rest) for one, rest in zip(scores.unbind(1), others.unbind(1), strict=True)]
    return sum(found) / len(found)


def _pearson(x: Tensor, y: Tensor) -> float:
    x, y = x - x.mean(), y - y.mean()
    size = (x.square().sum() * y.square().sum()).sqrt()
    return float((x * y).sum() / size) if size > 0 else math.nan


def _bootstrap(x: Tensor, y: Tensor, draws: Generator) -> tuple[float, float]:
    values = []
    for _ in range(REPLICATES):
        chosen = torch.randint(len(x), (len(x),), generator=draws)
        values.append(spearman(x[chosen], y[chosen]))
    found = torch.tensor(values, dtype=torch.float64)
    found = found[~found.isnan()]      # draws of one point only
    low, high = torch.quantile(found, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def _chance(x: Tensor, y: Tensor, strength: float, draws: Generator) -> float:
    """Two-sided permutation test: exact for few points, by random orders (with the one found among them) for more."""
    if math.isnan(strength):
        return 1.0
    exact = len(x) <= MOST_PERMUTED
    if exact:
        orders = [torch.tensor(order) for order in permutations(range(len(x)))]
    else:
        orders = [torch.arange(len(x)), *(torch.randperm(len(x), generator=draws) for _ in range(REPLICATES - 1))]
    slack = 1e-9
    return sum(abs(_pearson(x, y[order])) >= strength - slack for order in orders) / len(orders)
