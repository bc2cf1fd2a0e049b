"""How many bits latents can carry: reverse water-filling of their power, per frequency band and across channels."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from smtool.spectrum.dct import dct2
from smtool.spectrum.transfer import band_of_cell

DISTORTIONS = (0.1, 0.01, 0.001)
"""Fractions of the variance that may be lost; reports print the capacity at each of them."""
POSITIONS_PER_CHANNEL = 10


@dataclass(frozen=True)
class BandMoments:
    """Cross-channel covariance of DCT cells per frequency band. `a + b` equals the moments of both sets of latents together.

    num_images: number of latents. mean: (C, h, w), the DCT of the mean latent. scatter: (K, C, C), products of deviations from
    `mean`, summed over images and the cells of a band. cells: (K,), number of cells per band; cell (0, 0) is in the first band,
    the corners are in the last. Float64 on the CPU.
    """

    num_images: int
    mean: Tensor
    scatter: Tensor
    cells: Tensor

    def __add__(self, other: "BandMoments") -> "BandMoments":
        if self.mean.shape != other.mean.shape or self.cells.shape != other.cells.shape:
            raise ValueError(f"latents of shape {tuple(self.mean.shape)} in {len(self.cells)} bands cannot be joined with "
                             f"{tuple(other.mean.shape)} in {len(other.cells)}")
        total = self.num_images + other.num_images
        step = other.mean - self.mean
        between = _scatter(step[None], len(self.cells)) * (self.num_images * other.num_images / total)
        mean = self.mean + step * (other.num_images / total)
        return BandMoments(total, mean, self.scatter + other.scatter + between, self.cells)

    @property
    def covariance(self) -> Tensor:
        """(K, C, C): covariance of the channels in each band, mean over its cells, unbiased (divided by num_images - 1).

        Raises ValueError for fewer than 2 images.
        """
        if self.num_images < 2:
            raise ValueError("a capacity needs at least 2 images: the mean latent is removed")
        return self.scatter / (self.cells * (self.num_images - 1))[:, None, None]

    @cached_property
    def eigen(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues (K, C) of `covariance`, clipped at 0, and its eigenvectors (K, C, C) as columns."""
        values, vectors = torch.linalg.eigh(self.covariance)
        return values.clamp(min=0), vectors

    @property
    def well_sampled(self) -> Tensor:
        """(K,) bool: whether the band has at least 10 C deviations. With fewer, its number of bits is biased low."""
        return self.cells * (self.num_images - 1) >= POSITIONS_PER_CHANNEL * len(self.mean)


@dataclass(frozen=True)
class Capacity:
    """Bits of one image's latents.

    theta: noise variance allowed per coefficient, in squared units of the latents; None where each channel has its own noise
    (`channel_capacity`). bits_per_band: (K,). bits_per_channel: (C,), the diagonal of the matrix of bits. Both sum to
    `bits_per_image`. Float64 on the CPU.
    """

    theta: float | None
    bits_per_band: Tensor
    bits_per_channel: Tensor

    @property
    def bits_per_image(self) -> float:
        """Sum over the bands."""
        return self.bits_per_band.sum().item()


def band_moments(latents: Tensor, bands: int = 8) -> BandMoments:
    """The moments of a batch of latents (B, C, h, w) in K = min(bands, h, w) frequency bands, the bands of `band_transfer`.

    Add the moments of several batches with `+`; memory stays at K C^2 + C h w numbers. Raises ValueError for latents of another
    shape and for bands < 1.
    """
    if latents.ndim != 4 or len(latents) == 0 or bands < 1:
        raise ValueError(f"band moments need latents (B, C, h, w) and bands >= 1, but got {tuple(latents.shape)} and {bands}")
    num_bands = min(bands, *latents.shape[-2:])
    with torch.no_grad():
        cells = dct2(latents).double()
        mean = cells.mean(0)
        count = torch.bincount(band_of_cell(latents.shape[-2], latents.shape[-1], num_bands).flatten(), minlength=num_bands)
        return BandMoments(len(latents), mean.cpu(), _scatter(cells - mean, num_bands), count.double())


def capacity_at(moments: BandMoments, distortion: float) -> Capacity:
    """Bits for Gaussian latents with these covariances at a mean squared error of `distortion` times their variance.

    distortion: fraction of the variance, in (0, 1). The l are the eigenvalues of the C x C covariance of each band. theta solves
    mean min(l, theta) = distortion x mean l over all h w C coefficients; a coefficient has max(0, 1/2 log2(l / theta)) bits.
    Eigenvalues are used because a sum over channels would count copies of a channel twice.

    Raises ValueError for a distortion outside (0, 1), fewer than 2 images, and latents that do not vary.
    Source: reverse water-filling of independent Gaussian sources; spectrum.md#health.
    """
    if not 0 < distortion < 1:
        raise ValueError(f"distortion is a fraction of the variance between 0 and 1, but is {distortion}")
    values, vectors = moments.eigen
    theta = _water_level(values, moments.cells[:, None].expand_as(values), distortion)
    return _counted(0.5 * (values / theta).clamp(min=1).log2(), vectors, moments.cells, theta)


def channel_capacity(moments: BandMoments, noise_variance: Tensor) -> Capacity:
    """Bits that latents carry in the presence of the posterior's noise: 1/2 log2(1 + l) per coefficient.

    The l are the eigenvalues of the covariance after every channel is divided by the std of its noise.
    moments: of posterior means at *raw* scale. noise_variance: (C,), posterior variance at the same scale, mean over images and
    positions. With the same variance in all channels this is 1/2 log2(1 + eigenvalue / variance).

    Raises ValueError unless there is a positive noise variance for each channel, and for fewer than 2 images.
    Source: capacity of parallel Gaussian channels; spectrum.md#health.
    """
    if noise_variance.shape != moments.mean.shape[:1] or not bool((noise_variance > 0).all()):
        raise ValueError(f"a noise variance above 0 is needed for each of {len(moments.mean)} channels, but got "
                         f"{tuple(noise_variance.shape)} with minimum {noise_variance.min().item():.3g}")
    scale = noise_variance.double().cpu().rsqrt()
    values, vectors = torch.linalg.eigh(moments.covariance * torch.outer(scale, scale))
    return _counted(0.5 * torch.log2(1 + values.clamp(min=0)), vectors, moments.cells, None)


def _counted(bits: Tensor, vectors: Tensor, cells: Tensor, theta: float | None) -> Capacity:
    """Sum bits (K, C), per eigenvector and cell, over bands and channels. vectors: (K, C, C), eigenvectors as columns."""
    per_channel = (vectors.square() * bits[:, None]).sum(-1)                                # (K, C)
    return Capacity(theta, cells * bits.sum(1), (cells[:, None] * per_channel).sum(0))


def _water_level(values: Tensor, weight: Tensor, distortion: float) -> float:
    """theta with sum weight min(value, theta) = distortion x sum weight value; exact, as the sum is piecewise linear."""
    order = values.flatten().argsort()
    value, count = values.flatten()[order], weight.flatten()[order]
    wanted = distortion * (value * count).sum()
    if not wanted > 0:
        raise ValueError("nothing varies in these latents: there is no capacity to measure")
    above = count.flip(0).cumsum(0).flip(0)                                                 # cells at or above each value
    below = (value * count).cumsum(0) - value * count
    filled = below + value * above                                                          # total distortion at theta = value
    first = int(torch.searchsorted(filled, wanted))
    return ((wanted - below[first]) / above[first]).item()


def _scatter(deviations: Tensor, num_bands: int) -> Tensor:
    """Products of deviations (B, C, h, w) summed over images and the cells of each band: (K, C, C) on the CPU."""
    band = band_of_cell(deviations.shape[-2], deviations.shape[-1], num_bands).flatten().to(deviations.device)
    by_cell = deviations.flatten(2).permute(1, 2, 0)                                        # (C, cells, B)
    parts = [by_cell[:, band == k].flatten(1) for k in range(num_bands)]
    return torch.stack([part @ part.mT for part in parts]).cpu()
