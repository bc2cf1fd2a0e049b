"""Enlarging images by the DCT of blocks: the inverse of averaging neighbours, exact where a block has low frequencies only.

Source: the upsampling of DCTdiff (arXiv 2412.15032) and its released code, for blocks of 4 and a factor of 2.
"""

import math

import torch
from torch import Tensor

from smtool.spectrum.dct import apply_both, constant, dct_matrix, full_precision, without_autocast


def dct_upsample(images: Tensor, factor: int = 2, block: int = 4) -> Tensor:
    """Images (..., H, W) -> (..., factor H, factor W), float32 or float64, in the same unit; values may go beyond their range.

    The coefficient (i, j) of a B x B block becomes that of a block of factor B, divided by the gain with which averaging
    neighbours passes it; the higher coefficients are 0. Averages of the result over factor x factor pixels are therefore the
    images again. All channels are enlarged alike: colour spaces make no difference, because everything is linear.
    Raises ValueError if blocks do not tile the images, or for a factor or block below 1.
    """
    if factor < 1 or block < 1:
        raise ValueError(f"factor and block must be at least 1, but are {factor} and {block}")
    height, width = images.shape[-2:]
    if height % block or width % block:
        raise ValueError(f"{height}x{width} cannot be tiled by blocks of {block}: both sides must be multiples of {block}")
    images = full_precision(images)
    matrix = _enlarging(factor, block, dtype=images.dtype, device=images.device)
    with without_autocast(images):
        blocks = images.unflatten(-1, (-1, block)).unflatten(-3, (-1, block)).transpose(-3, -2)   # (..., h, w, block, block)
        return apply_both(blocks, matrix, matrix).transpose(-3, -2).flatten(-2).flatten(-3, -2)


@constant
def _enlarging(factor: int, block: int) -> Tensor:
    """(factor * block, block): one axis of a block to the pixels of the larger block."""
    angle = torch.arange(block, dtype=torch.float64) * math.pi / (2 * factor * block)
    gain = torch.ones(block, dtype=torch.float64)      # of averaging `factor` neighbours, at each coefficient's frequency
    gain[1:] = torch.sin(factor * angle[1:]) / (factor * torch.sin(angle[1:]))
    low = dct_matrix(factor * block, dtype=torch.float64)[:block]
    return math.sqrt(factor) * (low / gain[:, None]).mT @ dct_matrix(block, dtype=torch.float64)
