"""Values of a row of the log: means over the steps since the previous row, so that the turns of all players are included."""

import time

from torch import Tensor

from smtool.training.distributed import average_values
from smtool.training.loop import StepReport


class Meter:
    """Accumulates step reports; sums stay on the device until `losses` is called."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._rates: dict[str, float] = {}
        self._images, self._seconds, self._waiting = 0, 0.0, 0.0

    def add(self, report: StepReport) -> None:
        for name, value in report.values.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
            self._counts[name] = self._counts.get(name, 0) + 1
        self._rates |= report.rates
        self._images += report.num_images
        self._seconds += report.seconds
        self._waiting += report.seconds_waiting

    def losses(self) -> dict[str, float]:
        """Mean of each value over the steps that had it and over the ranks. Every rank must call it at the same step.

        Waits for the device and includes this time in the seconds: a GPU may still be computing steps already queued.
        """
        began = time.perf_counter()
        means = average_values({name: total / self._counts[name] for name, total in self._sums.items()})
        self._seconds += time.perf_counter() - began
        return means

    def speeds(self) -> dict[str, float]:
        """Learning rates, images per second, and the fraction of time spent waiting for data."""
        rates = {f"lr_{player}": rate for player, rate in self._rates.items()}
        return {**rates, "images_per_second": self._images / self._seconds, "waiting_share": self._waiting / self._seconds}
