"""Shift equivariance of an autoencoder, measured by three errors. Each error alone is 0 for some useless autoencoder.

Shifts go down and to the right by the same distance. The border is filled with the mirrored image (half-sample symmetric, as in
the DCT), so that networks of a fixed input size can be measured too; two cells at every border are left out. A circular shift of
images that are mirrored to twice their sides is four times the work and gives the same errors within 15 %, except for decoders
that mix the whole frame. The errors depend on the photographs and on the shift k: nearest upsampling has .09 to .14 here, and .14
in the table of spectrum.md#health. The order of the control autoencoders is the same.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from smtool.spectrum.dct import apply_both, constant, dct_matrix, full_precision, without_autocast

MARGIN = 2
"""Cells left out at every border."""
Network = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class LatentShift:
    """The third error alone, for networks without a decoder: `value` = error / variance. `a + b` joins two sets of images.

    error: squared error of the latents. variance: mean variance of the latents' channels. Both are sums over images.
    """

    error: float
    variance: float

    def __add__(self, other: "LatentShift") -> "LatentShift":
        return LatentShift(self.error + other.error, self.variance + other.variance)

    @property
    def value(self) -> float:
        """error / variance; nan if the latents do not vary."""
        return self.error / self.variance if self.variance > 0 else math.nan


@dataclass(frozen=True)
class ShiftErrors:
    """Three squared errors, each relative to the variance of the compared images or latents: 0 is perfect, 2 is unrelated images.

    The properties `reconstruction`, `whole_cell` and `latent` are the errors. The fields are sums over images; `a + b` joins two
    sets of images.
    """

    reconstruction_error: float
    whole_cell_error: float
    image_variance: float
    latent_shift: LatentShift

    def __add__(self, other: "ShiftErrors") -> "ShiftErrors":
        return ShiftErrors(
            self.reconstruction_error + other.reconstruction_error,
            self.whole_cell_error + other.whole_cell_error,
            self.image_variance + other.image_variance,
            self.latent_shift + other.latent_shift,
        )

    @property
    def reconstruction(self) -> float:
        """R(x shifted by k pixels), shifted back, compared with R(x), where k is less than a cell. Space-to-depth has 0."""
        return self.reconstruction_error / self.image_variance

    @property
    def whole_cell(self) -> float:
        """D(z shifted by one cell) compared with D(z) shifted by f pixels. Every convolutional decoder has about 0."""
        return self.whole_cell_error / self.image_variance

    @property
    def latent(self) -> float:
        """E(x shifted by k pixels) compared with E(x) shifted by k / f cells, relative to the mean variance of the channels."""
        return self.latent_shift.value


def shift_errors(encode: Network, decode: Network, images: Tensor, *, downsample: int, batch: int = 16) -> ShiftErrors:
    """The three errors on images (N, C, H, W), with a shift of k = `shift_of(downsample)` pixels.

    encode: maps images to latents (B, C, h, w) without noise (posterior means). decode: maps latents to images of the encoded
    size. Both are called in float32 (float64 stays), on `batch` images at a time: 2 encodings and 3 decodings of every image.
    images: 16 are enough. downsample: f, 2 or more, image pixels per latent cell.

    Raises ValueError for fewer than 5 cells a side (nothing is left inside the margin), for decoded images of another size, and
    if the images do not vary. Source: spectrum.md#health.
    """
    total = ShiftErrors(0.0, 0.0, 0.0, LatentShift(0.0, 0.0))
    with torch.no_grad(), without_autocast(images):
        for x in full_precision(images).split(batch):
            total += _errors_of(encode, decode, x, downsample)
    if not total.image_variance > 0:
        raise ValueError("the images do not vary: a shift changes nothing")
    return total


def latent_shift(encode: Network, images: Tensor, *, downsample: int, batch: int = 16) -> LatentShift:
    """The third error of `shift_errors` alone, for networks without a decoder. Arguments and errors as there."""
    total = LatentShift(0.0, 0.0)
    with torch.no_grad(), without_autocast(images):
        for x in full_precision(images).split(batch):
            moved = encode(shifted(x, shift_of(downsample)))
            total += _latent_shift(full_precision(encode(x)), full_precision(moved), downsample)
    return total


def shift_of(downsample: int) -> int:
    """The shift k in pixels: a quarter of a cell, at least 1 pixel (f = 4: 1, 8: 2, 16: 4).

    The size is this project's choice. Raises ValueError for downsample < 2.
    """
    if downsample < 2:
        raise ValueError(f"a shift by a part of a cell needs cells of 2 pixels or more, but downsample is {downsample}")
    return max(1, downsample // 4)


def shifted(x: Tensor, distance: int) -> Tensor:
    """(..., H, W) shifted down and right by whole cells; the border is filled with the mirrored image."""
    for axis in (-2, -1):
        x = torch.cat([x.narrow(axis, 0, distance).flip(axis), x.narrow(axis, 0, x.shape[axis] - distance)], axis)
    return x


def fractionally_shifted(x: Tensor, distance: float) -> Tensor:
    """(..., H, W) shifted down and right by any distance in cells, band-limited.

    The cosines of the DCT are evaluated at n + 1/2 - distance instead of n + 1/2.
    """
    rows, columns = (_moving(side, distance, dtype=x.dtype, device=x.device) for side in x.shape[-2:])
    return apply_both(x, rows, columns)


@constant
def _moving(side: int, distance: float) -> Tensor:
    """The shift of one axis as a matrix, (side, side): DCT, then its cosines at shifted positions."""
    k = torch.arange(side, dtype=torch.float64)
    basis = torch.cos(math.pi / side * k * (k[:, None] + 0.5 - distance)) * math.sqrt(2 / side)
    basis[:, 0] = math.sqrt(1 / side)
    return basis @ dct_matrix(side, dtype=torch.float64)


def _errors_of(encode: Network, decode: Network, x: Tensor, downsample: int) -> ShiftErrors:
    k = shift_of(downsample)
    z, moved = full_precision(encode(x)), full_precision(encode(shifted(x, k)))
    latent = _latent_shift(z, moved, downsample)
    once, again, by_cell = (full_precision(decode(latents)) for latents in (z, moved, shifted(z, 1)))
    if once.shape[-2:] != x.shape[-2:]:
        raise ValueError(f"decode returned {once.shape[-2]}x{once.shape[-1]} images, but the encoded images are "
                         f"{x.shape[-2]}x{x.shape[-1]}")
    margin = MARGIN * downsample
    back = again[..., margin + k : again.shape[-2] - margin + k, margin + k : again.shape[-1] - margin + k]
    return ShiftErrors(
        reconstruction_error=_energy(back - _inside(once, margin)),
        whole_cell_error=_energy(_inside(by_cell, margin) - _inside(shifted(once, downsample), margin)),
        image_variance=x.double().var((1, 2, 3), correction=0).sum().item(),
        latent_shift=latent,
    )


def _latent_shift(z: Tensor, moved: Tensor, downsample: int) -> LatentShift:
    if min(z.shape[-2:]) <= 2 * MARGIN:
        raise ValueError(f"{z.shape[-2]}x{z.shape[-1]} cells leave nothing inside a margin of {MARGIN}: "
                         f"at least {2 * MARGIN + 1} a side are needed, use larger images")
    expected = fractionally_shifted(z, shift_of(downsample) / downsample)
    return LatentShift(
        error=_energy(_inside(moved - expected, MARGIN)),
        variance=z.double().var((2, 3), correction=0).mean(1).sum().item(),
    )


def _inside(x: Tensor, margin: int) -> Tensor:
    return x[..., margin : x.shape[-2] - margin, margin : x.shape[-1] - margin]


def _energy(x: Tensor) -> float:
    """Mean square of each image, summed over images."""
    return x.double().square().mean((1, 2, 3)).sum().item()
