"""How far latents of a later autoencoder are from those of an earlier one on the same images, and the affine maps between them.

All statistics are second moments of DCT cells by radial band; latents themselves are not stored.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from smtool.spectrum.dct import dct2, without_autocast
from smtool.spectrum.jackknife import jackknife_half_widths
from smtool.spectrum.transfer import band_of_cell

NUM_BANDS = 4
"""Bands of equal width from 0 to the Nyquist frequency of an axis; those of `regularizers.stay` (`band_of_cell`)."""
_SMALLEST_EIGENVALUE = 1e-10
"""Of the correlation of channels, relative to the largest. Directions below it carry rounding only."""

_ROUNDING = 1e-12
"""Variance up to this fraction of a channel's energy is that of a constant channel."""


@dataclass(frozen=True)
class AffineMap:
    """A map of latents, y[i] = sum over j of matrix[i, j] x[j] + shift[i] at every position; float64 on the CPU.

    matrix: (C, C), diagonal for a map of each channel by itself; shift: (C,).
    """

    matrix: Tensor
    shift: Tensor

    @classmethod
    def identity(cls, channels: int) -> "AffineMap":
        return cls(torch.eye(channels, dtype=torch.float64), torch.zeros(channels, dtype=torch.float64))

    @property
    def scale(self) -> Tensor:
        """(C,): the diagonal."""
        return self.matrix.diagonal()

    def __call__(self, latents: Tensor) -> Tensor:
        """Map latents (..., C, h, w). The result has their dtype; sums are in float64."""
        matrix, shift = self.matrix.to(latents.device), self.shift.to(latents.device)
        return (torch.einsum("ij,...jhw->...ihw", matrix, latents.double()) + shift[:, None, None]).to(latents.dtype)

    def inverse(self) -> "AffineMap":
        """The map back. Raises ValueError if the matrix is singular to float64 rounding."""
        if not torch.linalg.cond(self.matrix) < 1 / torch.finfo(torch.float64).eps:
            raise ValueError("the map is singular: a channel, or a combination of channels, is lost")
        matrix = torch.linalg.inv(self.matrix)
        return AffineMap(matrix, -(matrix @ self.shift))


@dataclass(frozen=True)
class PairMoments:
    """Second moments of the latents of two autoencoders, summed over images; `a + b` merges two sets of images.

    moments: (bands, 2 C + 1, 2 C + 1) float64 on the CPU: sums over images and over the DCT cells of a band of products of the
    vector (earlier latents, later latents, an image of ones). The DCT of ones has one cell that is not 0, sqrt(h w) at (0, 0).
    num_positions: images times cells.
    """

    num_images: int
    num_positions: int
    moments: Tensor

    @classmethod
    def of(cls, earlier: Tensor, later: Tensor) -> "PairMoments":
        """Of raw latents of the same images, both (N, C, h, w). Raises ValueError for unlike shapes."""
        if earlier.shape != later.shape or earlier.ndim != 4:
            raise ValueError(f"latents (N, C, h, w) of one shape are needed, found {tuple(earlier.shape)}, {tuple(later.shape)}")
        num_images, _, height, width = earlier.shape
        ones = earlier.new_ones(num_images, 1, height, width)
        with without_autocast(earlier):
            cells = dct2(torch.cat([earlier, later, ones], dim=1).double()).permute(1, 0, 2, 3)        # (2 C + 1, N, h, w)
            num_bands = min(NUM_BANDS, height, width)
            band = band_of_cell(height, width, num_bands).to(earlier.device)
            parts = [cells[..., band == index].flatten(1) for index in range(num_bands)]
            moments = torch.stack([part @ part.T for part in parts])
        return cls(num_images, num_images * height * width, moments.cpu())

    def __add__(self, other: "PairMoments") -> "PairMoments":
        return PairMoments(
            self.num_images + other.num_images, self.num_positions + other.num_positions, self.moments + other.moments
        )

    @property
    def channels(self) -> int:
        return (self.moments.shape[-1] - 1) // 2

    def swapped(self) -> "PairMoments":
        """With earlier and later latents exchanged."""
        c = self.channels
        order = torch.cat([torch.arange(c, 2 * c), torch.arange(c), torch.tensor([2 * c])])
        return PairMoments(self.num_images, self.num_positions, self.moments[:, order][:, :, order])

    def means(self) -> tuple[Tensor, Tensor]:
        """Channel means of the earlier and of the later latents, (C,) each."""
        sums = self.moments.sum(0)[:-1, -1] / self.num_positions
        return sums[: self.channels], sums[self.channels :]

    def covariance(self) -> Tensor:
        """(2 C, 2 C): population covariance of (earlier, later) over images and positions."""
        mean = torch.cat(self.means())
        return self.moments.sum(0)[:-1, :-1] / self.num_positions - mean[:, None] * mean

    def varies(self) -> Tensor:
        """(2 C,) bool: which channels of (earlier, later) are not constant up to rounding."""
        energy = self.moments.sum(0).diagonal()[:-1] / self.num_positions
        return self.covariance().diagonal() > _ROUNDING * energy

    def correlation(self) -> Tensor:
        """(C,): of every earlier channel with the same later one, -1 to 1; 0 if either is constant."""
        c, covariance, varies = self.channels, self.covariance(), self.varies()
        variance = covariance.diagonal()
        found = covariance[:c, c:].diagonal() / (variance[:c] * variance[c:]).sqrt()
        return torch.where(varies[:c] & varies[c:], found, 0.0)

    def residual(self, found: AffineMap) -> Tensor:
        """(bands, C): energy of earlier - found(later), summed over images and cells."""
        rows = torch.cat([AffineMap.identity(self.channels).matrix, -found.matrix, -found.shift[:, None]], dim=1)
        return torch.einsum("ci,bij,cj->bc", rows, self.moments, rows).clamp(min=0)


def fit_channels(pair: PairMoments) -> AffineMap:
    """Least-squares map of every later channel to the same earlier channel. A constant later channel gets scale 0."""
    c, covariance = pair.channels, pair.covariance()
    variance, common = covariance.diagonal()[c:], covariance[:c, c:].diagonal()
    scale = torch.where(pair.varies()[c:], common / variance, 0.0)
    earlier, later = pair.means()
    return AffineMap(scale.diag(), earlier - scale * later)


def fit_linear(pair: PairMoments) -> AffineMap:
    """Least-squares map from all later channels to every earlier channel. Of several equal ones, that of least norm."""
    c, covariance = pair.channels, pair.covariance()
    unit = torch.where(pair.varies()[c:], 1 / covariance.diagonal()[c:].clamp(min=0).sqrt(), 0.0)
    correlation = covariance[c:, c:] * unit[:, None] * unit
    inverse = torch.linalg.pinv(correlation, rtol=_SMALLEST_EIGENVALUE, hermitian=True) * unit[:, None] * unit
    matrix = covariance[:c, c:] @ inverse
    earlier, later = pair.means()
    return AffineMap(matrix, earlier - matrix @ later)


class Unexplained(NamedTuple):
    """Shares of the earlier latents' variance that a map of the later latents misses; 0: none, 1: as much as their mean does.

    total: 0-dim; bands: (bands,); channels: (C,); cells: (bands, C): of a channel in a band. nan without variance. In total and
    bands, channels are weighted.
    """

    total: Tensor
    bands: Tensor
    channels: Tensor
    cells: Tensor


def unexplained(groups: Sequence[PairMoments], found: AffineMap, weights: Tensor) -> tuple[Unexplained, Unexplained]:
    """The shares over all groups of images, and the half-widths of their 95 % intervals, jackknife over groups.

    weights: (C,) of each channel's energy, 1 / std^2 of the normalization of the earlier latents. The interval is that of a fixed
    map; it is infinite for a single group.
    """
    c = groups[0].channels
    tables = (
        torch.stack([one.residual(found) for one in groups]),                                   # (G, bands, C)
        torch.stack([one.moments.diagonal(dim1=1, dim2=2)[:, :c] for one in groups]),           # (G, bands, C)
        torch.stack([one.moments[0, :c, -1] for one in groups]),                                # (G, C)
        torch.tensor([[one.num_positions] for one in groups], dtype=torch.float64),             # (G, 1)
    )

    def shares(residual: Tensor, energy: Tensor, sums: Tensor, count: Tensor) -> Tensor:
        variance = energy.clone()
        variance[:, 0] -= sums.square() / count
        rounding = _ROUNDING * energy.sum(1, keepdim=True)
        return _packed(residual, torch.where(variance > rounding, variance, 0.0), weights)

    value = shares(*(table.mean(0, keepdim=True) for table in tables))[0]
    spread = jackknife_half_widths(shares, *tables) if len(groups) > 1 else torch.full_like(value, math.inf)
    bands = tables[0].shape[1]
    return _unpacked(value, bands, c), _unpacked(spread, bands, c)


def _packed(residual: Tensor, variance: Tensor, weights: Tensor) -> Tensor:
    """Shares of (N, bands, C) energies in the order of `Unexplained`: (N, 1 + bands + C + bands C)."""
    pairs = [
        ((residual * weights).sum((1, 2))[:, None], (variance * weights).sum((1, 2))[:, None]),
        ((residual * weights).sum(2), (variance * weights).sum(2)),
        (residual.sum(1), variance.sum(1)),
        (residual.flatten(1), variance.flatten(1)),
    ]
    missed, whole = (torch.cat(parts, dim=1) for parts in zip(*pairs, strict=True))
    return torch.where(whole > 0, missed / whole, math.nan)


def _unpacked(row: Tensor, bands: int, channels: int) -> Unexplained:
    total, of_bands, of_channels, cells = row.split([1, bands, channels, bands * channels])
    return Unexplained(total[0], of_bands, of_channels, cells.view(bands, channels))
