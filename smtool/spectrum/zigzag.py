"""The zig-zag order of DCT coefficients, and the low-pass that keeps the first of them."""

import torch
from torch import Tensor

from smtool.spectrum.dct import constant, dct2, idct2


def zigzag_rank(height: int, width: int) -> Tensor:
    """(height, width) int64: the place, from 0, of each coefficient in the order (0,0), (1,0), (0,1), (0,2), (1,1), (2,0), ...

    Anti-diagonals of even u + v run with growing row u, odd ones with falling u: JPEG's order, transposed
    (released-code.md#uae). A rectangle has the same order without the cells outside it.
    """
    cells = [(u, v) for u in range(height) for v in range(width)]
    cells.sort(key=lambda cell: (sum(cell), cell[0] if sum(cell) % 2 == 0 else -cell[0]))
    ranks = torch.empty(height, width, dtype=torch.int64, device="cpu")
    for rank, cell in enumerate(cells):
        ranks[cell] = rank
    return ranks


def zigzag_low_pass(x: Tensor, kept: Tensor) -> Tensor:
    """Zero all but the first `kept` coefficients of the DCT of the whole grid.

    x: (B, C, h, w), float32 or float64; kept: (B,) int64, one number for each sample. Returns the shape of x.
    """
    ranks = _ranks(*x.shape[-2:], dtype=torch.int64, device=x.device)
    return idct2(dct2(x) * (ranks < kept.to(x.device).view(-1, 1, 1, 1)))


_ranks = constant(zigzag_rank)
