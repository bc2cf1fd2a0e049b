"""The kernel distance between two sets of features (KID: Binkowski et al. 2018), unbiased for any number of images."""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from smtool.metrics.frechet import finite_features

SUBSETS = 100
SUBSET_SIZE = 1000
_ROWS = 2048


@dataclass(frozen=True)
class KernelDistance:
    """value: squared maximum mean discrepancy, which may be slightly negative; error: its standard error over the first set."""

    value: float
    error: float


def kernel_distance(x: Tensor, y: Tensor) -> KernelDistance:
    """Unbiased squared MMD of features (N, D) and (M, D) under the kernel (x.y / D + 1)^3, in float64; N, M >= 2.

    The error is a jackknife over x with fixed y: the standard deviation over other draws of x. Infinite for N = 2.
    Oracle: torch-fidelity's mmd2 on the same features.
    """
    x, y = _pair(x, y)
    within, across = _row_sums(x, x) - _kernel_diagonal(x), _row_sums(x, y)
    n, m = len(x), len(y)
    other = (_row_sums(y, y) - _kernel_diagonal(y)).sum() / (m * (m - 1))
    value = within.sum() / (n * (n - 1)) - 2 * across.sum() / (n * m) + other
    if n == 2:
        return KernelDistance(float(value), math.inf)
    left_out = (within.sum() - 2 * within) / ((n - 1) * (n - 2)) - 2 * (across.sum() - across) / ((n - 1) * m)
    error = ((n - 1) / n * (left_out - left_out.mean()).square().sum()).sqrt()
    return KernelDistance(float(value), float(error))


def paired_kernel_distance(x: Tensor, y: Tensor, units: Tensor) -> KernelDistance:
    """The unbiased distance for y[i] made from x[i], such as reconstructions and their images; x, y: (N, D).

    units: (N,) int64; vectors of one unit, such as crops of one photograph, are not independent, and neither are x[i] and y[i].
    All pairs within a unit are therefore left out, also across the sets, and all units have equal weight. Equal sets give exactly
    0, where `kernel_distance` is negative. The error is a jackknife over units; at least 2 units are needed, and for 2 the error
    is infinite.
    Source: the U-statistic of Gretton et al. 2012, Lemma 6. Oracle: a double loop (tests/metrics/test_kernel.py).
    """
    x, y = _pair(x, y)
    _, unit = torch.unique(units.to(x.device), return_inverse=True)
    count = int(unit.max()) + 1
    if not len(x) == len(y) == len(unit) or count < 2:
        raise ValueError(f"pairs of vectors from at least 2 units are needed, found {len(x)} and {len(y)} from {count}")
    mean = torch.nn.functional.one_hot(unit, count).to(x)
    mean = mean / mean.sum(0)
    across = _kernel(x, y)
    between = mean.T @ (_kernel(x, x) + _kernel(y, y) - across - across.T) @ mean
    rows = (between - between.diagonal().diag()).sum(1)
    value = rows.sum() / (count * (count - 1))
    if count == 2:
        return KernelDistance(float(value), math.inf)
    left_out = (rows.sum() - 2 * rows) / ((count - 1) * (count - 2))
    error = ((count - 1) / count * (left_out - left_out.mean()).square().sum()).sqrt()
    return KernelDistance(float(value), float(error))


def kernel_distance_of_subsets(
    x: Tensor, y: Tensor, *, draws: Generator, subsets: int = SUBSETS, subset_size: int = SUBSET_SIZE
) -> float:
    """Mean of `kernel_distance` over random subsets of both sets, as KID is published.

    Subsets are drawn without replacement; their size is `subset_size`, or that of the smaller set. If both sets are used whole,
    the result is `kernel_distance` itself.
    """
    x, y = _pair(x, y)
    size = min(subset_size, len(x), len(y))
    if size == len(x) == len(y):
        return kernel_distance(x, y).value
    chosen = ((_subset(x, size, draws), _subset(y, size, draws)) for _ in range(subsets))
    return sum(_unbiased(a, b) for a, b in chosen) / subsets


def _subset(x: Tensor, size: int, draws: Generator) -> Tensor:
    return x[torch.randperm(len(x), generator=draws)[:size].to(x.device)]


def _unbiased(x: Tensor, y: Tensor) -> float:
    """The distance of two sets of equal, small size."""
    n = len(x)
    within = _kernel(x, x).sum() - _kernel_diagonal(x).sum() + _kernel(y, y).sum() - _kernel_diagonal(y).sum()
    return float(within / (n * (n - 1)) - 2 * _kernel(x, y).mean())


def _pair(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    x, y = finite_features(x), finite_features(y)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"features of {x.shape[1]} and of {y.shape[1]} dimensions cannot be compared")
    if min(len(x), len(y)) < 2:
        raise ValueError(f"a kernel distance needs at least 2 feature vectors of each, found {len(x)} and {len(y)}")
    return x, y.to(x.device)


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1.0) ** 3


def _kernel_diagonal(x: Tensor) -> Tensor:
    return (x.square().sum(1) / x.shape[1] + 1.0) ** 3


def _row_sums(x: Tensor, y: Tensor) -> Tensor:
    """(N,): sum of the kernel of each x with all y, computed a few rows at a time."""
    return torch.cat([_kernel(rows, y).sum(1) for rows in x.split(_ROWS)])
