"""Images side by side, and images as PNG bytes."""

import io
import math

import torch
from PIL import Image
from torch import Tensor

from smtool.datasets.types import to_uint8

DIFFERENCE_GAIN = 2.0


def image_grid(images: Tensor, *, columns: int | None = None, separator: int = 1) -> Tensor:
    """uint8 (N, 3, H, W) -> uint8 (3, H', W'): rows of `columns` (default: about square), white lines between them."""
    count, _, height, width = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    tall, wide = height + separator, width + separator
    grid = torch.full((3, rows * tall - separator, columns * wide - separator), 255, dtype=torch.uint8)
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        grid[:, row * tall : row * tall + height, column * wide : column * wide + width] = image
    return grid


def reconstruction_grid(images: Tensor, reconstructions: Tensor, *, separator: int = 1) -> Tensor:
    """Three rows, a column per image: input, reconstruction, and DIFFERENCE_GAIN times their difference around mid-grey.

    images, reconstructions: (B, 3, H, W) in [-1, 1]. Returns uint8 (3, H', W'), white lines between the cells, on the CPU.
    """
    if images.shape != reconstructions.shape:
        raise ValueError(f"images {tuple(images.shape)} and reconstructions {tuple(reconstructions.shape)} differ in shape")
    images, reconstructions = (x.detach().float().cpu().clamp(-1, 1) for x in (images, reconstructions))
    rows = torch.cat([images, reconstructions, DIFFERENCE_GAIN * (reconstructions - images)])
    return image_grid(to_uint8(rows), columns=len(images), separator=separator)


def png_bytes(image: Tensor) -> bytes:
    """uint8 (3, H, W) -> the bytes of a PNG file."""
    data = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(data, "PNG")
    return data.getvalue()
