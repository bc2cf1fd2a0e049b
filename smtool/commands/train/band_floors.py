"""Where the loss of a flow starts and where it must end, in each band of frequency, if the latents were Gaussian."""

from dataclasses import dataclass

import torch
from torch import Tensor

from smtool.diffusion import DDPM, Flow
from smtool.spectrum import dct2, mean_velocity_floor
from smtool.tasks.diffusion import NUM_BANDS, band_index


@dataclass(frozen=True)
class BandFloors:
    """Mean squared error of the velocity per DCT coefficient, over uniform time: all (NUM_BANDS,), lowest band first.

    start: of the output 0, with which a transformer begins: 1 + power. floor: of the best guess for a Gaussian with the latents'
    means and, at each frequency, their covariance of channels, but without ties between frequencies. A loss below the floor
    has learnt such ties. cells: coefficients of a channel in the band.
    """

    start: Tensor
    floor: Tensor
    cells: Tensor

    def learnt(self, loss: Tensor) -> Tensor:
        """How far a loss has come from start (0) to floor (1), for each band."""
        return (self.start - loss) / (self.start - self.floor)


def band_floors(latents: Tensor) -> BandFloors:
    """From normalized latents (N, C, h, w) of many images; their sampling noise belongs to them. Linear path, velocity."""
    coefficients = dct2(latents.double()).permute(2, 3, 1, 0).flatten(0, 1)      # (h w, C, N)
    centred = coefficients - coefficients.mean(-1, keepdim=True)
    channels = centred @ centred.mT / (len(latents) - 1)
    floor = mean_velocity_floor(torch.linalg.eigvalsh(channels).clamp(min=0)).mean(-1)
    start = 1 + coefficients.square().mean((1, 2))
    band = band_index(*latents.shape[-2:]).flatten()
    cells = torch.bincount(band, minlength=NUM_BANDS)

    def mean(values: Tensor) -> Tensor:
        return values.new_zeros(NUM_BANDS).index_add(0, band, values) / cells

    return BandFloors(mean(start), mean(floor), cells)


def has_floors(process: Flow | DDPM) -> bool:
    """Whether `band_floors` speaks of this process: the velocity of a linear path at uniform times."""
    if not isinstance(process, Flow):
        return False
    return (process.path, process.prediction, process.time, process.shift) == ("linear", "v", "uniform", 1.0)


def floor_values(latents: Tensor) -> dict[str, float]:
    """The floors of normalized latents (N, C, h, w) as numbers of a log: floor_band1 ..., and floor_diffusion over all bands."""
    floors = band_floors(latents)
    whole = (floors.floor * floors.cells).sum() / floors.cells.sum()
    bands = {f"floor_band{number}": value for number, value in enumerate(floors.floor.tolist(), start=1)}
    return {"floor_diffusion": whole.item(), **bands}
