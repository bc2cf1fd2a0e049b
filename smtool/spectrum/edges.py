"""Reconstruction error at the edges of images against that of their interior, which shows padding that does not fit weights."""

import torch
from torch import Tensor


def edge_ratio(images: Tensor, reconstructions: Tensor, cell: int) -> float:
    """Mean squared error of the outermost pixels of images (N, C, H, W) over that of their interior; the median over the images.

    cell: side of a latent cell in pixels. The interior begins two cells from the edges, or one in images of at most six cells.
    Convolutions pad images at their edges; with another padding than in training, the error grows towards the edges
    (spectrum.md#health). Raises ValueError if there is no interior, or if no reconstruction has an error there.
    """
    height, width = images.shape[-2:]
    inset = 2 * cell if min(height, width) > 6 * cell else cell
    if min(height, width) <= 2 * inset:
        raise ValueError(f"images of {height}x{width} have no interior beside latent cells of {cell} pixels at their edges")
    error = (reconstructions - images).double().square().mean(1)      # (N, H, W)
    interior = error[:, inset:-inset, inset:-inset].mean((1, 2))
    ring = torch.ones(height, width, dtype=torch.bool, device=error.device)
    ring[1:-1, 1:-1] = False
    kept = interior > 0
    if not kept.any():
        raise ValueError("reconstructions have no error")
    return (error[:, ring].mean(1)[kept] / interior[kept]).median().item()
