"""smtool's training loop with given random numbers, and its reports in the form of a recording."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from unittest.mock import patch

from given import numbers
from given.summary import change, copied
from torch import Tensor, nn

from smtool.randomness import Streams
from smtool.training.distributed import ALONE
from smtool.training.ema import MovingAverage
from smtool.training.loop import Plan, Task, Training, optimize
from smtool.training.optimizer import AdamW
from smtool.training.precision import MixedPrecision


class GivenStreams(Streams):
    """Generates the numbers of every stream from its name and the step, as the recorder does for the released code."""

    def batch(self, name: str, shape: Sequence[int]) -> Tensor:
        return numbers.normal(shape, name, self.step)

    def uniform(self, name: str, shape: Sequence[int]) -> Tensor:
        return numbers.uniform(shape, name, self.step)


def run(
    task: Task,
    optimizers: Mapping[str, AdamW],
    watched: Mapping[str, nn.Module],
    batches: Callable[[int], Any],
    *,
    steps: int,
    batch: int,
    averages: Mapping[str, MovingAverage] | None = None,
) -> Iterator[dict[str, Any]]:
    """One entry per step: player, learning rate, gradient norm before clipping, update of the watched module, logged values."""
    built = {player: table.build(watched[player].named_parameters(), "cpu") for player, table in optimizers.items()}
    plan = Plan(seed=0, batch=batch, accumulate=1, last_step=steps)
    training = Training(task, built, averages or {}, MixedPrecision("fp32", "cpu"), ALONE, plan)
    with patch("smtool.training.loop.streams", _given):
        reports = optimize(training, map(batches, range(steps)), first_step=0)
        for step in range(steps):
            (player,) = task.players_at(step)
            before = copied(built[player].parameters)
            report = next(reports)
            values = {name: float(value) for name, value in report.values.items()}
            yield {
                "turn": player,
                "rate": float(report.rates[player]),
                "gradient": values.pop(f"{player}_gradient"),
                "update": change(before, built[player].parameters),
                "values": values,
            }


def _given(seed: int, step: int, turn: str, *, batch: int, device: str = "cpu", **others: int) -> Streams:
    return GivenStreams(seed, step, turn, start=0, stop=batch, total=batch, device=device)
