"""Standard normal noise that is a function of the position in the image: the start of a diffusion decoder.

Every image gets the same noise, so that a decoding is a function of its latents alone: it does not depend on the batch, on the
number of the image, on ranks or on the tile in which it is decoded.
"""

import torch
from torch import Tensor

from smtool.randomness import generator
from smtool.spectrum.dct import constant

BLOCK = 64
"""Side in pixels of the squares that are drawn at once."""


def noise_field(
    channels: int, top: int, left: int, height: int, width: int, *, dtype: torch.dtype, device: torch.device | str
) -> Tensor:
    """The noise (channels, height, width) of the window whose first pixel is (top, left) of the whole image.

    Each number is that of the same channel and pixel in any other window. Raises ValueError for a negative place.
    """
    if min(top, left) < 0:
        raise ValueError(f"a window begins at row and column 0 or later, but is at {top}, {left}")
    rows, columns = (range(first // BLOCK, -(-(first + side) // BLOCK)) for first, side in ((top, height), (left, width)))
    found = torch.cat(
        [torch.cat([_block(row, column, channels, dtype=dtype, device=device) for column in columns], -1) for row in rows], -2
    )
    top, left = top - rows.start * BLOCK, left - columns.start * BLOCK
    return found[:, top : top + height, left : left + width]


@constant
def _block(row: int, column: int, channels: int) -> Tensor:
    drawn = generator("noise of a diffusion decoder", row, column)
    return torch.randn(channels, BLOCK, BLOCK, generator=drawn, dtype=torch.float64)
