"""Initial value and lower bound of a flow's loss in each frequency band, for Gaussian latents."""

from dataclasses import dataclass

import torch
from torch import Tensor

from smtool.diffusion import DDPM, VPSDE, Flow
from smtool.spectrum import dct2, mean_velocity_floor
from smtool.tasks.diffusion import NUM_BANDS, band_index


@dataclass(frozen=True)
class BandFloors:
    """Mean squared error of the velocity per DCT coefficient, over uniform time; all (NUM_BANDS,), lowest band first.

    start: loss of the output 0, the initial output of a transformer: 1 + power. floor: loss of the optimal prediction for a
    Gaussian with the latents' means and, at each frequency, their channel covariance, if frequencies are independent. A loss
    below the floor uses dependencies between frequencies. cells: number of coefficients of a channel in the band.
    """

    start: Tensor
    floor: Tensor
    cells: Tensor

    def learnt(self, loss: Tensor) -> Tensor:
        """Position of a loss (NUM_BANDS,) between start (0) and floor (1), for each band."""
        return (self.start - loss) / (self.start - self.floor)


def band_floors(latents: Tensor) -> BandFloors:
    """Start and floor for normalized, sampled latents (N, C, h, w); for a linear path and velocity prediction."""
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


def has_floors(process: Flow | DDPM | VPSDE) -> bool:
    """Whether `band_floors` applies to this process: velocity prediction on a linear path at uniform times, inputs as
    they are."""
    if not isinstance(process, Flow):
        return False
    found = (process.path, process.prediction, process.time, process.shift, process.input_perturbation)
    return found == ("linear", "v", "uniform", 1.0, 0.0)


def floor_values(latents: Tensor) -> dict[str, float]:
    """Floors of normalized latents (N, C, h, w) for the log: floor_band1 ..., and floor_diffusion, the mean over all bands."""
    floors = band_floors(latents)
    whole = (floors.floor * floors.cells).sum() / floors.cells.sum()
    bands = {f"floor_band{number}": value for number, value in enumerate(floors.floor.tolist(), start=1)}
    return {"floor_diffusion": whole.item(), **bands}
