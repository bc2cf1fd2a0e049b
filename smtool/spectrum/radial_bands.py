"""Mean DCT power of latents, per channel, and of their images in radial bands that cover every cell of the latent's grid.

Bands: cell (0, 0) alone, then the PHYSICAL rings, then the corner beyond 0.5 cycles per pixel (from 4x4 cells on).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from smtool.spectrum.dct import constant, dct2, idct2, without_autocast
from smtool.spectrum.downsample import shrunk_dct
from smtool.spectrum.estimators import PHYSICAL
from smtool.spectrum.psd import Size, cell_rings

SMALLEST_SIDE = 3
"""Latent cells per side; a smaller grid has PHYSICAL rings without a cell."""


@dataclass(frozen=True)
class RadialPower:
    """Sums over latents and over images of the mean power in each band, float64 on the CPU; `a + b` merges two sets.

    latents: (C, bands), raw, band 0 with the channel's mean. images: (bands - 1,), mean over channels, from the low DCT cells of
    the full-size images (ideal downsampling), without cell (0, 0). source: (H, W) of the images.
    """

    size: Size
    source: Size
    num_latents: int
    num_images: int
    latents: Tensor
    images: Tensor

    @classmethod
    def of(cls, latents: Tensor, images: Tensor) -> "RadialPower":
        """Of latents (N, C, h, w) and any number of their images (M, C', H, W).

        Raises ValueError if the grid has fewer than 3x3 cells or more cells than an image has pixels.
        """
        size, source = ((x.shape[-2], x.shape[-1]) for x in (latents, images))
        pixels = images.double()
        with without_autocast(pixels):
            of_images = shrunk_dct(pixels, size, PHYSICAL.downsample).square().mean(1)
        return cls(
            size, source, len(latents), len(images),
            band_means(dct2(latents.double()).square().sum(0)).cpu(),
            band_means(of_images.sum(0))[1:].cpu(),
        )

    def __add__(self, other: "RadialPower") -> "RadialPower":
        if (self.size, self.source) != (other.size, other.source):
            raise ValueError(f"powers of {self.size} latents of {self.source} images and of {other.size} latents of "
                             f"{other.source} images cannot be merged")
        return RadialPower(
            self.size, self.source, self.num_latents + other.num_latents, self.num_images + other.num_images,
            self.latents + other.latents, self.images + other.images,
        )

    def latent_power(self, mean: Tensor) -> Tensor:
        """Mean power of latents about their channel means (C,): (C, bands). These must be the means of the same latents."""
        power = self.latents / self.num_latents
        lowest = power[:, 0] - self.size[0] * self.size[1] * mean.double().square()
        return torch.cat([lowest.clamp(min=0)[:, None], power[:, 1:]], dim=1)

    def image_power(self) -> Tensor:
        """Mean power of the images: (bands - 1,)."""
        return self.images / self.num_images


def has_bands(size: Size, source: Size) -> bool:
    """Whether a grid of this size has radial bands, each with cells of the images' DCT."""
    return min(size) >= SMALLEST_SIDE and size[0] <= source[0] and size[1] <= source[1]


def band_means(power: Tensor) -> Tensor:
    """Means over the bands, (..., h, w) -> (..., bands), float64."""
    band = _cell_band(*power.shape[-2:], dtype=torch.int64, device=power.device)
    cells = power.double().flatten(-2)
    total = cells.new_zeros(*cells.shape[:-1], int(band.max()) + 1).index_add(-1, band, cells)
    return total / band.bincount()


def band_count(size: Size) -> Tensor:
    """Number of cells in each band: (bands,) float64."""
    return _cell_band(*size, dtype=torch.int64, device="cpu").bincount().double()


def band_frequency(size: Size) -> Tensor:
    """Geometric mean frequency of each band's cells, in cycles per pixel of the grid: (bands,) float64; 0 for cell (0, 0)."""
    frequency = cell_frequency(size)
    frequency[0, 0] = 1.0      # so that its logarithm is finite; the band is set below
    found = band_means(frequency.log()).exp()
    found[0] = 0.0
    return found


def cell_frequency(size: Size) -> Tensor:
    """Radial frequency of each DCT cell, r = sqrt((u / 2h)^2 + (v / 2w)^2) cycles per pixel: (h, w) float64."""
    u, v = (torch.arange(side, dtype=torch.float64, device="cpu") / (2 * side) for side in size)
    return torch.hypot(u[:, None], v[None])


def radial_low_pass(x: Tensor, highest: float) -> Tensor:
    """x (..., H, W) with only the DCT cells of radial frequency up to `highest` cycles per pixel, in float32 or float64.

    The mean is always kept; NaN keeps nothing else.
    """
    kept = cell_frequency((x.shape[-2], x.shape[-1])) <= highest
    kept[0, 0] = True
    return idct2(dct2(x) * kept.to(x.device))


@constant
def _cell_band(height: int, width: int) -> Tensor:
    """(h w,) int64: the band of each cell, row by row."""
    ring, _ = cell_rings(height, width, PHYSICAL)
    band = ring + 1
    band[0] = 0
    return band
