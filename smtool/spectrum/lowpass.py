"""The block-wise low-pass of Decoding Spectrum Matching: an orthogonal projection in every b x b block."""

from typing import Literal

import torch
from torch import Tensor

from smtool.spectrum.dct import constant, dct_matrix, full_precision, without_autocast

Shape = Literal["triangle", "square"]


def block_low_pass(x: Tensor, rows_removed: int | Tensor, *, block: int = 8, shape: Shape = "triangle") -> Tensor:
    """Zero the high DCT coefficients of every block x block tile of x.

    x: (B, C, H, W), H and W divisible by `block`. Returns the same shape and dtype; computed in float32 at least.
    rows_removed: n, the anti-diagonals taken off the far corner (0: x itself), or an int64 tensor (B,) with one n per sample.
    shape: see `low_pass_mask`. Source: released code and paper section 3.3 (facts 4.1). Oracle: scipy's dctn tile by tile.
    The map is linear, symmetric and idempotent: its gradient is itself.
    """
    _check_tiling(x, block)
    if isinstance(rows_removed, int):
        low_pass_mask(block, rows_removed, shape=shape)
        if rows_removed == 0:
            return x
        return _project(x, _projector(block, rows_removed, shape, dtype=_maths(x), device=x.device), block)
    return _low_pass_per_sample(x, rows_removed, block, shape)


def low_pass_mask(block: int, rows_removed: int, *, shape: Shape = "triangle") -> Tensor:
    """(block, block) bool, True where the coefficient of vertical frequency u and horizontal frequency v is kept.

    "triangle": u + v < 2 block - 1 - n, for n = 0 (all) ... 2 block - 2 (DC only): the released masks.
    "square": u < block - n and v < block - n, for n = 0 ... block - 1: the top-left rule under which n = block / 2 is 2x
    downsampling (paper A.4): the kept block / 2 x block / 2 coefficients, halved, are the DCT of the ideally downsampled tile.
    """
    most = 2 * block - 2 if shape == "triangle" else block - 1
    if not 0 <= rows_removed <= most:
        raise ValueError(f"rows_removed must lie in 0 ... {most} for a {shape} in blocks of {block}, but is {rows_removed}")
    index = torch.arange(block)
    if shape == "triangle":
        return index[:, None] + index < 2 * block - 1 - rows_removed
    return (index[:, None] < block - rows_removed) & (index < block - rows_removed)


def fit_cutoff(side: int, rows_removed: int, *, shape: Shape = "triangle") -> tuple[int, int]:
    """`block = "fit"`: the (block, rows_removed) for a latent of this side that stand for `rows_removed` in blocks of 8.

    Blocks are min(8, side) wide. Of the 15 anti-diagonals of an 8x8 block, T = 15 - n are kept; of the 2b - 1 of a smaller block
    the nearest whole number to T (2b - 1) / 15, and at least one. A square keeps (8 - n) b / 8 rows and columns, at least one.
    """
    low_pass_mask(8, rows_removed, shape=shape)
    block = min(8, side)
    full, wide = (15, 2 * block - 1) if shape == "triangle" else (8, block)
    kept = max(1, (2 * (full - rows_removed) * wide + full) // (2 * full))
    return block, wide - kept


def fitted_low_pass(x: Tensor, rows_removed: int | Tensor, *, shape: Shape = "triangle") -> Tensor:
    """`block_low_pass` under the rule of `fit_cutoff`: a side of 8 or more as ever, a smaller one in blocks of its own size."""
    side = min(x.shape[-2:])
    if isinstance(rows_removed, int):
        block, rows = fit_cutoff(side, rows_removed, shape=shape)
        return block_low_pass(x, rows, block=block, shape=shape)
    _check_cutoffs(rows_removed, len(x), 8, shape)
    rows_of = [fit_cutoff(side, n, shape=shape)[1] for n in range(15 if shape == "triangle" else 8)]
    fitted = torch.tensor(rows_of, device=rows_removed.device)[rows_removed]
    return block_low_pass(x, fitted, block=min(8, side), shape=shape)


@constant
def _projector(block: int, rows_removed: int, shape: Shape) -> Tensor:
    """(block^2, block^2): DCT, mask, inverse DCT of a tile whose pixels are listed row by row."""
    dct = torch.kron(*[dct_matrix(block, dtype=torch.float64)] * 2)
    return dct.T @ (low_pass_mask(block, rows_removed, shape=shape).flatten()[:, None] * dct)


def _project(x: Tensor, projector: Tensor, block: int) -> Tensor:
    batch, channels, height, width = x.shape
    with without_autocast(x):
        tiles = full_precision(x).reshape(batch, channels, height // block, block, width // block, block).transpose(3, 4)
        low = tiles.reshape(batch, -1, block * block) @ projector
        return low.view_as(tiles).transpose(3, 4).reshape(x.shape).to(x.dtype)


def _low_pass_per_sample(x: Tensor, rows_removed: Tensor, block: int, shape: Shape) -> Tensor:
    _check_cutoffs(rows_removed, len(x), block, shape)
    values = [int(n) for n in rows_removed.tolist()]
    projectors = torch.stack([_projector(block, n, shape, dtype=_maths(x), device=x.device) for n in values])
    return torch.where((rows_removed == 0).to(x.device)[:, None, None, None], x, _project(x, projectors, block))


def _check_tiling(x: Tensor, block: int) -> None:
    if x.ndim != 4:
        raise ValueError(f"block_low_pass takes (B, C, H, W), but got a tensor of shape {tuple(x.shape)}")
    height, width = x.shape[-2:]
    if height % block or width % block:
        raise ValueError(
            f"{height}x{width} cannot be tiled by blocks of {block}: both sides must be multiples of {block}. "
            f'`block = "fit"` takes min(8, side) instead.'
        )


def _check_cutoffs(rows_removed: Tensor, batch: int, block: int, shape: Shape) -> None:
    if rows_removed.shape != (batch,) or rows_removed.is_floating_point():
        found = f"{rows_removed.dtype} of shape {tuple(rows_removed.shape)}"
        raise ValueError(f"rows_removed must be an integer or an integer tensor of shape ({batch},), but is {found}")
    for n in {int(n) for n in rows_removed.tolist()}:
        low_pass_mask(block, n, shape=shape)


def _maths(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32
