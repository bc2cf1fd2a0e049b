"""Grid artefacts: patterns of a decoder's own period f, always read as reconstruction minus input on the same images.

JPEG leaves a grid of period 8, and a finite sample shows some contrast of phases by chance: only the excess over the inputs has
a meaning. A phase is a pixel's place (i mod f, j mod f) in its cell.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from smtool.spectrum.dct import full_precision, without_autocast


@dataclass(frozen=True)
class GridStatistics:
    """Sums over images of what the two measures need; `a + b` is what all images at once would give. Float64, CPU.

    period: f. template_energy, detail_energy: mean squares of the template and of the detail it is a part of, summed over
    images. gradient_energy: (f, f), mean squared gradient at each phase, summed over images.
    """

    num_images: int
    period: int
    template_energy: float
    detail_energy: float
    gradient_energy: Tensor

    def __len__(self) -> int:
        return self.num_images

    def __add__(self, other: "GridStatistics") -> "GridStatistics":
        if self.period != other.period:
            raise ValueError(f"grid statistics of periods {self.period} and {other.period} cannot be joined")
        return GridStatistics(
            num_images=self.num_images + other.num_images,
            period=self.period,
            template_energy=self.template_energy + other.template_energy,
            detail_energy=self.detail_energy + other.detail_energy,
            gradient_energy=self.gradient_energy + other.gradient_energy,
        )

    @property
    def template(self) -> float:
        """First order, in [0, 1]: the fraction of the detail that repeats in every cell of an image. nan where nothing varies."""
        return self.template_energy / self.detail_energy if self.detail_energy > 0 else float("nan")

    @property
    def phase(self) -> float:
        """Second order, in [0, 1]: 1 - min / max over phases of the mean squared gradient. nan where nothing varies.

        0: every place of a cell is equally sharp; 1: somewhere in the cell the image is always flat (nearest upsampling).
        """
        largest = self.gradient_energy.max().item()
        return 1 - self.gradient_energy.min().item() / largest if largest > 0 else float("nan")


@dataclass(frozen=True)
class GridReading:
    """One measure on the reconstructions and on their inputs; `excess` is what the decoder adds."""

    reconstruction: float
    input: float

    @property
    def excess(self) -> float:
        return self.reconstruction - self.input


@dataclass(frozen=True)
class GridArtefacts:
    """Grid artefacts of one decoder: the fraction of a repeated template, and the contrast of sharpness between phases."""

    period: int
    template: GridReading
    phase: GridReading


def grid_statistics(images: Tensor, period: int) -> GridStatistics:
    """Gather what `grid_artefacts` needs from inputs or from reconstructions, (B, C, H, W), of at least two cells each way.

    Template: detail d = image - its period x period sliding mean, where the window fits; d averaged over all whole cells of one
    image and channel at each phase; mean squares. Gradient: (difference to the right)^2 + (difference downwards)^2 over all
    whole cells that have both. Memory does not grow with the batches that are added up.
    Source: definition sheet, section 6. Oracle: a loop over pixels, known upsamplers (tests/spectrum/test_grid.py).
    """
    if images.ndim != 4 or len(images) == 0 or period < 2 or min(images.shape[-2:]) < 2 * period:
        raise ValueError(f"a grid of period {period} is looked for in images (B, C, H, W) of at least {2 * period} pixels a side "
                         f"and with a period of 2 or more, but got {tuple(images.shape)}")
    with torch.no_grad(), without_autocast(images):
        x = full_precision(images)
        detail = _detail(x, period)
        template = _cells(detail, period).mean((2, 4))                                      # (B, C, f, f)
        squared = (x[..., :-1, 1:] - x[..., :-1, :-1]).square() + (x[..., 1:, :-1] - x[..., :-1, :-1]).square()
        return GridStatistics(
            num_images=len(x),
            period=period,
            template_energy=len(x) * template.double().square().mean().item(),
            detail_energy=len(x) * detail.double().square().mean().item(),
            gradient_energy=len(x) * _cells(squared, period).double().mean((0, 1, 2, 4)).cpu(),
        )


def grid_artefacts(reconstruction: GridStatistics, inputs: GridStatistics) -> GridArtefacts:
    """Read both measures on reconstructions and on the inputs of the same images; a perfect autoencoder has no excess.

    Raises ValueError unless both sides have the same period and number of images: the phase contrast depends on that number.
    """
    if (reconstruction.period, len(reconstruction)) != (inputs.period, len(inputs)):
        raise ValueError(f"grid artefacts compare the same images: got {len(reconstruction)} reconstructions of period "
                         f"{reconstruction.period} and {len(inputs)} inputs of period {inputs.period}")
    return GridArtefacts(
        period=inputs.period,
        template=GridReading(reconstruction.template, inputs.template),
        phase=GridReading(reconstruction.phase, inputs.phase),
    )


def _detail(x: Tensor, period: int) -> Tensor:
    """x less its sliding mean over period x period pixels, whole cells of what has a full window: (B, C, H', W')."""
    mean = F.avg_pool2d(x, period, stride=1)
    first, height, width = period // 2, mean.shape[-2], mean.shape[-1]
    detail = x[..., first : first + height, first : first + width] - mean
    return detail[..., : height // period * period, : width // period * period]


def _cells(x: Tensor, period: int) -> Tensor:
    """(B, C, H, W) -> (B, C, rows, f, columns, f), whole cells only."""
    rows, columns = x.shape[-2] // period, x.shape[-1] // period
    return x[..., : rows * period, : columns * period].unflatten(-1, (columns, period)).unflatten(-3, (rows, period))
