"""The DCT of an image downsampled to a latent's size. Blur, resampling and DCT are linear: one small matrix for each axis."""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from smtool.spectrum.dct import apply_both, constant, dct2, dct_matrix

RELEASED_BLUR = (7, 1.2)
"""Taps and sigma of the Gaussian blur that the released code applies before resampling, unless the latent is 32 cells high."""


def shrunk_dct(x: Tensor, size: tuple[int, int], downsample: str) -> Tensor:
    """Orthonormal DCT of x downsampled to `size`: (B, C, H, W) -> (B, C, h, w). Autocast must be off.

    downsample: as in `Estimator`; "dct-crop" is ideal downsampling, the low DCT cells times sqrt(h w / (H W)).
    Source: released code (released-code.md#esm) and spectrum.md#delta.
    """
    method = downsample + ", blurred" * (downsample == "released" and size[0] != 32)
    axes = [(side, target, method) for side, target in zip(x.shape[-2:], size, strict=True)]
    used = [_pixels_used(*axis) for axis in axes]
    if used[0] is None or used[1] is None:
        return apply_both(x, *(_shrinking_dct(*axis, dtype=x.dtype, device=x.device) for axis in axes))
    rows, columns = (_taps(*axis, dtype=x.dtype, device=x.device) for axis in axes)
    shrunk = rows @ x.reshape(*x.shape[:2], size[0], -1, x.shape[-1])[..., used[0], :]
    return dct2(shrunk.view(*shrunk.shape[:-1], size[1], -1)[..., used[1]] @ columns)


@constant
def _shrinking_dct(side: int, target: int, method: str) -> Tensor:
    """Resampling and DCT of one axis as one matrix: (target, side)."""
    if method == "dct-crop":
        if target > side:
            raise ValueError(f"an image side of {side} pixels has no {target} low DCT cells: the latent must not be larger")
        return dct_matrix(side, dtype=torch.float64)[:target] * (target / side) ** 0.5
    return dct_matrix(target, dtype=torch.float64) @ _shrinking(side, target, method)


@constant
def _taps(side: int, target: int, method: str) -> Tensor:
    """The weights of the pixels that `_pixels_used` selects."""
    return _shrinking(side, target, method)[0, _pixels_used(side, target, method)]


@lru_cache(maxsize=64)
def _pixels_used(side: int, target: int, method: str) -> slice | None:
    """The pixels that contribute to a downsampled cell, within the cell's own side / target pixels.

    None unless every cell is the same weighted sum over its own pixels. At the released sizes it is: a cell uses 4 of 8 pixels
    for f8 and 10 of 16 for f16 with its blur, so the other rows of the image need not be read.
    """
    if method == "dct-crop" or side % target:
        return None
    with torch.device("cpu"):
        matrix = _shrinking(side, target, method)
        cell = matrix[0, : side // target]
        if not torch.allclose(matrix, torch.kron(torch.eye(target, dtype=torch.float64), cell), rtol=0, atol=1e-15):
            return None
        used = cell.nonzero()
        return slice(int(used[0]), int(used[-1]) + 1)


def _shrinking(side: int, target: int, method: str) -> Tensor:
    """Blur and bicubic resampling of one axis as one matrix: (target, side)."""
    image = _blur(side) if method.endswith("blurred") else torch.eye(side, dtype=torch.float64)
    shrunk = F.interpolate(
        image[None, None], size=(target, side), mode="bicubic", align_corners=False, antialias=method == "antialias"
    )
    return shrunk[0, 0]


def _blur(side: int) -> Tensor:
    """Blur of one axis as a matrix, (side, side): a Gaussian whose taps sum to 1, with zeros beyond the border."""
    size, sigma = RELEASED_BLUR
    distance = torch.arange(side)[:, None] - torch.arange(side)
    taps = torch.exp(-((torch.arange(size, dtype=torch.float64) - size // 2) ** 2) / (2 * sigma**2))
    gaussian = torch.exp(-(distance.double() ** 2) / (2 * sigma**2)) / taps.sum()
    return gaussian.masked_fill(distance.abs() > size // 2, 0.0)
