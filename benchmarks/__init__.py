"""Timings, always side by side with a yardstick in one run: `python -m benchmarks [MODULE ...] [--json PATH] [--threads N]`.

To add a benchmark, put a module into this folder with a function `run() -> list[Row]`; `python -m benchmarks` finds it by
itself. A row is one comparison: what was timed, our figure, the yardstick's figure in the same unit and its name, and the ratio
aimed at. Figures are costs (milliseconds, seconds, ms per image: less is better), so that `ratio = yardstick / ours` reads "so
many times cheaper" everywhere, and a share of a training step is 1 / ratio with the step as yardstick. A row without yardstick
states a figure. Use `race` for anything that runs in milliseconds: it interleaves the candidates in shuffled order, so that a
busy machine or a cache left warm by a neighbour favours none, and returns medians. `best_ratio` may hold the ratio of the best
times (of `timings`), the one to read on a busy machine. `python -m benchmarks` sets the threads (2 unless told), not the
modules.
"""

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line of the table."""

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
    """Milliseconds of every call; one call of every candidate per repeat, in a new order each time."""
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
