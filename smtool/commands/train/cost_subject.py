"""A recipe's task with its turns and batches, on the meta device, whose cost `inspect --cost` and a dry run predict."""

from collections.abc import Callable
from typing import TypedDict

from torch import nn

from smtool.commands.train.without_values import Shape, autoencoder_task, end_to_end_task, image_batch, transformer_task
from smtool.cost.estimate import Subject
from smtool.cost.turns import planned_turns
from smtool.recipe import TrainAE, TrainDiT
from smtool.tasks.diffusion import PLAYER, DiffusionTask
from smtool.training.loop import Batch

_VARYING = {"eq_vae", "scale_equivariance", "uae", "channel_prefix", "latent_masking"}
"""Methods whose random choices change the cost of a step."""
_EXAMPLES = 4


def autoencoder_subject(tables: TrainAE, name: str) -> Subject:
    task = autoencoder_task(tables)
    begins: dict[int, list[str]] = {0: []}
    if table := tables.discriminator:
        begins.setdefault(table.start, []).append("the discriminator alone" if table.alone else "with the discriminator")
        begins.setdefault(table.entry, ["with the discriminator"])
    phases = _at_each_size(tables, {step: " ".join(words) for step, words in begins.items()})
    turns = tuple(planned_turns(task, tables.steps, phases, examples=_examples(tables)))
    return Subject(name, tables, task, lambda count: image_batch(tables, count), tables.data.batch, turns, averaged="autoencoder")


def _examples(tables: TrainAE) -> int:
    return _EXAMPLES if _VARYING & set(tables.regularizers.present) else 1


def _at_each_size(tables: TrainAE, phases: dict[int, str]) -> list[tuple[int, str]]:
    """(first step, name) of the phases, split where the size of the training images changes."""
    sizes = {first: size.words for first, size in tables.data.sizes} or {0: ""}
    found = []
    for step in sorted({*phases, *sizes}):
        phase = phases[max(first for first in phases if first <= step)]
        size = sizes[max(first for first in sizes if first <= step)]
        found.append((step, " at ".join(part for part in (phase, size) if part)))
    return found


def transformer_subject(tables: TrainDiT, name: str, shape: Shape, classes: int, batch: Callable[[int], Batch]) -> Subject:
    """shape: (C, h, w) of the latents; batch: number of samples -> batch of the task on the meta device."""
    task = transformer_task(tables, shape, classes)
    turns = tuple(planned_turns(task, tables.steps, [(0, "")], examples=_EXAMPLES if tables.channel_prefix else 1))
    return Subject(
        name, tables, task, batch, tables.data.batch, turns, averaged=PLAYER, parallel=tables.parallel,
        **_compiled(tables, task),
    )  # fmt: skip


def end_to_end_subject(tables: TrainDiT, own: TrainAE, name: str, classes: int, remarks: tuple[str, ...] = ()) -> Subject:
    """The autoencoder, its discriminator and the transformer that train together. own: tables of the autoencoder."""
    task = end_to_end_task(tables, own, classes)
    turns = tuple(planned_turns(task, tables.steps, [(0, "")], examples=_examples(own)))
    return Subject(
        name, tables, task, lambda count: image_batch(own, count, labelled=tables.labels is not None), tables.data.batch, turns,
        averaged=PLAYER, **_compiled(tables, task.diffusion, remarks),
    )  # fmt: skip


class _Compiled(TypedDict):
    compiled: tuple[nn.Module, ...]
    remarks: tuple[str, ...]


def _compiled(tables: TrainDiT, task: DiffusionTask, remarks: tuple[str, ...] = ()) -> _Compiled:
    """The compiled parts of a step, or a remark that they are counted as if they were not."""
    if not tables.compile:
        return {"compiled": (), "remarks": remarks}
    from smtool.cost.compiled import obstacle  # imports PyTorch's compiler, which takes seconds

    if (why := obstacle()) is None:
        return {"compiled": tuple(task.regions), "remarks": remarks}
    return {"compiled": (), "remarks": (*remarks, f"compile = true is left out of this count: {why}")}


