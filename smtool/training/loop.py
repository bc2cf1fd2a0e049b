"""The training loop: a generator of step reports, independent of methods, files and consoles.

A player is a module with its own optimizer, such as the autoencoder or the discriminator; its turn is one update of it.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from smtool.randomness import SCHEME, Streams, streams
from smtool.training.distributed import Ranks
from smtool.training.ema import MovingAverage
from smtool.training.gradient_average import GradientAverage
from smtool.training.noise_ahead import NoiseAhead
from smtool.training.optimizer import NamedOptimizer
from smtool.training.precision import MixedPrecision
from smtool.training.sharding import WholeCopy, sum_in_next_backward
from smtool.training.terms import Loss


class Batch(Protocol):
    """A batch with a length that can be sliced into micro-batches."""

    def __len__(self) -> int: ...

    def slice(self, start: int, stop: int) -> Any: ...


class Task(Protocol):
    """Defines the losses: the players, whose turns a step has, and the loss of each."""

    @property
    def players(self) -> Mapping[str, nn.Module]: ...

    def players_at(self, step: int) -> tuple[str, ...]:
        """The players that are updated in a step (counted from 0), in order."""

    def count_turns(self, player: str, steps: int) -> int:
        """Number of updates of the player in the first `steps` steps."""

    def loss(self, player: str, batch: Any, draws: Streams, step: int) -> Loss:
        """The player's loss on a (micro-)batch."""


@dataclass(frozen=True)
class Plan:
    """Seed of all random streams, size of the global batch, micro-batches per step, and the last step of a run.

    randomness: the scheme of the noise (`smtool.randomness.Normals`), which stays that of the start of a run.
    """

    seed: int
    batch: int
    accumulate: int
    last_step: int
    randomness: int = SCHEME


@dataclass(frozen=True)
class Training:
    """A run in memory: the task and, by player, its optimizer and (for some) the average of its weights.

    copies: by sharded player, the unsharded copy into which its result (the average, if there is one) is gathered.
    frozen: name -> digest of the frozen networks in the losses, which must be the same when the run is resumed.
    """

    task: Task
    optimizers: Mapping[str, NamedOptimizer]
    averages: Mapping[str, MovingAverage]
    precision: MixedPrecision
    ranks: Ranks
    plan: Plan
    copies: Mapping[str, WholeCopy] = field(default_factory=dict)
    frozen: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StepReport:
    """One finished step (counted from 1): loss values as 0-dim tensors, learning rates by player, number of images, seconds."""

    step: int
    values: dict[str, Tensor]
    rates: dict[str, float]
    num_images: int
    seconds: float
    seconds_waiting: float


def optimize(training: Training, batches: Iterator[Batch], *, first_step: int) -> Iterator[StepReport]:
    """Train from first_step to the plan's last step; yield a report per step. batches: this rank's slice of each global batch."""
    plan, task = training.plan, training.task
    with ExitStack() as stack:
        noise = stack.enter_context(NoiseAhead(training.ranks.device))
        averages = {name: GradientAverage(optimizer.parameters.values()) for name, optimizer in training.optimizers.items()}
        for average in averages.values():
            stack.callback(average.close)
        for step in range(first_step, plan.last_step):
            began = time.perf_counter()
            batch = next(batches)
            waited = time.perf_counter() - began
            values: dict[str, Tensor] = {}
            rates: dict[str, float] = {}
            if step + 1 < plan.last_step:
                noise.prepare(task.players_at(step + 1), step + 1)
            for player in task.players_at(step):
                rates[player] = training.optimizers[player].set_rate(task.count_turns(player, plan.last_step))
                values |= _turn(training, player, batch, step, noise, averages[player])
                if player in training.averages:
                    training.averages[player].update(task.players[player], training.optimizers[player].updates)
            yield StepReport(step + 1, values, rates, plan.batch, time.perf_counter() - began, waited)


def _turn(
    training: Training, player: str, batch: Batch, step: int, noise: NoiseAhead, average: GradientAverage
) -> dict[str, Tensor]:
    """One update of one player from one batch, in equal micro-batches."""
    plan, optimizer, precision = training.plan, training.optimizers[player], training.precision
    for name, other in training.optimizers.items():
        for parameter in other.parameters.values():      # not module.requires_grad_: some parameters are never trained
            parameter.requires_grad_(name == player)
    drawn = streams(plan.seed, step, player, batch=plan.batch, device=training.ranks.device, scheme=plan.randomness)
    draws = noise.supplied(drawn, player)
    start, _ = training.ranks.local_slice(plan.batch)
    size = len(batch) // plan.accumulate
    values: dict[str, Tensor] = {}
    optimizer.torch.zero_grad(set_to_none=True)
    stop = size * plan.accumulate
    for low in range(0, stop, size):
        with precision.autocast():
            loss = training.task.loss(player, batch.slice(low, low + size), draws.at(start + low, start + low + size), step)
        last = low + size == stop      # gradients are summed over the ranks in the last micro-batch only
        if player in training.copies:
            sum_in_next_backward(training.task.players[player], last)
        with average.overlapped() if last else nullcontext():
            precision.backward(loss.total / plan.accumulate)
        for name, value in loss.values.items():
            values[name] = values.get(name, 0) + value.detach() / plan.accumulate
    # Gradients are averaged before they are unscaled, so that with fp16 every rank detects the same overflow.
    precision.unscale(optimizer.torch)
    values[f"{player}_gradient"] = optimizer.clip()
    precision.step(optimizer.torch)
    optimizer.updates += 1
    return values
