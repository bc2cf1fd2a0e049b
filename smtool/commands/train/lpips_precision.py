"""The precision in which the trunk of LPIPS computes while training."""

from torch import nn

from smtool.commands.train.run_folder import RunFolder
from smtool.commands.train.teacher_precision import Taught, resolved
from smtool.features.perceptual import Perceptual, PerceptualDistance
from smtool.recipe import TrainingTables

SOURCE = "LPIPS precision"


def set_lpips_precision(
    tables: TrainingTables, table: Perceptual | None, perceptual: tuple[nn.Module, float] | None, folder: RunFolder, device: str
) -> Taught:
    """Set the precision of a run's perceptual distance, as its table asks.

    A resumed run with "auto" keeps the precision that it was started with: fp32 for runs of versions that did not record it.
    """
    if table is None or perceptual is None:
        return Taught({}, ())
    distance = perceptual[0]
    assert isinstance(distance, PerceptualDistance)
    recorded = (folder.recorded(SOURCE) or "fp32") if folder.has_checkpoint else None
    distance.precision = resolved(table.precision, tables.precision, device, recorded)
    lines = (f"{distance.name} computes its trunk in bf16",) if distance.precision == "bf16" else ()
    return Taught({SOURCE: distance.precision}, lines)
