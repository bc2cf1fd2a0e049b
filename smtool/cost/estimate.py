"""The cost of a recipe's training task on some GPUs, from counts of its turns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from torch import nn

from smtool.cost.counting import Count, Kernel
from smtool.cost.gpus import GPU, LAUNCH_SECONDS, LINK_EFFICIENCY, MATRIX_EFFICIENCY, MEMORY_EFFICIENCY
from smtool.cost.result import Cost, DataCost, MemoryCost, TurnCost
from smtool.cost.traffic import all_reduce_bytes, largest_unit, shard_bytes
from smtool.cost.turns import Turns, count_turn
from smtool.errors import RecipeError
from smtool.features.frozen import Frozen
from smtool.recipe import TrainingTables
from smtool.training.distributed import Ranks
from smtool.training.loop import Batch, Task
from smtool.training.sharding import Parallel

_FLOAT = 4
_ADAMW_BYTES, _CLIP_BYTES, _AVERAGE_BYTES = 7 * _FLOAT, 3 * _FLOAT, 3 * _FLOAT
"""Read and written per parameter: by AdamW gradient, weight and two moments, the latter three also written; by the clipping of
the gradient two reads and a write; by the average two reads and a write."""


@dataclass(frozen=True)
class Subject:
    """A recipe whose cost is wanted. task: on the meta device; batch: number of images -> micro-batch; averaged: the player with
    an average; parallel: how its parameters are sharded, None: never."""

    recipe: str
    tables: TrainingTables
    task: Task
    batch: Callable[[int], Batch]
    batch_size: int
    turns: Sequence[Turns]
    averaged: str
    parallel: Parallel | None = None

    def samples(self, gpus: int) -> int:
        """Images of one micro-batch on one GPU. Raises RecipeError if the batch cannot be divided."""
        parts = gpus * self.tables.accumulate
        if self.batch_size % parts:
            raise RecipeError(
                f"{self.recipe}: data.batch = {self.batch_size} is not a multiple of {gpus} GPUs x "
                f"{self.tables.accumulate} micro-batches.",
                hint="Choose another --gpus.",
            )
        return self.batch_size // parts

    def is_sharded(self, player: str, gpus: int) -> bool:
        return self.parallel is not None and self.parallel.applies(self.task.players[player], Ranks(0, gpus, "meta"))

    def frozen(self) -> int:
        """Parameters of the networks in the losses that never train."""
        return frozen_parameters(self.task)


def estimate(subject: Subject, gpu: GPU, gpus: int, data: Callable[[float], DataCost]) -> Cost:
    """The cost on this many GPUs. data: predicted images per second -> cost of the data. Raises RecipeError as `samples`."""
    if gpus < 1:
        raise RecipeError(f"--gpus must be at least 1, but is {gpus}.")
    tables, samples = subject.tables, subject.samples(gpus)
    batch = subject.batch(samples)
    counted = [
        [
            count_turn(subject.task, turns.player, step, batch, precision=tables.precision, seed=tables.seed)
            for step in turns.steps
        ]
        for turns in subject.turns
    ]
    costs = tuple(_turn_cost(subject, turns, counts, gpu, gpus) for turns, counts in zip(subject.turns, counted, strict=True))
    seconds = sum(cost.number * cost.seconds for cost in costs)
    floor = sum(cost.number * cost.floor_seconds for cost in costs)
    rate = tables.steps * subject.batch_size / seconds
    peak = max(count.peak_bytes for counts in counted for count in counts)
    return Cost(
        recipe=subject.recipe,
        gpu=gpu.name,
        gpus=gpus,
        sharded=any(subject.is_sharded(player, gpus) for player in subject.task.players),
        batch=subject.batch_size,
        samples=samples,
        steps=tables.steps,
        parameters={player: _size(module) for player, module in subject.task.players.items()},
        frozen_parameters=subject.frozen(),
        turns=costs,
        memory=_memory(subject, gpu, gpus, peak),
        images_per_second=rate,
        hours=seconds / 3600,
        gpu_hours=gpus * seconds / 3600,
        floor_gpu_hours=gpus * floor / 3600,
        data=data(rate),
        assumptions=_assumptions(gpu),
    )


def update_kernels(trained: int, averaged: int) -> list[Kernel]:
    """What follows a backward pass. trained, averaged: parameters on this rank."""
    return [Kernel("", 0, size) for size in (trained * _ADAMW_BYTES, trained * _CLIP_BYTES, averaged * _AVERAGE_BYTES) if size]


def _turn_cost(subject: Subject, turns: Turns, counts: Sequence[Count], gpu: GPU, gpus: int) -> TurnCost:
    micro_batches, module = subject.tables.accumulate, subject.task.players[turns.player]
    trained, sharded = _size(module, trained=True), subject.is_sharded(turns.player, gpus)
    share = gpus if sharded else 1
    averaged = trained if subject.tables.ema and turns.player == subject.averaged else 0
    updates = update_kernels(trained // share, averaged // share)
    whole = [Count([*(count.kernels * micro_batches), *updates]) for count in counts]
    if sharded:      # blocks are gathered while others compute
        sent = shard_bytes(_size(module), gpus, micro_batches)
        waits = [max(0.0, gpu.link_seconds(sent, gpus) - gpu.seconds(count)) for count in whole]
    else:
        sent = all_reduce_bytes(_FLOAT * trained, gpus)
        waits = [gpu.link_seconds(sent, gpus)] * len(whole)
    formats = {unit for count in whole for unit in count.flops_by_unit()}
    return TurnCost(
        player=turns.player,
        phase=turns.phase,
        number=turns.number,
        flops=gpus * fmean(count.flops for count in whole),
        flops_by_format={unit: gpus * fmean(count.flops_by_unit().get(unit, 0) for count in whole) for unit in sorted(formats)},
        bytes=gpus * fmean(count.bytes for count in whole),
        kernels=round(fmean(len(count.kernels) for count in whole)),
        activation_bytes=max(count.peak_bytes for count in counts),
        sent_bytes=sent,
        floor_seconds=fmean(gpu.floor_seconds(count) for count in whole),
        seconds=fmean(gpu.seconds(count) + wait for count, wait in zip(whole, waits, strict=True)),
    )


def _memory(subject: Subject, gpu: GPU, gpus: int, peak: int) -> MemoryCost:
    held = {"parameters": 0.0, "gradients": 0.0, "optimizer": 0.0, "average": 0.0, "gathered": 0.0}
    for player, module in subject.task.players.items():
        sharded = subject.is_sharded(player, gpus)
        share = gpus if sharded else 1
        trained, size = _size(module, trained=True), _size(module)
        held["parameters"] += _FLOAT * size / share
        held["gradients"] += _FLOAT * trained / share
        held["optimizer"] += 2 * _FLOAT * trained / share
        held["average"] += _FLOAT * trained / share if subject.tables.ema and player == subject.averaged else 0
        held["gathered"] += 2 * _FLOAT * largest_unit(module) if sharded else 0      # this block and the next
    frozen = float(_FLOAT * subject.frozen())
    return MemoryCost(
        **held, frozen=frozen, activations=peak, total=sum(held.values()) + frozen + peak, available=gpu.memory
    )


def _size(module: nn.Module, *, trained: bool = False) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad or not trained)


def frozen_parameters(task: Task) -> int:
    """Parameters of all frozen networks of a task, each network once."""
    held = [value for value in vars(task).values() if isinstance(value, nn.Module | tuple | dict)]
    networks: dict[int, nn.Module] = {}
    for value in held:
        for module in value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else (value,):
            if isinstance(module, nn.Module):
                networks |= {id(part.network): part.network for part in module.modules() if isinstance(part, Frozen)}
    return sum(_size(network) for network in networks.values())


def _assumptions(gpu: GPU) -> tuple[str, ...]:
    return (
        f"peaks of {gpu.title}: {gpu.source}",
        f"{MATRIX_EFFICIENCY:.0%} of the peak in matrix products and convolutions, {MEMORY_EFFICIENCY:.0%} of the bandwidth in "
        f"other kernels, {LINK_EFFICIENCY:.0%} of the interconnect, {LAUNCH_SECONDS * 1e6:g} us to start a kernel",
        "kernels are not fused; float32 convolutions use TF32, other float32 products do not",
        "gradients are averaged after the backward pass; shards are gathered while other blocks compute",
        "data arrive in time; validation and saving are left out",
    )
