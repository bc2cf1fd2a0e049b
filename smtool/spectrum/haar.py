"""The orthonormal Haar wavelet transform of images, over several levels."""

from typing import NamedTuple

import torch
from torch import Tensor


class HaarBands(NamedTuple):
    """low: (..., ceil(H / 2^levels), ceil(W / 2^levels)). high: by level, finest first, (..., 3, ceil(H / 2^l), ceil(W / 2^l)).

    The three detail bands of a level are the differences along the width, along the height, and along both.
    """

    low: Tensor
    high: tuple[Tensor, ...]


def haar_bands(x: Tensor, levels: int = 1) -> HaarBands:
    """Decompose x (..., H, W) into the bands of `levels` levels; dtype and gradient are those of x.

    A block of 2x2 pixels a b / c d gives the low band (a + b + c + d) / 2 and the details (a - b + c - d) / 2,
    (a + b - c - d) / 2 and (a - b - c + d) / 2, so that for even sides the sum of squares is kept. The next level decomposes the
    low band. An odd side is continued by a repetition of its last row or column, as in PyWavelets' mode "symmetric".
    Source: Mallat, A wavelet tour of signal processing, chapter 7. Raises ValueError for levels below 1 and for sides below
    2^levels.
    """
    if levels < 1 or min(x.shape[-2:]) < 2**levels:
        height, width = x.shape[-2:]
        raise ValueError(f"{levels} Haar levels need levels >= 1 and sides of at least 2^levels, but x is {height}x{width}")
    details = []
    for _ in range(levels):
        x = _even(x)
        a, b = x[..., ::2, ::2], x[..., ::2, 1::2]
        c, d = x[..., 1::2, ::2], x[..., 1::2, 1::2]
        details.append(torch.stack([a - b + c - d, a + b - c - d, a - b - c + d], -3) / 2)
        x = (a + b + c + d) / 2
    return HaarBands(x, tuple(details))


def _even(x: Tensor) -> Tensor:
    """x with its last row and column repeated where a side is odd."""
    height, width = x.shape[-2:]
    if height % 2:
        x = torch.cat([x, x[..., -1:, :]], -2)
    if width % 2:
        x = torch.cat([x, x[..., -1:]], -1)
    return x
