"""Differentiable augmentation of what a discriminator sees (DiffAugment, arXiv 2006.10738), as in RAE (released-code.md#rae)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from smtool.randomness import Streams

LARGEST_SHIFT = 0.125
"""Of the sides of an image."""


@dataclass(frozen=True)
class Draws:
    """Draws of one batch. translated, recoloured: decisions for the whole batch; amounts: (B, 5), uniform in [0, 1).

    Columns of amounts: brightness, saturation, contrast, vertical and horizontal shift.
    """

    translated: bool
    recoloured: bool
    amounts: Tensor


def draw_augmentation(streams: Streams, probability: float, name: str) -> Draws:
    """Draws for the images `name` of a step. The decisions are those of the step, the same for all its images."""
    decisions = torch.rand(2, generator=streams.shared("augment")) < probability
    amounts = streams.uniform(f"augment {name}", (streams.stop - streams.start, 5))
    return Draws(bool(decisions[0]), bool(decisions[1]), amounts)


def augmented(images: Tensor, draws: Draws) -> Tensor:
    """Images (B, C, H, W) in [-1, 1], shifted and recoloured image by image, not clamped. Differentiable.

    Shifts are whole pixels up to 12.5 % of a side, filled with 0. Brightness adds U(-0.5, 0.5); saturation scales the distance of
    colors from their mean over channels by U(0, 2); contrast that from the image's mean by U(0.5, 1.5).
    """
    if draws.translated:
        images = _shifted(images, draws.amounts[:, 3], draws.amounts[:, 4])
    if not draws.recoloured:
        return images
    brightness, saturation, contrast = (draws.amounts[:, k].view(-1, 1, 1, 1).to(images.dtype) for k in range(3))
    images = images + (brightness - 0.5)
    gray = images.mean(1, keepdim=True)
    images = gray + 2 * saturation * (images - gray)
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + (contrast + 0.5) * (images - mean)


def _shifted(images: Tensor, down: Tensor, right: Tensor) -> Tensor:
    rows, row_inside = _sources(images.shape[-2], down)
    columns, column_inside = _sources(images.shape[-1], right)
    picture = torch.arange(len(images), device=images.device).view(-1, 1, 1)
    moved = images[picture, :, rows[:, :, None], columns[:, None, :]]      # (B, H, W, C)
    inside = (row_inside[:, :, None] & column_inside[:, None, :])[..., None]
    return torch.where(inside, moved, torch.zeros_like(moved)).permute(0, 3, 1, 2)


def _sources(side: int, amount: Tensor) -> tuple[Tensor, Tensor]:
    """(B, side): the row or column from which each one comes, and whether it is inside."""
    most = round(LARGEST_SHIFT * side)
    shift = (amount * (2 * most + 1)).floor().long().clamp(max=2 * most) - most
    source = torch.arange(side, device=amount.device) + shift[:, None]
    return source.clamp(0, side - 1), (source >= 0) & (source < side)
