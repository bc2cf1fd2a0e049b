"""The report's pictures as pixels: reconstructions, low-passed decodings, latents by colour, likeness of tokens, masks.

Latents are enlarged without smoothing, so that every cell is a square; white lines part the tiles. What rows and columns hold is
in each picture's caption.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from smtool.datasets import to_uint8
from smtool.networks.posterior import LatentStats
from smtool.networks.tokenizer import Tokenizer
from smtool.pipelines.spectrum.direction import DOG_SIGMAS, GAMMA, filtered_by_dog
from smtool.pipelines.spectrum.low_pass_curve import SHOWN_ROWS
from smtool.randomness import generator
from smtool.report.grids import image_grid, reconstruction_grid
from smtool.spectrum import fitted_low_pass, spatial_normalize
from smtool.spectrum.views import cosine_map, fit_pca, magnitude_normalized, mask_picture, pca_pictures

TILE = 160
"""Least side of a tile in pixels; smaller images are enlarged by a whole number."""
LINE = 4
NUM_PLACES = 3
SEARCHED = 8
FRAME = (0, 255, 255, 0)
"""Grey levels of a frame from outside to inside: seen on dark and on light."""


@dataclass(frozen=True)
class Picture:
    """image: uint8 (3, H, W) on the CPU. caption: what its rows and columns are."""

    image: Tensor
    caption: str


@torch.no_grad()
def pictures(
    codec: Tokenizer,
    images: Tensor,
    latents: Tensor,
    stats: LatentStats,
    reconstructions: Tensor | None,
    *,
    shown: Tensor | None = None,
) -> dict[str, Picture]:
    """By name, as far as this codec has them. images (N, 3, H, W), their raw latents and decodings; shown: of `low_pass`."""
    made = {}
    normalized = stats.normalize(latents.float())
    if reconstructions is not None:
        made["reconstructions"] = _reconstructions(images, reconstructions)
    if shown is not None:
        made["low-pass"] = _low_passed(shown)
    if codec.latent_channels >= 3:
        made["latents-pca"] = _principal(images, normalized)
    made["token-similarity"] = _similarity(images[:1], normalized[:1])
    return made


@torch.no_grad()
def pictures_of_images(images: Tensor) -> dict[str, Picture]:
    """Those that no autoencoder changes."""
    made = {"magnitude-normalised": _magnitude_normalised(images)}
    if not (images.shape[-2] % 8 or images.shape[-1] % 8):
        made["masks"] = _masks(images[:1])
    return made


def _reconstructions(images: Tensor, reconstructions: Tensor) -> Picture:
    count = _columns(images)
    inputs, outputs = (enlarged(x[:count].cpu(), TILE) for x in (images, reconstructions))
    caption = "Rows: input; reconstruction; difference, twice as strong, around mid-grey (unclamped reconstruction less input)."
    return Picture(reconstruction_grid(inputs, outputs, separator=LINE), caption)


def _low_passed(shown: Tensor) -> Picture:
    """shown: (images, 2, n, 3, H, W)."""
    tiles = enlarged(shown.flatten(0, 2), TILE)
    columns = ", ".join(map(str, SHOWN_ROWS))
    caption = (
        f"Columns: n = {columns} of 15 anti-diagonals removed. Rows, in pairs: the low-passed image LP x, and D(LP z), what the "
        "decoder makes of the equally low-passed latent. A frequency-aligned decoder shows equal pairs."
    )
    return Picture(image_grid(tiles, columns=shown.shape[2], separator=LINE), caption)


def _principal(images: Tensor, normalized: Tensor) -> Picture:
    count = _columns(images)
    axes = fit_pca(normalized, generator=generator("spectrum", "pca"))
    below = pca_pictures(normalized[:count], axes).cpu()
    caption = (
        "Top: input. Below: normalized latents, their three strongest directions over all images as red, green and blue (fitted "
        "to this autoencoder alone; every image stretched by itself, so colours of two autoencoders or images do not compare)."
    )
    return Picture(_two_rows(images[:count], below), caption)


def _similarity(image: Tensor, features: Tensor) -> Picture:
    """image (1, 3, H, W) and its normalized latent (1, C, h, w): a row for each chosen token."""
    maps = (features, spatial_normalize(features, GAMMA), filtered_by_dog(features))
    height, width = features.shape[-2:]
    side = max(TILE, *image.shape[-2:])
    tiles = []
    for down, right in chosen_places(image):
        row, column = int(down * height), int(right * width)
        views = [to_uint8(image)[0].cpu(), *(viridis((cosine_map(x, row, column)[0] + 1) / 2) for x in maps)]
        tiles += [framed(fitted(view, side), row, column, (height, width)) for view in views]
    caption = (
        "Cosine similarity of all latent tokens with the framed one; dark blue -1, green 0, yellow 1. Columns: input; normalized "
        f"latents; after spatial normalization (gamma {GAMMA:g}); after a difference of Gaussians (sigma {DOG_SIGMAS[0]:g} and "
        f"{DOG_SIGMAS[1]:g} tokens). Yellow everywhere: all tokens point one way."
    )
    return Picture(image_grid(torch.stack(tiles), columns=4, separator=LINE), caption)


def _magnitude_normalised(images: Tensor) -> Picture:
    count = _columns(images)
    caption = (
        "Top: input. Below: the same image with a white spectrum: every DCT coefficient keeps its sign and gets one magnitude "
        "(mean and variance as before). What is still recognized does not lie in the power spectrum."
    )
    return Picture(_two_rows(images[:count], to_uint8(magnitude_normalized(images[:count])).cpu()), caption)


def _masks(image: Tensor) -> Picture:
    side = max(TILE, *image.shape[-2:])
    masks = [fitted(mask_picture(8, rows, cell=side // 8), side) for rows in SHOWN_ROWS]
    lowered = [fitted(to_uint8(fitted_low_pass(image, rows))[0].cpu(), side) for rows in SHOWN_ROWS]
    caption = (
        f"Columns: n = {', '.join(map(str, SHOWN_ROWS))} of 15 anti-diagonals removed. Top: which DCT coefficients of an 8x8 "
        "block stay (light), the mean at the top left. Below: an image whose blocks keep only these."
    )
    return Picture(image_grid(torch.stack(masks + lowered), columns=len(SHOWN_ROWS), separator=LINE), caption)


def enlarged(images: Tensor, least: int) -> Tensor:
    """(N, 3, H, W) with every pixel repeated until the shorter side is at least `least`."""
    factor = max(1, -(-least // min(images.shape[-2:])))
    return images.repeat_interleave(factor, -2).repeat_interleave(factor, -1)


def fitted(picture: Tensor, side: int) -> Tensor:
    """uint8 (3, h, w) -> (3, H, W) with the longer side `side`, by repeating cells: no new values."""
    cells = picture.shape[-2:]
    sizes = [max(1, round(side * count / max(cells))) for count in cells]
    rows, columns = (torch.arange(size) * count // size for size, count in zip(sizes, cells, strict=True))
    return picture[:, rows][:, :, columns]


def chosen_places(image: Tensor) -> list[tuple[float, float]]:
    """Three places of unlike colour in an image (1, 3, H, W), as shares of height and width; they depend on the image alone.

    Of the inner cells of an 8x8 grid, first the one nearest to the mean colour, then twice the one farthest from those chosen.
    """
    colours = torch.nn.functional.adaptive_avg_pool2d(image.float().cpu(), SEARCHED)[0, :, 1:-1, 1:-1].flatten(1).T
    chosen = [int((colours - colours.mean(0)).square().sum(1).argmin())]
    while len(chosen) < NUM_PLACES:
        distance = torch.cdist(colours, colours[chosen]).min(1).values
        chosen.append(int(distance.argmax()))
    inner = SEARCHED - 2
    return [((place // inner + 1.5) / SEARCHED, (place % inner + 1.5) / SEARCHED) for place in chosen]


def framed(picture: Tensor, row: int, column: int, grid: tuple[int, int]) -> Tensor:
    """uint8 (3, H, W) with a frame around cell (row, column) of a grid laid over it; at least 7 pixels stay free inside."""
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
    """(H, W) in [0, 1] -> uint8 (3, H, W) in matplotlib's perceptually uniform colours."""
    from matplotlib import colormaps

    colours = torch.from_numpy((colormaps["viridis"](range(256))[:, :3] * 255).round()).byte()
    return colours[(values.clamp(0, 1) * 255).round().long().cpu()].permute(2, 0, 1)


def _columns(images: Tensor) -> int:
    """How many images a picture shows: 4 large ones or 6 small ones."""
    return min(len(images), 4 if images.shape[-1] > TILE else 6)


def _two_rows(images: Tensor, below: Tensor) -> Tensor:
    """Images (N, 3, H, W) in [-1, 1] above as many uint8 pictures, brought to one size."""
    side = max(TILE, *images.shape[-2:])
    tiles = [fitted(picture, side) for picture in (*to_uint8(images).cpu(), *below)]
    return image_grid(torch.stack(tiles), columns=len(images), separator=LINE)
