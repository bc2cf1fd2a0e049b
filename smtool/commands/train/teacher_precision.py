"""The precision in which the teachers and other frozen networks of a run compute while training."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from torch import nn

from smtool.commands.train.run_folder import RunFolder
from smtool.devices import has_bf16, stands_for_gpu
from smtool.features.frozen import FrozenInTraining, TeacherPrecision
from smtool.recipe import TrainingTables
from smtool.training.precision import Precision

SOURCE = "teacher precision"


@dataclass(frozen=True)
class Taught:
    """sources: for `Run.sources`, empty without teachers; lines: for the log."""

    sources: dict[str, str]
    lines: tuple[str, ...]


def set_precision(tables: TrainingTables, modules: Iterable[nn.Module | None], folder: RunFolder, device: str) -> Taught:
    """Set the precision of all teachers inside the modules, as the recipe asks.

    A resumed run with "auto" keeps the precision that it was started with: fp32 for runs of versions that did not record it.
    """
    teachers = teachers_in(modules)
    if not teachers:
        idle = tables.teacher_precision != "auto"
        return Taught({}, ("teacher_precision has no effect: no teacher computes features while training",) if idle else ())
    recorded = (folder.recorded(SOURCE) or "fp32") if folder.has_checkpoint else None
    chosen = teacher_precision(tables, device, recorded)
    for teacher in teachers:
        teacher.precision = chosen
    names = ", ".join(dict.fromkeys(teacher.name for teacher in teachers))
    return Taught({SOURCE: chosen}, (f"teacher {names} computes in bf16",) if chosen == "bf16" else ())


def teachers_in(modules: Iterable[nn.Module | None]) -> list[FrozenInTraining]:
    return [part for module in modules if module is not None for part in module.modules() if isinstance(part, FrozenInTraining)]


def teacher_precision(tables: TrainingTables, device: str, recorded: str | None = None) -> TeacherPrecision:
    """The precision of teachers on a device. recorded: that of the start of the run, None: starting.

    bf16, not the fp16 of an fp16 run: features of a frozen network have no loss scaling, and those of some networks overflow.
    """
    return resolved(tables.teacher_precision, tables.precision, device, recorded)


def resolved(
    asked: Literal["auto", "fp32", "bf16"], precision: Precision, device: str, recorded: str | None
) -> TeacherPrecision:
    """What "auto" means for a frozen network of a run with this precision. device: also "meta", see `stands_for_gpu`."""
    if asked != "auto":
        return asked
    if recorded is not None:
        return "bf16" if recorded == "bf16" else "fp32"
    mixed = precision != "fp32"
    return "bf16" if mixed and (stands_for_gpu(device) or has_bf16(device)) else "fp32"
