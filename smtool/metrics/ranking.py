"""Pairwise comparison and ranking of things measured with the same few seeds. Lower scores are better."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean, stdev

Scores = Mapping[str, Mapping[int, float]]
"""name -> seed -> score."""


@dataclass(frozen=True)
class Pair:
    """Two things compared seed by seed; `better` has the lower mean score.

    difference: mean of worse - better over common seeds; half_width: of its 95 % interval by Student's t, infinite for a single
    seed; wins: number of seeds in which `better` has the lower score; seeds: number of common seeds.
    """

    better: str
    worse: str
    difference: float
    half_width: float
    wins: int
    seeds: int

    @property
    def is_told(self) -> bool:
        """Whether the difference is significant: its interval excludes 0."""
        return self.difference > self.half_width

    def sentence(self) -> str:
        count = f"{self.wins} of {self.seeds} seeds"
        if self.is_told:
            return f"{self.better} beats {self.worse} in {count}"
        return f"{self.better} or {self.worse}: cannot tell ({self.better} is lower in {count})"


@dataclass(frozen=True)
class Place:
    """The best and the worst place that the significant differences allow, from 1."""

    best: int
    worst: int

    def __str__(self) -> str:
        return str(self.best) if self.best == self.worst else f"{self.best}-{self.worst}"


def paired(scores: Scores, *, quantile: Callable[[int], float]) -> list[Pair]:
    """Compare every pair over its common seeds. quantile: degrees of freedom -> quantile of Student's t for the interval.

    Noise that both share for a seed (data order, noise, initial weights) cancels in the differences. Intervals are not corrected
    for multiple comparisons: of twenty pairs without any difference, about one is significant by chance.
    """
    return [_pair(a, b, scores, quantile) for a, b in combinations(scores, 2) if scores[a].keys() & scores[b].keys()]


def places(names: list[str], pairs: list[Pair]) -> dict[str, Place]:
    """Name -> the places it can have: after all that are significantly better, before all that are significantly worse."""
    told = [pair for pair in pairs if pair.is_told]
    beaten_by = {name: sum(pair.worse == name for pair in told) for name in names}
    beats = {name: sum(pair.better == name for pair in told) for name in names}
    return {name: Place(1 + beaten_by[name], len(names) - beats[name]) for name in names}


def seed_interval(scores: Mapping[int, float], *, quantile: Callable[[int], float]) -> tuple[float, float]:
    """Mean over seeds and the half-width of its 95 % interval, infinite for a single seed."""
    values = list(scores.values())
    return fmean(values), _half_width(values, quantile)


def _pair(a: str, b: str, scores: Scores, quantile: Callable[[int], float]) -> Pair:
    seeds = sorted(scores[a].keys() & scores[b].keys())
    differences = [scores[b][seed] - scores[a][seed] for seed in seeds]
    if fmean(differences) < 0:
        a, b, differences = b, a, [-difference for difference in differences]
    wins = sum(difference > 0 for difference in differences)
    return Pair(a, b, fmean(differences), _half_width(differences, quantile), wins, len(seeds))


def _half_width(values: list[float], quantile: Callable[[int], float]) -> float:
    if len(values) < 2:
        return math.inf
    return quantile(len(values) - 1) * stdev(values) / math.sqrt(len(values))
