"""An assembled training run, of an autoencoder or of a transformer, and functions to assemble it."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from torch import Tensor, nn

from smtool.commands.train.run_folder import RunFolder
from smtool.errors import RecipeError
from smtool.recipe import Recipe, TrainAE, TrainingTables
from smtool.report.trackers import Trackers
from smtool.training.checkpoint import Checkpoints
from smtool.training.distributed import Ranks
from smtool.training.loop import Plan, StepReport, Task, Training, optimize
from smtool.training.optimizer import AdamW
from smtool.training.precision import MixedPrecision
from smtool.training.sharding import Parallel, WholeCopy, shard


class Observer(Protocol):
    """Validates a run at regular steps. Every rank measures its share; scores do not depend on the number of ranks."""

    def share(self, step: int) -> dict[str, Tensor]:
        """What this rank measures, without communication: rows that `gathered_rows` brings together."""

    def look(self, trackers: Trackers, step: int, rows: Mapping[str, Tensor]) -> dict[str, float]:
        """On the first rank, from the gathered rows: log pictures, and return a row of scores."""


@dataclass(frozen=True)
class Run:
    """A training run, ready to start or to resume at `first_step`.

    player: the network whose updates are counted and whose weights are exported. batches: first step -> this rank's slices of
    the global batches. observer: builds the validation. export: step -> write ckpt.safetensors. summary: lines for the log.
    sources: inputs outside the recipe that must be the same when the run is resumed. conclude: called with the observer after
    the last step; returns lines for the log. autoencoder: tables of the autoencoder that trains together with a transformer.
    """

    recipe: Recipe[Any]
    folder: RunFolder
    checkpoints: Checkpoints
    training: Training
    player: str
    batches: Callable[[int], Generator[Any]]
    observer: Callable[[], Observer]
    export: Callable[[int], None]
    summary: tuple[str, ...]
    first_step: int
    sources: Mapping[str, str] = field(default_factory=dict)
    conclude: Callable[[Any, Trackers], Sequence[str]] = lambda observer, trackers: ()
    autoencoder: TrainAE | None = None

    @property
    def tables(self) -> TrainingTables:
        tables: TrainingTables = self.recipe.tables
        return tables

    def reports(self, first_step: int) -> Iterator[StepReport]:
        """Run the training loop over this run's batches. The reader's threads end with it."""
        with closing(self.batches(first_step)) as batches:
            yield from optimize(self.training, batches, first_step=first_step)

    @contextmanager
    def whole_results(self, *, everywhere: bool) -> Iterator[None]:
        """Context in which `result_of` gives the complete weights on the first rank, or on all. Every rank must enter it."""
        with ExitStack() as stack:
            for copy in self.training.copies.values():
                stack.enter_context(copy.filled(here=everywhere or self.training.ranks.first))
            yield


def result_of(training: Training, player: str) -> nn.Module:
    """The network to validate and export: the weight average if there is one; of a sharded one, its complete copy."""
    if player in training.copies:
        return training.copies[player].module
    average = training.averages.get(player)
    return training.task.players[player] if average is None else average.module


def assemble_training(
    recipe: Recipe[Any],
    task: Task,
    ranks: Ranks,
    *,
    batch: int,
    averaged: str,
    optimizers: Mapping[str, AdamW],
    frozen: Mapping[str, str],
    parallel: Parallel | None = None,
    multipliers: Mapping[str, Mapping[str, float]] = {},
) -> Training:
    """Build optimizers, averages and precision for a task, and shard its players if `parallel` applies to them.

    frozen: see `Training.frozen`. multipliers: player -> factors of learning rates by name of the parameter.
    """
    tables: TrainingTables = recipe.tables
    device = ranks.device
    averages = {averaged: tables.ema.build(task.players[averaged], share_frozen=parallel is None)} if tables.ema else {}
    copies = {}
    for player, module in task.players.items():
        if parallel is not None and parallel.applies(module, ranks):
            held = [module, *([averages[player].module] if player in averages else [])]
            copies[player] = WholeCopy(held[-1])
            for part in held:
                shard(part, ranks, parallel.gathered_in(tables.precision))
    return Training(
        task=task,
        optimizers={
            player: optimizers[player].build(module.named_parameters(), device, multipliers.get(player, {}))
            for player, module in task.players.items()
        },
        averages=averages,
        precision=MixedPrecision(tables.precision, device),
        ranks=ranks,
        plan=Plan(tables.seed, batch, tables.accumulate, tables.steps),
        copies=copies,
        frozen=frozen,
    )


def newest(folder: RunFolder, tables: TrainingTables, training: Training) -> tuple[Training, Checkpoints, int]:
    """Load the newest checkpoint of a folder into the training. Returns the training, which draws noise as the run did from its
    start, the checkpoints, and the step of the newest, 0 if there is none."""
    checkpoints = Checkpoints(folder.checkpoints, tables.keep_last, tables.keep_every)
    step = checkpoints.latest() or 0
    if step:
        checkpoints.load(step, training)
    return replace(training, plan=replace(training.plan, randomness=checkpoints.randomness())), checkpoints, step


def check_batch(recipe: Recipe[Any], batch: int, ranks: Ranks) -> None:
    """Raise RecipeError if the batch cannot be divided evenly among ranks and micro-batches."""
    accumulate = recipe.tables.accumulate
    if batch % (ranks.world * accumulate):
        raise RecipeError(
            f"{recipe.path}: data.batch = {batch} is not a multiple of {ranks.world} ranks x {accumulate} micro-batches.",
            hint="Choose a multiple, so that the result does not depend on the number of ranks.",
        )
