"""MIND, the Monge inception distance of two sets of features: a sliced Wasserstein distance (arXiv 2605.06797)."""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from smtool.metrics.frechet import finite_features

DIRECTIONS = 1000
_NUMBERS = 2**24      # projections at a time: 128 MB


@dataclass(frozen=True)
class Mind:
    """value: MIND, at least 0; error: its standard error over other draws of the first set; count: vectors used of each set."""

    value: float
    error: float
    count: int


def mind(x: Tensor, y: Tensor, *, draws: Generator, directions: int = DIRECTIONS) -> Mind:
    """MIND of features (N, D) and (M, D): 3 D times the mean, over random unit directions, of the squared 2-Wasserstein distance.

    Of the larger set, as many vectors as the smaller one has are drawn without replacement. In one dimension, the optimal
    transport joins the sorted projections. Projections are float64. draws: a CPU generator, from which the subset is taken first,
    then the directions. Like a Frechet distance, MIND is biased upwards, the more the fewer vectors there are.

    The error is that of the first order: the standard deviation over x of the Kantorovich potential, averaged over directions,
    over sqrt(N) (del Barrio and Loubes, arXiv 1705.01299). It is too small where both sets have one distribution.
    Raises ValueError for fewer than 2 vectors, or different dimensions.
    """
    x, y = finite_features(x).double(), finite_features(y).double()
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"features of {x.shape[1]} and of {y.shape[1]} dimensions cannot be compared")
    count, dim = min(len(x), len(y)), x.shape[1]
    if count < 2:
        raise ValueError(f"MIND needs at least 2 feature vectors of each, found {len(x)} and {len(y)}")
    x, y = _subset(x, count, draws), _subset(y.to(x.device), count, draws)
    total, potential = x.new_zeros(()), x.new_zeros(count)
    units = torch.nn.functional.normalize(torch.randn(directions, dim, generator=draws).double(), dim=1)
    for some in units.to(x.device).split(max(1, _NUMBERS // count)):
        ours, order = (x @ some.T).sort(dim=0)
        shift = 2 * (ours - (y @ some.T).sort(dim=0).values)      # derivative of the potential
        total += shift.square().sum() / 4
        rise = (shift[1:] + shift[:-1]) / 2 * ours.diff(dim=0)
        sorted_potential = torch.cat([rise.new_zeros(1, rise.shape[1]), rise.cumsum(0)])
        potential += torch.zeros_like(ours).scatter_(0, order, sorted_potential - sorted_potential.mean(0)).sum(1)
    scale = 3 * dim / directions
    error = scale * potential.std() / math.sqrt(count)
    return Mind(float(scale * total / count), float(error), count)


def _subset(x: Tensor, count: int, draws: Generator) -> Tensor:
    return x if len(x) == count else x[torch.randperm(len(x), generator=draws)[:count].to(x.device)]
