"""Alternates two trainers on the same batches and times the steps of both."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks import Row


@dataclass
class Alternation:
    """Replaces the loader of a released trainer. batch: step -> its batch; step: computes our step and returns its losses;
    lookahead: iterations that begin before the training loop, which get the first batch only. clock: returns seconds.

    ours, released: seconds by step. A released step lasts from its batch to its request for the next one, so that the last one
    has no time.
    """

    batch: Callable[[int], Any]
    step: Callable[[int], dict[str, float]]
    steps: int
    clock: Callable[[], float]
    lookahead: int = 0
    ours: list[float] = field(default_factory=list)
    released: list[float] = field(default_factory=list)
    losses: list[dict[str, float]] = field(default_factory=list)

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Any]:
        if self.lookahead:
            self.lookahead -= 1
            yield self.batch(0)
            return
        for number in range(self.steps):
            batch = self.batch(number)
            began = self.clock()
            self.losses.append(self.step(number))
            self.ours.append(self.clock() - began)
            began = self.clock()
            yield batch
            self.released.append(self.clock() - began)

    def row(self, name: str, steps: Sequence[int], aim: float) -> Row:
        """Mean seconds of these steps, and the ratio of the fastest. Even and odd steps may be of two kinds and count alike."""
        means, fastest = [], []
        for times in (self.ours, self.released):
            kinds = [[times[step] for step in steps if step % 2 == parity and step < len(self.released)] for parity in (0, 1)]
            means.append(statistics.mean(statistics.mean(kind) for kind in kinds if kind))
            fastest.append(statistics.mean(min(kind) for kind in kinds if kind))
        best = fastest[1] / fastest[0]
        return Row(name, 1e3 * means[0], "ms", 1e3 * means[1], "released code", aim, best)


@dataclass(frozen=True, order=True)
class Difference:
    """The relative difference of a loss, its name and its step, counted from 0."""

    value: float
    name: str
    step: int

    def __str__(self) -> str:
        return f"{self.value:.1e} ({self.name}, step {self.step})"


def differences(ours: Sequence[dict[str, float]], released: Sequence[dict[str, float]]) -> list[Difference]:
    """The relative difference of each loss that both report, by step. Raises ValueError if a step has none in common."""
    found = []
    for step, (mine, theirs) in enumerate(zip(ours, released, strict=False)):
        shared = sorted(mine.keys() & theirs.keys())
        if not shared:
            raise ValueError(f"step {step} has no loss that both report: {sorted(mine)} and {sorted(theirs)}")
        found += [Difference(abs(mine[name] - theirs[name]) / max(abs(theirs[name]), 1e-3), name, step) for name in shared]
    return found
