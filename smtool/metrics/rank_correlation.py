"""Spearman's rank correlation of few points, with a bootstrap interval and a permutation test."""

import math
from dataclasses import dataclass
from itertools import permutations

import torch
from torch import Generator, Tensor

REPLICATES = 2000
FEWEST = 8
MOST_PERMUTED = 7      # up to 7! = 5,040 orders are all enumerated


@dataclass(frozen=True)
class RankCorrelation:
    """value: Spearman's correlation; low, high: 95 % percentile interval of the bootstrap over points, NaN below FEWEST points,
    where it would often be a single value; chance: p-value, the fraction of random orders with at least the same absolute
    correlation; points: their number."""

    value: float
    low: float
    high: float
    chance: float
    points: int


def ranks(values: Tensor) -> Tensor:
    """Ranks from 1 along the last dimension, float64; equal values get their mean rank. Compares all pairs, so for few values."""
    below = (values[..., None, :] < values[..., :, None]).sum(-1)
    equal = (values[..., None, :] == values[..., :, None]).sum(-1)
    return below + (equal.double() + 1) / 2


def spearman(x: Tensor, y: Tensor) -> float:
    """Pearson's correlation of the ranks (Spearman 1904), in [-1, 1]; NaN if all values of x or of y are equal."""
    if x.shape != y.shape or x.ndim != 1 or len(x) < 2:
        raise ValueError(f"two lists of one length of at least 2 are needed, found {tuple(x.shape)} and {tuple(y.shape)}")
    return float(_pearson(ranks(x), ranks(y)))


def rank_correlation(x: Tensor, y: Tensor, *, draws: Generator) -> RankCorrelation:
    """Spearman's correlation with its uncertainty. Points must be independent: average over seeds first."""
    value = spearman(x, y)
    low, high = _bootstrap(x, y, draws) if len(x) >= FEWEST else (math.nan, math.nan)
    return RankCorrelation(value, low, high, _chance(ranks(x), ranks(y), abs(value), draws), len(x))


def repeatability(scores: Tensor) -> float:
    """Mean over repetitions of Spearman's correlation with the mean of all other repetitions, in [-1, 1].

    scores: (things, repetitions), at least two repetitions.
    """
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise ValueError(f"scores (things, at least 2 repetitions) are needed, found {tuple(scores.shape)}")
    others = (scores.sum(1, keepdim=True) - scores) / (scores.shape[1] - 1)
    found = [spearman(one, rest) for one, rest in zip(scores.unbind(1), others.unbind(1), strict=True)]
    return sum(found) / len(found)


def _pearson(x: Tensor, y: Tensor) -> Tensor:
    """Pearson's correlation along the last dimension; NaN if all values of x or of y are equal."""
    x, y = x - x.mean(-1, keepdim=True), y - y.mean(-1, keepdim=True)
    return (x * y).sum(-1) / (x.square().sum(-1) * y.square().sum(-1)).sqrt()


def _bootstrap(x: Tensor, y: Tensor, draws: Generator) -> tuple[float, float]:
    chosen = torch.randint(len(x), (REPLICATES, len(x)), generator=draws)
    found = _pearson(ranks(x[chosen]), ranks(y[chosen]))
    found = found[~found.isnan()]      # draws that repeat a single point
    low, high = torch.quantile(found, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def _chance(x: Tensor, y: Tensor, strength: float, draws: Generator) -> float:
    """Two-sided permutation test: exact for few points, by random orders (including the observed one) for more."""
    if math.isnan(strength):
        return 1.0
    if len(x) <= MOST_PERMUTED:
        orders = torch.tensor(list(permutations(range(len(x)))))
    else:
        drawn = torch.rand((REPLICATES - 1, len(x)), generator=draws).argsort(-1)
        orders = torch.cat([torch.arange(len(x))[None], drawn])
    slack = 1e-9
    return float((_pearson(x, y[orders]).abs() >= strength - slack).double().mean())
