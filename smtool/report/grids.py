"""Image tensors arranged in grids, enlarged, framed, coloured, and encoded as PNG.

Grids are RGB: images of other channels are shown as `as_rgb` converts them.
"""

import io
import math
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from smtool.data.batches import to_uint8
from smtool.features.pictures import as_rgb

DIFFERENCE_GAIN = 2.0
FRAME = (0, 255, 255, 0)
"""Grey levels of a frame from outside to inside: visible on dark and on light pictures."""


def image_grid(images: Tensor, *, columns: int | None = None, separator: int = 1) -> Tensor:
    """uint8 (N, C, H, W) -> uint8 (3, H', W'): images in rows of `columns` (default: about square), with white lines between."""
    count, _, height, width = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    tall, wide = height + separator, width + separator
    grid = torch.full((3, rows * tall - separator, columns * wide - separator), 255, dtype=torch.uint8)
    for index, image in enumerate(as_rgb(images)):
        row, column = divmod(index, columns)
        grid[:, row * tall : row * tall + height, column * wide : column * wide + width] = image
    return grid


def reconstruction_grid(images: Tensor, reconstructions: Tensor, *, separator: int = 1) -> Tensor:
    """Three rows, a column per image: input, reconstruction, and DIFFERENCE_GAIN times their difference around mid-grey.

    images, reconstructions: (B, C, H, W) in [-1, 1]. Returns uint8 (3, H', W'), white lines between the cells, on the CPU.
    """
    if images.shape != reconstructions.shape:
        raise ValueError(f"images {tuple(images.shape)} and reconstructions {tuple(reconstructions.shape)} differ in shape")
    images, reconstructions = (as_rgb(x.detach().float().cpu().clamp(-1, 1)) for x in (images, reconstructions))
    rows = torch.cat([images, reconstructions, DIFFERENCE_GAIN * (reconstructions - images)])
    return image_grid(to_uint8(rows), columns=len(images), separator=separator)


def png_bytes(image: Tensor) -> bytes:
    """uint8 (C, H, W) -> the bytes of a PNG file of mode L, LA, RGB or RGBA, for C = 1 to 4."""
    data = io.BytesIO()
    pixels = image[0] if len(image) == 1 else image.permute(1, 2, 0)
    Image.fromarray(pixels.contiguous().numpy()).save(data, "PNG")
    return data.getvalue()


def enlarged(images: Tensor, least: int) -> Tensor:
    """Images (N, C, H, W) enlarged by a whole factor, repeating pixels, so that the shorter side is at least `least`."""
    factor = max(1, -(-least // min(images.shape[-2:])))
    return images.repeat_interleave(factor, -2).repeat_interleave(factor, -1)


def fitted(picture: Tensor, side: int) -> Tensor:
    """uint8 (C, h, w) -> (C, H, W): enlarge to a longer side of `side` by nearest-neighbour repetition, without new values."""
    cells = picture.shape[-2:]
    sizes = [max(1, round(side * count / max(cells))) for count in cells]
    rows, columns = (torch.arange(size) * count // size for size, count in zip(sizes, cells, strict=True))
    return picture[:, rows][:, :, columns]


def centred(picture: Tensor, size: Sequence[int]) -> Tensor:
    """uint8 (C, h, w) in the middle of a white picture (C, *size), which is at least as large."""
    (height, width), (tall, wide) = picture.shape[-2:], size
    top, left = (tall - height) // 2, (wide - width) // 2
    margins = (left, wide - width - left, top, tall - height - top)
    return torch.nn.functional.pad(picture, margins, value=255)


def framed(picture: Tensor, row: int, column: int, grid: tuple[int, int]) -> Tensor:
    """uint8 (3, H, W) with a frame around cell (row, column) of a grid over the picture; at least 7 pixels stay free inside."""
    out, edges = picture.clone(), []
    for index, cells, pixels in ((row, grid[0], picture.shape[-2]), (column, grid[1], picture.shape[-1])):
        low, high = index * pixels // cells, (index + 1) * pixels // cells
        spare = max(0, 8 - (high - low)) // 2 + len(FRAME)
        edges.append((low - spare, high + spare))
    (top, bottom), (left, right) = edges
    inside = out[:, max(0, top + len(FRAME)) : bottom - len(FRAME), max(0, left + len(FRAME)) : right - len(FRAME)].clone()
    for step, level in enumerate(FRAME):
        out[:, max(0, top + step) : bottom - step, max(0, left + step) : right - step] = level
    out[:, max(0, top + len(FRAME)) : bottom - len(FRAME), max(0, left + len(FRAME)) : right - len(FRAME)] = inside
    return out


def viridis(values: Tensor) -> Tensor:
    """(H, W) in [0, 1] -> uint8 (3, H, W) in matplotlib's colour map viridis."""
    from matplotlib import colormaps

    colours = torch.from_numpy((colormaps["viridis"](range(256))[:, :3] * 255).round()).byte()
    return colours[(values.clamp(0, 1) * 255).round().long().cpu()].permute(2, 0, 1)
