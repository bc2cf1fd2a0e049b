"""Benchmarks: each compares smtool's cost with that of a reference, the yardstick, measured in the same run.

Usage: `python -m benchmarks [MODULE ...] [--json PATH] [--threads N]`. It sets the number of torch threads (default 2); the
modules do not.

To add a benchmark, put a module with a function `run() -> list[Row]` into this folder; `python -m benchmarks` finds it. A row is
one comparison: what was timed, the cost of smtool ("ours"), the cost of the yardstick in the same unit, the yardstick's name and
the ratio aimed at. All values are costs (milliseconds, seconds, ms per image; less is better), so `ratio = yardstick / ours` is
how many times cheaper smtool is. Where the yardstick is a training step, 1 / ratio is the fraction of the step. A row without
yardstick gives a value only.

Use `race` for functions that run in milliseconds. It interleaves the candidates in shuffled order, so that other load on the
machine and warm caches affect all candidates equally, and returns medians. `best_ratio` may hold the ratio of the best times
(from `timings`), which is more reliable on a busy machine.
"""

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line of the table. ours, yardstick: costs in `unit`. against: the yardstick's name. aim: the ratio aimed at."""

    name: str
    ours: float
    unit: str
    yardstick: float | None = None
    against: str = ""
    aim: float | None = None
    best_ratio: float | None = None

    @property
    def ratio(self) -> float | None:
        return None if self.yardstick is None else self.yardstick / self.ours


def race(candidates: dict[str, Callable[[], object]], *, repeats: int, warmup: int = 3) -> dict[str, float]:
    """Median milliseconds per call of each candidate (see `timings`)."""
    return {name: statistics.median(times) for name, times in timings(candidates, repeats=repeats, warmup=warmup).items()}


def timings(candidates: dict[str, Callable[[], object]], *, repeats: int, warmup: int = 3) -> dict[str, list[float]]:
    """Milliseconds of every call of each candidate; every repeat calls all candidates once, in a new random order."""
    order, generator = list(candidates), random.Random(0)
    times: dict[str, list[float]] = {name: [] for name in order}
    for repeat in range(warmup + repeats):
        generator.shuffle(order)
        for name in order:
            start = time.perf_counter()
            candidates[name]()
            if repeat >= warmup:
                times[name].append(1e3 * (time.perf_counter() - start))
    return times
