"""Errors of a score due to a finite number of images: standard error by the bootstrap, bias by halving."""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor


def bootstrap_error(statistic: Callable[[Tensor], float], groups: Tensor, *, replicates: int, draws: Generator) -> float:
    """Standard error of a score, by resampling whole groups of images with replacement (Efron 1979).

    statistic: indices (M,) int64, with repetitions -> score of these images. groups: (N,) int64, the group of each image; images
    that are not independent, such as crops of one photograph, share a group. The result is multiplied by sqrt(G / (G - 1)), so
    that for a mean of G independent images it equals the usual standard error. It does not include bias, such as that of a
    Frechet distance at small N. Infinite for a single group.
    """
    _, sizes = torch.unique(groups, return_counts=True)
    count = len(sizes)
    if count < 2:
        return math.inf
    order = torch.argsort(groups, stable=True)
    starts = sizes.cumsum(0) - sizes
    values = []
    for _ in range(replicates):
        chosen = torch.randint(count, (count,), generator=draws)
        values.append(statistic(order[_members(starts[chosen], sizes[chosen])]))
    spread = torch.tensor(values, dtype=torch.float64).std().item()
    return math.sqrt(count / (count - 1)) * spread


def bias_of_size(statistic: Callable[[Tensor], float], count: int, *, halvings: int, draws: Generator) -> float:
    """Bias of a score of `count` images relative to infinitely many, if the bias is proportional to 1 / N.

    statistic: indices (M,) int64 -> score of these images. A half has twice the bias, so the mean over random halves minus the
    score of all images is the bias of all. This holds for Frechet distances if N is well above the feature dimension
    (Chong, Forsyth 2020).
    """
    half = count // 2
    values = []
    for _ in range(halvings):
        order = torch.randperm(count, generator=draws)
        values += [statistic(order[:half]), statistic(order[half : 2 * half])]
    return sum(values) / len(values) - statistic(torch.arange(count))


def _members(starts: Tensor, sizes: Tensor) -> Tensor:
    """The concatenated ranges start : start + size."""
    before = sizes.cumsum(0) - sizes
    return torch.arange(int(sizes.sum())) + (starts - before).repeat_interleave(sizes)
