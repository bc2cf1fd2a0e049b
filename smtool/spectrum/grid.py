"""Grid artefacts: patterns with the decoder's own period f, measured as reconstruction minus input on the same images.

JPEG leaves a grid of period 8, and a finite sample shows some contrast between phases by chance, so only the excess over the
inputs is meaningful. A phase is the position (i mod f, j mod f) of a pixel in its f x f cell.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from smtool.spectrum.dct import full_precision, without_autocast


@dataclass(frozen=True)
class GridStatistics:
    """Sums over images for the two measures of `grid_artefacts`. `a + b` equals the sums of both sets of images together.

    period: f. detail_energy: mean square of the detail (image minus its local mean). template_energy: mean square of the
    template, the part of the detail that repeats in every cell. gradient_energy: (f, f), mean squared gradient at each phase.
    The energies are summed over images. Float64 on the CPU.
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
        """First-order measure, in [0, 1]: fraction of the detail's energy that repeats in every cell; nan if nothing varies."""
        return self.template_energy / self.detail_energy if self.detail_energy > 0 else float("nan")

    @property
    def phase(self) -> float:
        """Second-order measure, in [0, 1]: 1 - min / max over phases of the mean squared gradient; nan if nothing varies.

        0: all positions of a cell are equally sharp. 1: at some position of the cell the gradient is always 0 (nearest
        upsampling).
        """
        largest = self.gradient_energy.max().item()
        return 1 - self.gradient_energy.min().item() / largest if largest > 0 else float("nan")


@dataclass(frozen=True)
class GridReading:
    """One measure on the reconstructions and on their inputs; `excess` is the difference, which the decoder adds."""

    reconstruction: float
    input: float

    @property
    def excess(self) -> float:
        return self.reconstruction - self.input


@dataclass(frozen=True)
class GridArtefacts:
    """Grid artefacts of one decoder. template: fraction of repeated detail. phase: contrast of sharpness between phases."""

    period: int
    template: GridReading
    phase: GridReading


def grid_statistics(images: Tensor, period: int) -> GridStatistics:
    """Collect the sums for `grid_artefacts` from a batch of inputs or reconstructions (B, C, H, W).

    period: f, 2 or more: the decoder's downsampling factor. The detail is the image minus its f x f sliding mean, where the
    window fits. The template is the detail averaged over all whole cells of one image and channel, at each phase. The gradient
    is (difference to the right)^2 + (difference downwards)^2, over all whole cells that have both differences. Add the sums of
    several batches with `+`; memory does not grow.

    Raises ValueError for images below two cells a side and for a period below 2. Source: spectrum.md#health.
    """
    if images.ndim != 4 or len(images) == 0 or period < 2 or min(images.shape[-2:]) < 2 * period:
        raise ValueError(f"grid statistics of period {period} need images (B, C, H, W) of at least {2 * period} pixels a side "
                         f"and a period of 2 or more, but got {tuple(images.shape)}")
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
    """Both measures on reconstructions and on the inputs of the same images; a perfect autoencoder has an excess of 0.

    Raises ValueError unless both sides have the same period and number of images: the phase measure depends on that number.
    Source: spectrum.md#health.
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
    """x minus its sliding mean over period x period pixels, for the whole cells that have a full window: (B, C, H', W')."""
    mean = F.avg_pool2d(x, period, stride=1)
    first, height, width = period // 2, mean.shape[-2], mean.shape[-1]
    detail = x[..., first : first + height, first : first + width] - mean
    return detail[..., : height // period * period, : width // period * period]


def _cells(x: Tensor, period: int) -> Tensor:
    """(B, C, H, W) -> (B, C, rows, f, columns, f), whole cells only."""
    rows, columns = x.shape[-2] // period, x.shape[-1] // period
    return x[..., : rows * period, : columns * period].unflatten(-1, (columns, period)).unflatten(-3, (rows, period))
