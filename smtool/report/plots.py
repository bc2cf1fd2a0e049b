"""Pictures of numbers: matplotlib's object interface only (no pyplot, no global state), in colours everyone can tell apart."""

import torch
from torch import Tensor

from smtool.datasets.types import to_uint8

DIFFERENCE_GAIN = 2.0


def reconstruction_grid(images: Tensor, reconstructions: Tensor, *, separator: int = 1) -> Tensor:
    """Three rows, a column per image: input, reconstruction, and DIFFERENCE_GAIN times their difference around mid-grey.

    images, reconstructions: (B, 3, H, W) in [-1, 1]. Returns uint8 (3, H', W'), white lines between the cells, on the CPU.
    """
    if images.shape != reconstructions.shape:
        raise ValueError(f"images {tuple(images.shape)} and reconstructions {tuple(reconstructions.shape)} differ in shape")
    images, reconstructions = (x.detach().float().cpu().clamp(-1, 1) for x in (images, reconstructions))
    rows = [images, reconstructions, DIFFERENCE_GAIN * (reconstructions - images)]
    return _joined([_joined(list(to_uint8(row)), 2, separator) for row in rows], 1, separator)


def _joined(tiles: list[Tensor], axis: int, separator: int) -> Tensor:
    """Tiles (3, H, W) side by side along the axis, with white lines between them."""
    shape = list(tiles[0].shape)
    shape[axis] = separator
    line = torch.full(shape, 255, dtype=torch.uint8)
    return torch.cat([part for tile in tiles for part in (line, tile)][1:], dim=axis)
