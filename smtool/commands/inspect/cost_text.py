"""The cost of a recipe as a table for the console."""

from collections.abc import Iterator

from rich.console import Group
from rich.table import Table
from rich.text import Text

from smtool.cost.gpus import GPUS
from smtool.cost.result import Cost, MemoryCost, TurnCost


def cost_rows(cost: Cost) -> Group:
    """Totals, one line a kind of turn, and what they assume."""
    return Group(_rows(cost), Text(), _turns(cost), Text(), *(Text(f"assumes {line}", style="dim") for line in cost.assumptions))


def _rows(cost: Cost) -> Table:
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in rows(cost).items():
        table.add_row(Text(name), Text(text))
    return table


def rows(cost: Cost) -> dict[str, str]:
    """Name of a row -> text."""
    data = cost.data
    count = f"{data.images:.0e}".replace("e+0", "e")
    stored = f"{amount(data.images * data.image_bytes, 'B')} of {data.image_format}"
    if data.latent_bytes is not None:
        stored += f", {amount(data.images * data.latent_bytes, 'B')} of latents"
    encode = "" if data.encode_gpu_hours is None else f", {data.encode_gpu_hours:,.0f} GPU-hours to encode latents"
    return {
        "on": f"{cost.gpus} x {GPUS[cost.gpu].title}, {cost.samples:,} images each at a time"
        + (", parameters sharded" if cost.sharded else ""),
        "parameters": ", ".join(f"{player} {size:,}" for player, size in cost.parameters.items())
        + (f", frozen networks {cost.frozen_parameters:,}" if cost.frozen_parameters else ""),
        "memory": _memory(cost.memory),
        "whole recipe": f"{cost.steps:,} steps of {cost.batch:,} images, {amount(cost.flops, 'FLOP')}",
        "predicted": f"{cost.images_per_second:,.0f} images/s, {cost.hours:,.1f} hours, {cost.gpu_hours:,.1f} GPU-hours "
        f"(floor {cost.floor_gpu_hours:,.1f})",
        "of the peak": f"{', '.join(_shares(cost))} of {GPUS[cost.gpu].peak['bf16'] / 1e12:,.0f} TFLOP/s in bf16",
        f"{count} images": f"{stored}; {data.prepare_core_hours:,.0f} core-hours to prepare{encode}",
        "reading": f"{data.readers:.1f} cores decode images as fast as this trains; one pass over {count} images takes "
        f"{data.read_core_hours:,.0f} core-hours",
    }


def _shares(cost: Cost) -> Iterator[str]:
    """Of each player, over all its turns."""
    for player in dict.fromkeys(turn.player for turn in cost.turns):
        turns = [turn for turn in cost.turns if turn.player == player]
        seconds = sum(turn.number * turn.seconds for turn in turns)
        yield f"{player} {sum(turn.number * turn.seconds * turn.peak_share for turn in turns) / seconds:.0%}"


def _memory(memory: MemoryCost) -> str:
    held = ("parameters", "gradients", "optimizer", "average", "frozen", "gathered", "activations")
    parts = ", ".join(f"{name} {amount(size, 'B')}" for name in held if (size := getattr(memory, name)))
    fits = "" if memory.total <= memory.available else f"; does not fit into {amount(memory.available, 'B')}"
    return f"{amount(memory.total, 'B')} each: {parts}{fits}"


def _turns(cost: Cost) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("turn")
    for name in ("number", "FLOPs", "bytes", "kernels", "sent by each", "floor", "predicted"):
        table.add_column(name, justify="right")
    for turn in cost.turns:
        table.add_row(_named(turn), f"{turn.number:,}", *turn_cells(turn))
    return table


def _named(turn: TurnCost) -> str:
    return f"{turn.player} {turn.phase}".strip()


def turn_cells(turn: TurnCost) -> tuple[str, ...]:
    return (
        amount(turn.flops, ""), amount(turn.bytes, "B"), f"{turn.kernels:,}", amount(turn.sent_bytes, "B"),
        f"{turn.floor_seconds * 1e3:,.1f} ms", f"{turn.seconds * 1e3:,.1f} ms",
    )  # fmt: skip


def amount(value: float, unit: str) -> str:
    """A number with three digits and a decimal prefix, such as 15.4 TFLOP; 0 as 0."""
    prefixes = ("", "k", "M", "G", "T", "P", "E", "Z")
    if value == 0:
        return "0"
    power = 0
    while value >= 999.5 and power < len(prefixes) - 1:
        value, power = value / 1000, power + 1
    digits = max(0, 2 - (len(str(int(value))) - 1))
    return f"{value:.{digits}f} {prefixes[power]}{unit}".rstrip()
