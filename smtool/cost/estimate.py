"""The cost of a recipe's training task on some GPUs, from counts of its turns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Protocol

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
class Encoding:
    """An autoencoder that encodes images while a transformer trains. count: number of images -> operations; parameters: all."""

    count: Callable[[int], Count]
    parameters: int


@dataclass(frozen=True)
class Subject:
    """A recipe whose cost is wanted. task: on the meta device; batch: number of images -> micro-batch; averaged: the player with
    an average; parallel: how its parameters are sharded, None: never; compiled: blocks that torch.compile fuses; encoding: what
    encodes images before each turn, None: nothing; remarks: further assumptions."""

    recipe: str
    tables: TrainingTables
    task: Task
    batch: Callable[[int], Batch]
    batch_size: int
    turns: Sequence[Turns]
    averaged: str
    parallel: Parallel | None = None
    compiled: tuple[nn.Module, ...] = ()
    encoding: Encoding | None = None
    remarks: tuple[str, ...] = ()

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

    def count(self, player: str, step: int, batch: Batch) -> Count:
        """One turn on a micro-batch. Turns of a step must be counted in their order, because a task may hand things on."""
        turn = count_turn(
            self.task, player, step, batch, precision=self.tables.precision, seed=self.tables.seed, compiled=self.compiled
        )
        if self.encoding is None:
            return turn
        before = self.encoding.count(len(batch))
        return Count([*before.kernels, *turn.kernels], max(before.peak_bytes, turn.peak_bytes))

    def is_sharded(self, player: str, gpus: int) -> bool:
        return self.parallel is not None and self.parallel.applies(self.task.players[player], Ranks(0, gpus, "meta"))

    def frozen(self) -> int:
        """Parameters of the networks in the losses, and of the autoencoder that encodes in every step, that never train."""
        return frozen_parameters(self.task) + (self.encoding.parameters if self.encoding else 0)


def estimate(subject: Subject, gpu: GPU, gpus: int, data: Callable[[float], DataCost]) -> Cost:
    """The cost on this many GPUs. data: predicted images per second -> cost of the data. Raises RecipeError as `samples`."""
    if gpus < 1:
        raise RecipeError(f"--gpus must be at least 1, but is {gpus}.")
    tables, samples = subject.tables, subject.samples(gpus)
    batch = subject.batch(samples)
    counted: list[list[Count]] = [[] for _ in subject.turns]
    for step, kind in sorted((step, kind) for kind, turns in enumerate(subject.turns) for step in turns.steps):
        counted[kind].append(subject.count(subject.turns[kind].player, step, batch))
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
        assumptions=(*_assumptions(gpu, len(subject.compiled)), *subject.remarks),
    )


class Processor(Protocol):
    """What computes: a GPU of a datasheet, or the CPU of this machine."""

    def seconds(self, count: Count) -> float: ...

    def link_seconds(self, sent: float, gpus: int) -> float: ...


def step_seconds(subject: Subject, processor: Processor, gpus: int, batch: Batch, steps: Sequence[int]) -> float:
    """Predicted mean seconds of some steps, counted from 0, on a micro-batch of one GPU on the meta device."""
    seconds = [
        _seconds(subject, player, _whole(subject, player, subject.count(player, step, batch), gpus), processor, gpus)
        for step in steps for player in subject.task.players_at(step)
    ]  # fmt: skip
    return sum(seconds) / len(steps)


def update_kernels(trained: int, averaged: int) -> list[Kernel]:
    """What follows a backward pass. trained, averaged: parameters on this rank."""
    return [Kernel("", 0, size) for size in (trained * _ADAMW_BYTES, trained * _CLIP_BYTES, averaged * _AVERAGE_BYTES) if size]


def _turn_cost(subject: Subject, turns: Turns, counts: Sequence[Count], gpu: GPU, gpus: int) -> TurnCost:
    whole = [_whole(subject, turns.player, count, gpus) for count in counts]
    flops = fmean(count.flops for count in whole)
    seconds = fmean(_seconds(subject, turns.player, count, gpu, gpus) for count in whole)
    formats = {unit for count in whole for unit in count.flops_by_unit()}
    return TurnCost(
        player=turns.player,
        phase=turns.phase,
        number=turns.number,
        flops=gpus * flops,
        flops_by_format={unit: gpus * fmean(count.flops_by_unit().get(unit, 0) for count in whole) for unit in sorted(formats)},
        bytes=gpus * fmean(count.bytes for count in whole),
        kernels=round(fmean(len(count.kernels) for count in whole)),
        activation_bytes=max(count.peak_bytes for count in counts),
        sent_bytes=_sent_bytes(subject, turns.player, gpus),
        floor_seconds=fmean(gpu.floor_seconds(count) for count in whole),
        seconds=seconds,
        peak_share=flops / (seconds * gpu.peak["bf16"]),
    )


def _whole(subject: Subject, player: str, count: Count, gpus: int) -> Count:
    """A whole turn: all micro-batches, then clipping, update and average."""
    trained = _size(subject.task.players[player], trained=True) // (gpus if subject.is_sharded(player, gpus) else 1)
    averaged = trained if subject.tables.ema and player == subject.averaged else 0
    return Count([*(count.kernels * subject.tables.accumulate), *update_kernels(trained, averaged)])


def _sent_bytes(subject: Subject, player: str, gpus: int) -> float:
    """Bytes that each GPU sends in a turn."""
    module = subject.task.players[player]
    if subject.is_sharded(player, gpus):
        return shard_bytes(_size(module), gpus, subject.tables.accumulate)
    return all_reduce_bytes(_FLOAT * _size(module, trained=True), gpus)


def _seconds(subject: Subject, player: str, whole: Count, processor: Processor, gpus: int) -> float:
    """Of a whole turn. Sharded blocks are gathered while others compute; gradients are averaged afterwards."""
    computing, sending = processor.seconds(whole), processor.link_seconds(_sent_bytes(subject, player, gpus), gpus)
    return max(computing, sending) if subject.is_sharded(player, gpus) else computing + sending


def _memory(subject: Subject, gpu: GPU, gpus: int, peak: int) -> MemoryCost:
    held = {"parameters": 0.0, "gradients": 0.0, "optimizer": 0.0, "average": 0.0, "gathered": 0.0}
    for player, module in subject.task.players.items():
        sharded = subject.is_sharded(player, gpus)
        share = gpus if sharded else 1
        trained, size = _size(module, trained=True), _size(module)
        held["parameters"] += _FLOAT * size / share
        held["gradients"] += _FLOAT * trained / (share if subject.tables.accumulate == 1 else 1)      # unsharded until the last
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
    return sum(_size(network) for network in _frozen(task).values())


def _frozen(task: object) -> dict[int, nn.Module]:
    """By identity, also those of the tasks of which a task is made."""
    networks: dict[int, nn.Module] = {}
    for value in vars(task).values():
        for part in value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else (value,):
            if isinstance(part, nn.Module):
                networks |= {id(one.network): one.network for one in part.modules() if isinstance(one, Frozen)}
            elif hasattr(part, "players_at"):
                networks |= _frozen(part)
    return networks


def _assumptions(gpu: GPU, compiled: int) -> tuple[str, ...]:
    fused = f"kernels of {compiled} compiled blocks as PyTorch's compiler plans them for an H100, other " if compiled else ""
    return (
        f"peaks of {gpu.title}: {gpu.source}",
        f"{MATRIX_EFFICIENCY:.0%} of the peak in matrix products and convolutions, {MEMORY_EFFICIENCY:.0%} of the bandwidth in "
        f"other kernels, {LINK_EFFICIENCY:.0%} of the interconnect, {LAUNCH_SECONDS * 1e6:g} us to start a kernel",
        f"{fused}kernels are not fused; float32 convolutions use TF32, other float32 products do not",
        "gradients are averaged after the backward pass; shards are gathered while other blocks compute",
        "data arrive in time; validation and saving are left out",
    )
