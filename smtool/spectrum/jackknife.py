"""Jackknife intervals over images with Student's t, for estimates that are computed from a table (images x rings).

Intervals from bootstrap percentiles are too short for few images: their coverage is .90 at N = 8, that of the jackknife is .96
(spectrum.md#power-law-fit).
"""

import math
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor


def jackknife_half_width(estimate: Callable[..., Tensor], *tables: Tensor, confidence: float = 0.95) -> float:
    """`jackknife_half_widths` of a scalar estimate: `estimate` returns (N,)."""
    if len(tables[0]) < 2:
        return math.inf
    return jackknife_half_widths(lambda *means: estimate(*means).double(), *tables, confidence=confidence).item()


def jackknife_half_widths(estimate: Callable[..., Tensor], *tables: Tensor, confidence: float = 0.95) -> Tensor:
    """Half-widths t(N - 1) se of the intervals of estimates, se^2 = (N - 1) / N sum of (replicate - mean of replicates)^2.

    estimate: takes one tensor (N, bins) for each table, row i the mean over all rows but i, and returns (N, ...). The half-widths
    have the shape of one of its rows. tables: one or more (N, bins); row i is left out of all of them together, so row i must
    belong to the same image in each. With a single image the half-widths are infinite.
    """
    num_images = len(tables[0])
    if num_images < 2:
        return torch.full_like(estimate(*tables)[0], math.inf)
    replicates = estimate(*(leave_one_out(table) for table in tables))
    variance = (num_images - 1) / num_images * (replicates - replicates.mean(0)).square().sum(0)
    return student_t_quantile(0.5 + confidence / 2, num_images - 1) * variance.sqrt()


def leave_one_out(table: Tensor) -> Tensor:
    """The means over all rows but one: (N, bins) -> (N, bins); row i of the result is without row i. Needs N >= 2."""
    return (table.sum(0) - table) / (len(table) - 1)


@lru_cache(maxsize=256)
def student_t_quantile(probability: float, degrees: int) -> float:
    """Quantile of Student's t for integer degrees of freedom, 1 or more. probability: in [0.5, 1); otherwise ValueError.

    Bisection over the angle atan(t / sqrt(degrees)), in which the distribution function has a closed form: Abramowitz and
    Stegun 26.7.3 and 26.7.4.
    """
    if not 0.5 <= probability < 1 or degrees < 1:
        raise ValueError(f"a quantile needs 0.5 <= probability < 1 and degrees >= 1, but got {probability} and {degrees}")
    central = _central_probability(degrees)
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if central(middle) < 2 * probability - 1 else (low, middle)
    return math.sqrt(degrees) * math.tan(0.5 * (low + high))


def _central_probability(degrees: int) -> Callable[[float], float]:
    """P(|t| < sqrt(degrees) tan(angle)) as a function of the angle."""
    odd = degrees % 2
    term = torch.arange(1, max(1, degrees // 2), dtype=torch.float64, device="cpu")
    factors = torch.cat([term.new_ones(1), ((2 * term - 1 + odd) / (2 * term + odd)).cumprod(0)])
    powers = 2 * torch.arange(len(factors), dtype=torch.float64, device="cpu") + odd

    def probability(angle: float) -> float:
        series = (factors * math.cos(angle) ** powers).sum().item() if degrees > 1 else 0.0
        if odd:
            return 2 / math.pi * (angle + math.sin(angle) * series)
        return math.sin(angle) * series

    return probability
