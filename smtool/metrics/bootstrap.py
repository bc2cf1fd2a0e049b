"""How far a score may be off because the images are a sample: the bootstrap over images, or over groups of them."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor


@dataclass(frozen=True)
class Interval:
    """A 95 % interval around an estimate: estimate -+ half_width, from `groups` independent groups of images.

    It says how another sample of as many groups would scatter. It does not cover a bias, such as the growth of a Frechet
    distance at small N.
    """

    low: float
    high: float
    groups: int


def bootstrap_interval(
    estimate: float,
    statistic: Callable[[Tensor], float],
    groups: Tensor,
    *,
    replicates: int,
    draws: Generator,
) -> Interval | None:
    """Resample whole groups with replacement (Efron 1979) and widen by Student's t for few groups.

    statistic: indices (M,) int64 -> score of these images; groups: (N,) int64, the group of each image (images that are not
    independent, such as crops of one photograph, share one). None where there are fewer than 3 groups to resample.
    half width = t_{0.975, G - 1} sqrt(G / (G - 1)) sd: for a mean of independent images, the textbook interval.
    """
    _, sizes = torch.unique(groups, return_counts=True)
    members = torch.argsort(groups, stable=True).split(sizes.tolist())
    count = len(members)
    if count < 3:
        return None
    values = []
    for _ in range(replicates):
        chosen = torch.randint(count, (count,), generator=draws)
        values.append(statistic(torch.cat([members[group] for group in chosen.tolist()])))
    spread = torch.tensor(values, dtype=torch.float64).std().item()
    half = student_quantile(count - 1) * math.sqrt(count / (count - 1)) * spread
    return Interval(estimate - half, estimate + half, count)


def student_quantile(freedom: int, probability: float = 0.975) -> float:
    """Quantile of Student's t for a whole number of degrees of freedom, by bisection of its closed-form distribution."""
    low, high = 0.0, 1e4
    for _ in range(100):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if 0.5 + 0.5 * _central_mass(middle, freedom) < probability else (low, middle)
    return 0.5 * (low + high)


def _central_mass(t: float, freedom: int) -> float:
    """P(|T| < t), Abramowitz and Stegun 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine = math.cos(angle)
    odd = freedom % 2
    term, total = (cosine, cosine) if odd else (1.0, 1.0)
    if freedom == 1:
        total = 0.0
    for k in range(2 + odd, freedom - 1, 2):
        term *= cosine * cosine * (k - 1) / k
        total += term
    mass = math.sin(angle) * total
    return 2.0 / math.pi * (angle + mass) if odd else mass
