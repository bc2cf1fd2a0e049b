"""Radial power spectra: DCT power per cell, averaged over rings, one row per image."""

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from smtool.spectrum.dct import constant, dct2, full_precision, without_autocast
from smtool.spectrum.downsample import shrunk_dct
from smtool.spectrum.estimators import EPS, Estimator

Size = tuple[int, int]
FEW_CELLS = 64 * 64
"""Up to this number of cells the ring means are one matrix product; for larger grids, whose matrix would be too large, the cells
are summed by index."""


@dataclass(frozen=True)
class Spectrum:
    """The ring powers of a set of images, one row per image, because every interval is computed from the spread over images.

    frequency: (bins,), cycles per pixel (PHYSICAL) or bin number 1, 2, ... (REFERENCE).
    power: (N, bins), ring means per image, mean over channels, in units of x**2, before log and normalization.
    count: (bins,), cells per ring. All three are float64 on the CPU.
    size: (h, w) of the grid of the rings. source: (H, W) of the image or latent that was transformed; it differs from size only
    where an image was measured at a latent's size. `len` is N; `a + b` joins the rows of two spectra.
    """

    frequency: Tensor
    power: Tensor
    count: Tensor
    estimator: Estimator
    size: Size
    source: Size

    def __len__(self) -> int:
        return len(self.power)

    def __add__(self, other: "Spectrum") -> "Spectrum":
        """Join the images of two spectra. Raises ValueError unless estimator, size and source are equal."""
        mine, theirs = ((s.estimator.label, s.size, s.source) for s in (self, other))
        if mine != theirs:
            raise ValueError(f"spectra with different rings cannot be joined: {mine} and {theirs}")
        return Spectrum(self.frequency, torch.cat([self.power, other.power]), self.count, self.estimator, self.size, self.source)

    def mean(self) -> Tensor:
        """(bins,): the set-averaged spectrum."""
        return self.power.mean(0)


def spectrum_of(x: Tensor, estimator: Estimator, size: Size | None = None) -> Spectrum:
    """The spectrum of images or latents (B, C, H, W), without gradient. `size` and errors as in `radial_power`."""
    with torch.no_grad():
        power = radial_power(x, estimator, size).cpu().double()
    source = (x.shape[-2], x.shape[-1])
    frequency, count = ring_frequency(*(size or source), estimator)
    return Spectrum(frequency, power, count, estimator, size or source, source)


def radial_power(x: Tensor, estimator: Estimator, size: Size | None = None) -> Tensor:
    """Mean DCT power per ring, (B, C, H, W) -> (B, bins), before log and normalization; float32 or float64, differentiable.

    size: (h, w) of the latent that an image is compared with; estimator.downsample says how the image is reduced to it. None
    measures x at its own size. PHYSICAL power is in units of x**2: white noise of variance 1 has power 1 in every ring.

    Raises ValueError if x is not 4-D, if the grid is too small for PHYSICAL rings, or if x is smaller than `size` ("dct-crop").
    Source: released code (released-code.md#esm) for REFERENCE, spectrum.md#power-spectrum for PHYSICAL.
    """
    return ring_means(dct_power(x, estimator, size), estimator)


def ring_means(power: Tensor, estimator: Estimator) -> Tensor:
    """Means over rings, (B, bins), of the power per cell, (B, h, w)."""
    size = (power.shape[-2], power.shape[-1])
    if size[0] * size[1] <= FEW_CELLS:
        with without_autocast(power):
            return power.flatten(1) @ _ring_matrix(*size, estimator, dtype=power.dtype, device=power.device)
    ring = _rings(*size, estimator, dtype=torch.int64, device=power.device)
    count = cells_per_ring(*size, estimator, dtype=power.dtype, device=power.device)
    total = power.new_zeros(len(power), len(count) + 1).index_add(1, ring, power.flatten(1))
    return total[:, :-1] / (count + _counting_eps(estimator))


def dct_power(x: Tensor, estimator: Estimator, size: Size | None = None) -> Tensor:
    """DCT power per cell, mean over channels: (B, C, H, W) -> (B, h, w). `size` as in `radial_power`.

    REFERENCE limits the power to at least 1e-8.
    """
    if x.ndim != 4:
        raise ValueError(f"a spectrum is taken of (B, C, H, W), but got a tensor of shape {tuple(x.shape)}")
    with without_autocast(x):
        coefficients = dct2(x) if size is None else shrunk_dct(full_precision(x), size, estimator.downsample)
        power = (coefficients * coefficients).mean(1)
    return power.clamp(min=EPS) if estimator.name == "reference" else power


def ring_frequency(height: int, width: int, estimator: Estimator) -> tuple[Tensor, Tensor]:
    """(frequency, number of cells) of each ring of a height x width grid, both (bins,) float64.

    PHYSICAL: geometric mean over the ring's cells, in cycles per pixel. REFERENCE: the bin number 1, 2, ..., which is the f of
    f^delta; the number of cells includes cell (0, 0).
    """
    ring, count = cell_rings(height, width, estimator)
    if estimator.name == "reference":
        return torch.arange(1, len(count) + 1, dtype=torch.float64, device="cpu"), count.clone()
    radius = _squared_radius(height, width).clamp(min=1).double().sqrt() / (2 * height * width)
    sums = count.new_zeros(len(count) + 1).index_add(0, ring, radius.log().flatten())
    return (sums[:-1] / count).exp(), count.clone()


@constant
def _ring_matrix(height: int, width: int, estimator: Estimator) -> Tensor:
    """The matrix (cells, bins) that averages over rings."""
    ring, count = cell_rings(height, width, estimator)
    member = F.one_hot(ring, len(count) + 1)[:, :-1].double()
    return member / (count + _counting_eps(estimator))


@constant
def cells_per_ring(height: int, width: int, estimator: Estimator) -> Tensor:
    """(bins,): number of cells of each ring."""
    return cell_rings(height, width, estimator)[1]


@constant
def _rings(height: int, width: int, estimator: Estimator) -> Tensor:
    """(cells,) int64: ring of each cell."""
    return cell_rings(height, width, estimator)[0]


def _counting_eps(estimator: Estimator) -> float:
    return EPS if estimator.name == "reference" else 0.0


@lru_cache(maxsize=64)
def cell_rings(height: int, width: int, estimator: Estimator) -> tuple[Tensor, Tensor]:
    """(ring of each cell, row by row, int64; the index after the last ring means no ring) and (cells per ring, float64).

    REFERENCE without DC still counts cell (0, 0), because the released code only sets its power to zero.
    """
    with torch.inference_mode(False), torch.device("cpu"):
        if estimator.name == "reference":
            assert estimator.bins is not None
            ring, bins = _reference_rings(height, width, estimator.bins), estimator.bins
        else:
            ring, bins = _physical_rings(height, width)
        count = torch.bincount(ring.flatten(), minlength=bins + 1)[:bins]
        if estimator.name == "physical" and bool((count == 0).any()):
            raise ValueError(f"a {height}x{width} grid is too small for PHYSICAL rings: some of its {bins} rings hold no cell")
        if not estimator.keep_dc:
            ring[0, 0] = bins
        return ring.flatten(), count.double()


def _squared_radius(height: int, width: int) -> Tensor:
    """(height, width): (2 height width r)^2 as integers, r in cycles per pixel."""
    u, v = torch.arange(height, device="cpu") * width, torch.arange(width, device="cpu") * height
    return (u**2)[:, None] + v**2


def _reference_rings(height: int, width: int, bins: int) -> Tensor:
    """min(floor(r / r_max * bins), bins - 1) with r^2 = i^2 + j^2, by the float32 operations of the released `radial_bin_map`.

    For cells on the edge between two bins, the rounding of these operations decides: at sides 57, 113 and 125 a few cells are in
    another bin than in exact arithmetic.
    """
    radius = ((torch.arange(height) ** 2)[:, None] + torch.arange(width) ** 2).float().sqrt()
    return (radius / radius[-1, -1].clamp(min=1) * bins).floor().long().clamp(max=bins - 1)


def _physical_rings(height: int, width: int) -> tuple[Tensor, int]:
    """(ring of each cell, number of rings). DC and the corners beyond 0.5 cycles per pixel get the index after the last ring.

    In units of half a cycle per frame of the shorter side n (0.5 / n cycles per pixel): rings of width 1 centred on 1 ... 8, then
    6 per octave, at least 1 wide, up to n. A last ring narrower than half a unit is merged with its neighbour.
    """
    side = min(height, width)
    edges = [k + 0.5 for k in range(1, 9) if k + 0.5 < side]
    while edges and edges[-1] >= 8.5 and (edge := max(edges[-1] * 2 ** (1 / 6), edges[-1] + 1)) < side:
        edges.append(edge)
    if len(edges) > 1 and side - edges[-1] < 0.5:
        edges.pop()
    squared = _squared_radius(height, width)
    radius = squared.double().sqrt() * side / (height * width)
    ring = torch.bucketize(radius, torch.tensor(edges, dtype=torch.float64), right=True)
    outside = squared > (height * width) ** 2
    outside[0, 0] = True
    return ring.masked_fill(outside, len(edges) + 1), len(edges) + 1
