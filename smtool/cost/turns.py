"""The turns of a recipe's players: which kinds there are, how many of each, and what one of them computes."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise

from torch import nn

from smtool.cost.counting import Count, counting
from smtool.cost.cuda_autocast import cuda_autocast
from smtool.randomness import streams
from smtool.training.loop import Batch, Task
from smtool.training.precision import MixedPrecision, Precision


@dataclass(frozen=True)
class Turns:
    """`number` turns of a player that cost the same. steps: some of their steps, counted from 0; phase: when they are."""

    player: str
    phase: str
    number: int
    steps: tuple[int, ...]


def planned_turns(task: Task, steps: int, begins: Sequence[tuple[int, str]], *, examples: int = 1) -> Iterator[Turns]:
    """All turns of the first `steps` steps. begins: (first step, name) of phases between which costs change, the first at 0.

    examples: number of steps to give of each kind, where random choices change the cost of a step.
    """
    inside = [(step, name) for step, name in begins if step < steps]
    for (start, name), (stop, _) in pairwise([*inside, (steps, "")]):
        players = dict.fromkeys(player for step in range(start, min(start + 2, stop)) for player in task.players_at(step))
        for player in players:
            number = task.count_turns(player, stop) - task.count_turns(player, start)
            played = (step for step in range(start, stop) if player in task.players_at(step))
            chosen = tuple(step for step, _ in zip(played, range(examples), strict=False))
            yield Turns(player, name, number, chosen)


def count_turn(task: Task, player: str, step: int, batch: Batch, *, precision: Precision, seed: int = 0,
               compiled: Sequence[nn.Module] = ()) -> Count:
    """Operations of a player's loss and of its backward pass on a micro-batch; those of the optimizer are not counted.

    task, batch: on the meta device. Random choices of the step are those of the seed and the step. compiled: blocks
    that torch.compile fuses.
    """
    trained = {name: _trained(module) for name, module in task.players.items()}
    for name, parameters in trained.items():
        for parameter in parameters:
            parameter.grad = None
            parameter.requires_grad_(name == player)
    draws = streams(seed, step, player, batch=len(batch), device="meta")
    mixed = MixedPrecision(precision, "cpu")      # meta tensors have the CPU's switch
    try:
        with cuda_autocast(), counting(task.players[player]) as count, _as_compiled(compiled):
            with mixed.autocast():
                loss = task.loss(player, batch.slice(0, len(batch)), draws, step)
            loss.total.backward()
        return count
    finally:
        for parameters in trained.values():
            for parameter in parameters:
                parameter.grad = None
                parameter.requires_grad_(True)


def _trained(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def _as_compiled(blocks: Sequence[nn.Module]) -> AbstractContextManager[None]:
    if not blocks:
        return nullcontext()
    from smtool.cost.compiled import as_compiled  # imports PyTorch's compiler, which takes seconds

    return as_compiled(blocks)
