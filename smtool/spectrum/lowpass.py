"""The block-wise low-pass of Decoding Spectrum Matching (DSM): an orthogonal projection of every block x block tile."""

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from smtool.devices import to_device
from smtool.spectrum.dct import constant, dct2, dct_matrix, full_precision, idct2, without_autocast

Shape = Literal["triangle", "square"]
LARGEST_PROJECTOR = 16
"""Up to this block size a tile is multiplied by one matrix of side block^2; a larger one is transformed, masked and transformed
back."""


def block_low_pass(x: Tensor, rows_removed: int | Tensor, *, block: int = 8, shape: Shape = "triangle") -> Tensor:
    """Zero the high-frequency DCT coefficients of every block x block tile of x.

    x: (B, C, H, W), H and W divisible by `block`. Returns the same shape and dtype; computed in float32 or float64.
    rows_removed: n, the number of anti-diagonals removed at the high-frequency corner (0 returns x), or an integer tensor (B,)
    with one n per sample. shape: see `low_pass_mask`. The map is linear, symmetric and idempotent, so the gradient is the same
    map of the incoming gradient.

    Raises ValueError if x is not 4-D or not divisible into blocks, or if rows_removed is out of range.
    Source: paper section 3.3 (arXiv 2603.14645) and released code (released-code.md#dsm).
    """
    _check_tiling(x, block)
    if isinstance(rows_removed, Tensor):
        return _low_pass_per_sample(x, rows_removed, block, shape)
    _check_rows(rows_removed, block, shape)
    if rows_removed == 0:
        return x
    if block > LARGEST_PROJECTOR:
        return _masked(x, to_device(low_pass_mask(block, rows_removed, shape=shape), x.device))
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    return _Projection.apply(x, _projector(block, rows_removed, shape, dtype=dtype, device=x.device))


def low_pass_mask(block: int, rows_removed: int, *, shape: Shape = "triangle") -> Tensor:
    """(block, block) bool on the CPU: True where the coefficient of vertical frequency u and horizontal frequency v is kept.

    "triangle": keeps u + v < 2 block - 1 - n, with n from 0 (all are kept) to 2 block - 2 (DC only). These are the released
    masks (released-code.md#dsm).
    "square": keeps u < block - n and v < block - n, with n from 0 to block - 1. n = block / 2 is 2x downsampling (paper A.4):
    the kept block / 2 x block / 2 coefficients, halved, are the DCT of the ideally downsampled tile, and the low-passed tile is
    the interpolation of that smaller tile.
    Raises ValueError for n outside these ranges.
    """
    _check_rows(rows_removed, block, shape)
    index = torch.arange(block, device="cpu")
    if shape == "triangle":
        return index[:, None] + index < 2 * block - 1 - rows_removed
    return (index[:, None] < block - rows_removed) & (index < block - rows_removed)


def fit_cutoff(side: int, rows_removed: int, *, shape: Shape = "triangle") -> tuple[int, int]:
    """(block, rows_removed) for a grid of this side that correspond to `rows_removed` in blocks of 8: `block = "fit"`.

    Blocks are b = min(8, side) cells wide. A triangle keeps T = 15 - n of the 15 anti-diagonals of an 8x8 block; of the 2b - 1
    of a smaller block it keeps the integer nearest to T (2b - 1) / 15, at least one. A square keeps (8 - n) b / 8 rows and
    columns, rounded, at least one. Raises ValueError for n outside the range of blocks of 8.
    """
    _check_rows(rows_removed, 8, shape)
    block = min(8, side)
    full, wide = (15, 2 * block - 1) if shape == "triangle" else (8, block)
    kept = max(1, (2 * (full - rows_removed) * wide + full) // (2 * full))
    return block, wide - kept


def fitted_low_pass(x: Tensor, rows_removed: int | Tensor, *, shape: Shape = "triangle") -> Tensor:
    """`block_low_pass` with the blocks of `fit_cutoff`: 8 cells, or the shorter side of x where that is less."""
    side = min(x.shape[-2:])
    if not isinstance(rows_removed, Tensor):
        block, rows = fit_cutoff(side, rows_removed, shape=shape)
        return block_low_pass(x, rows, block=block, shape=shape)
    fitted = [fit_cutoff(side, n, shape=shape)[1] for n in _cutoffs(rows_removed, len(x))]
    return block_low_pass(x, rows_removed.new_tensor(fitted), block=min(8, side), shape=shape)


@constant
def _projector(block: int, rows_removed: int, shape: Shape) -> Tensor:
    """DCT, mask and inverse DCT of a tile as one matrix, (block^2, block^2), for pixels listed row by row."""
    dct = torch.kron(*[dct_matrix(block, dtype=torch.float64)] * 2)
    return dct.T @ (low_pass_mask(block, rows_removed, shape=shape).flatten()[:, None] * dct)


class _Projection(torch.autograd.Function):
    """Multiply every tile by a symmetric matrix; the gradient is multiplied by the same matrix."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, projector: Tensor) -> Tensor:
        ctx.save_for_backward(projector)
        with without_autocast(x):
            return _project(full_precision(x).contiguous(), projector).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Projection.apply(grad, *ctx.saved_tensors), None


def _project(x: Tensor, projector: Tensor) -> Tensor:
    """x: (B, C, H, W), contiguous; projector: (block^2, block^2).

    In memory, a strip of tiles is a channels-last image of `block` rows, W / block columns and `block` channels. On a CPU, one
    convolution with a kernel as high as the strip reads x without a copy. It is 2.5 times as fast as reordering x and a matrix
    product.
    """
    block = math.isqrt(len(projector))
    strips = x.view(-1, block, x.shape[-1] // block, block)
    if x.device.type == "cpu":
        kernel = projector.view(-1, block, 1, block).permute(0, 3, 1, 2)
        low = F.conv2d(strips.permute(0, 3, 1, 2), kernel).permute(0, 2, 3, 1)
    else:
        low = strips.transpose(1, 2).flatten(2) @ projector
    return low.reshape(-1, x.shape[-1] // block, block, block).transpose(1, 2).reshape(x.shape)


def _masked(x: Tensor, mask: Tensor) -> Tensor:
    tiles = x.unflatten(-1, (-1, len(mask))).unflatten(-3, (-1, len(mask))).transpose(-3, -2)
    return idct2(dct2(tiles) * mask).transpose(-3, -2).reshape(x.shape).to(x.dtype)


def _low_pass_per_sample(x: Tensor, rows_removed: Tensor, block: int, shape: Shape) -> Tensor:
    cutoffs = _cutoffs(rows_removed, len(x))
    low = x.clone()
    for n in sorted(set(cutoffs) - {0}):
        chosen = [sample for sample, cutoff in enumerate(cutoffs) if cutoff == n]
        samples = to_device(torch.tensor(chosen, device="cpu"), x.device)
        low.index_copy_(0, samples, block_low_pass(x[samples], n, block=block, shape=shape))
    return low


def _cutoffs(rows_removed: Tensor, batch: int) -> list[int]:
    if rows_removed.shape != (batch,) or rows_removed.is_floating_point():
        found = f"{rows_removed.dtype} of shape {tuple(rows_removed.shape)}"
        raise ValueError(f"rows_removed must be an integer or an integer tensor of shape ({batch},), but is {found}")
    return rows_removed.tolist()


def _check_tiling(x: Tensor, block: int) -> None:
    if x.ndim != 4:
        raise ValueError(f"block_low_pass takes (B, C, H, W), but got a tensor of shape {tuple(x.shape)}")
    height, width = x.shape[-2:]
    if height % block or width % block:
        raise ValueError(
            f"{height}x{width} cannot be tiled by blocks of {block}: both sides must be multiples of {block}. "
            f'`block = "fit"` takes min(8, side) instead.'
        )


def _check_rows(rows_removed: int, block: int, shape: Shape) -> None:
    most = 2 * block - 2 if shape == "triangle" else block - 1
    if not 0 <= rows_removed <= most:
        raise ValueError(f"rows_removed must lie in 0 ... {most} for a {shape} in blocks of {block}, but is {rows_removed}")
