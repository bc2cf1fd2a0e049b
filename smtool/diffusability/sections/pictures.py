"""The report's pictures: reconstructions, low-passed decodings, latents in colour, token similarity, DCT masks.

Latents are enlarged without smoothing, so that every cell is a square; white lines separate the tiles. The caption of each
picture describes its rows and columns.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from smtool.data import to_uint8
from smtool.diffusability.sections.direction import DOG_SIGMAS, GAMMA, filtered_by_dog
from smtool.diffusability.sections.low_pass import SHOWN_ROWS
from smtool.diffusability.sections.parts import Chapter
from smtool.features.pictures import as_rgb
from smtool.networks.posterior import LatentStats
from smtool.randomness import generator
from smtool.report.grids import centred, enlarged, fitted, framed, image_grid, reconstruction_grid, viridis
from smtool.spectrum import (
    PHYSICAL,
    fitted_low_pass,
    flow_ratio,
    highest_frequency,
    radial_low_pass,
    spatial_normalize,
    spectrum_of,
)
from smtool.spectrum.visualize import cosine_map, fit_pca, magnitude_normalized, mask_picture, pca_pictures

TILE = 160
"""Smallest side of a tile in pixels; smaller images are enlarged by an integer factor."""
LINE = 4
NUM_PLACES = 3
SEARCHED = 8
NOISE_TIMES = (0.9, 0.8, 0.6, 0.4, 0.2, 0.1)
NUM_NOISED = 2
SMALLEST_NOISED = 8
"""Shorter side in pixels; smaller images have too few frequencies to show."""


@dataclass(frozen=True)
class Picture:
    """A picture. image: uint8 (3, H, W) on the CPU; caption: describes its rows and columns."""

    image: Tensor
    caption: str


CHAPTER = Chapter("Pictures", pictures=("magnitude-normalised", "masks", "reconstructions", "latents-pca"))
"""The last pictures of the page. Low-pass strips, noised images and similarity maps are in the chapters of their sections."""


@torch.no_grad()
def visualize(
    images: Tensor,
    latents: Tensor,
    stats: LatentStats,
    reconstructions: Tensor | None,
    *,
    low_passed: tuple[Sequence[int], Tensor] | None = None,
) -> dict[str, Picture]:
    """Pictures of one autoencoder by name, without those that it does not have.

    images (N, C, H, W) with their raw latents (N, C, h, w), and reconstructions of the first of them, None without; low_passed:
    `shown` of the low-pass section.
    """
    made = {}
    normalized = stats.normalize(latents.float())
    if reconstructions is not None:
        made["reconstructions"] = _reconstructions(images, reconstructions)
    if low_passed is not None:
        made["low-pass"] = _low_passed(*low_passed)
    if latents.shape[1] >= 3:
        made["latents-pca"] = _principal(images, normalized)
    made["token-similarity"] = _similarity(images[:1], normalized[:1])
    return made


@torch.no_grad()
def visualize_images(images: Tensor) -> dict[str, Picture]:
    """Pictures of the images alone, by name. "noised" needs images of 8x8 pixels or more that are not all of one colour."""
    made = {"magnitude-normalised": _magnitude_normalised(images)}
    if min(images.shape[-2:]) >= SMALLEST_NOISED and bool(images.std() > 0):
        made["noised"] = _noised(images)
    if not (images.shape[-2] % 8 or images.shape[-1] % 8):
        made["masks"] = _masks(images[:1])
    return made


def _reconstructions(images: Tensor, reconstructions: Tensor) -> Picture:
    count = min(_columns(images), len(reconstructions))
    inputs, outputs = (enlarged(x[:count].cpu(), TILE) for x in (images, reconstructions))
    caption = "Rows: input; reconstruction; unclamped reconstruction minus input, doubled, around mid-grey."
    return Picture(reconstruction_grid(inputs, outputs, separator=LINE), caption)


def _low_passed(rows: Sequence[int], shown: Tensor) -> Picture:
    """shown: (images, 2, len(rows), C, H, W)."""
    tiles = enlarged(shown.flatten(0, 2), TILE)
    columns = ", ".join(map(str, rows))
    caption = (
        f"Columns: n = {columns} of 15 anti-diagonals removed. Rows, in pairs: the low-passed image LP x, and D(LP z), the "
        "decoded low-passed latent. A frequency-aligned decoder gives equal pairs."
    )
    return Picture(image_grid(tiles, columns=shown.shape[2], separator=LINE), caption)


def _principal(images: Tensor, normalized: Tensor) -> Picture:
    count = _columns(images)
    axes = fit_pca(normalized, generator=generator("spectrum", "pca"))
    below = pca_pictures(normalized[:count], axes).cpu()
    caption = (
        "Top: input. Below: normalized latents, with their first three principal components as red, green and blue. The "
        "components are fitted to each autoencoder and the contrast to each image, so colours of two autoencoders or images do "
        "not compare."
    )
    return Picture(_two_rows(images[:count], below), caption)


def _similarity(image: Tensor, features: Tensor) -> Picture:
    """Token similarity of an image (1, C, H, W) and its normalized latent (1, C, h, w): one row per chosen token."""
    maps = (features, spatial_normalize(features, GAMMA), filtered_by_dog(features))
    height, width = features.shape[-2:]
    side = max(TILE, *image.shape[-2:])
    tiles = []
    for down, right in chosen_places(image):
        row, column = int(down * height), int(right * width)
        views = [as_rgb(to_uint8(image))[0].cpu(), *(viridis((cosine_map(x, row, column)[0] + 1) / 2) for x in maps)]
        tiles += [framed(fitted(view, side), row, column, (height, width)) for view in views]
    caption = (
        "Cosine similarity of all latent tokens with the framed one; dark blue -1, green 0, yellow 1. Columns: input; normalized "
        f"latents; after spatial normalization (gamma {GAMMA:g}); after a difference of Gaussians (sigma {DOG_SIGMAS[0]:g} and "
        f"{DOG_SIGMAS[1]:g} tokens). Yellow everywhere: all tokens have the same direction."
    )
    return Picture(image_grid(torch.stack(tiles), columns=4, separator=LINE), caption)


def _magnitude_normalised(images: Tensor) -> Picture:
    count = _columns(images)
    caption = (
        "Top: input. Below: the same image with a white spectrum: every DCT coefficient keeps its sign, and all get the same "
        "magnitude (mean and variance as before). Content that is still visible is not coded in the power spectrum."
    )
    return Picture(_two_rows(images[:count], to_uint8(magnitude_normalized(images[:count])).cpu()), caption)


def _noised(images: Tensor) -> Picture:
    """Images at times of the flow beside their low-passed copies; f* is that of the mean spectrum of all given images.

    Drawn are the images whose variance is nearest to the mean.
    """
    mean, std = images.mean(), images.std()
    unit, times = (images - mean) / std, torch.tensor(NOISE_TIMES, dtype=torch.float64)
    spectrum = spectrum_of(unit, PHYSICAL)
    highest = highest_frequency(spectrum.frequency, spectrum.mean().clamp(min=1e-12), flow_ratio(times)).tolist()
    variance = unit.flatten(1).var(1)
    chosen = unit[(variance / variance.mean()).log().abs().argsort(stable=True)[:NUM_NOISED]]
    noise = torch.randn(chosen.shape, generator=generator("spectrum", "noised")).to(unit)
    rows = []
    for x, e in zip(chosen, noise, strict=True):
        noised = [((1 - t) * x + t * e) / math.hypot(1 - t, t) for t in NOISE_TIMES]
        rows += [*noised, x, *(radial_low_pass(x, f) for f in highest), x]
    tiles = enlarged(as_rgb(to_uint8(torch.stack(rows) * std + mean)).cpu(), TILE)
    side = min(images.shape[-2:])
    limits = ", ".join("none" if math.isnan(f) else f"{f * side:.2g}" for f in highest)
    caption = (
        f"Columns: times t = {', '.join(f'{t:g}' for t in NOISE_TIMES)} of the flow x_t = (1 - t) x + t noise, on pixels of "
        "variance 1, and the image. Rows, in pairs: the noisy image at equal contrast, and the image low-passed at f*(t), the "
        f"highest frequency whose SNR is above 1, on average over {len(images)} images: {limits} cycles per side. What the "
        "low-pass removes is weaker than the noise in every single frequency. Sharp edges can be seen nevertheless: their "
        "frequencies have related signs, which a power spectrum does not contain."
    )
    return Picture(image_grid(tiles, columns=len(NOISE_TIMES) + 1, separator=LINE), caption)


def _masks(image: Tensor) -> Picture:
    side = max(TILE, *image.shape[-2:])
    lowered = [as_rgb(fitted(to_uint8(fitted_low_pass(image, rows))[0].cpu(), side)[None])[0] for rows in SHOWN_ROWS]
    masks = [centred(mask_picture(8, rows, cell=min(lowered[0].shape[-2:]) // 8), lowered[0].shape[-2:]) for rows in SHOWN_ROWS]
    caption = (
        f"Columns: n = {', '.join(map(str, SHOWN_ROWS))} of 15 anti-diagonals removed. Top: the DCT coefficients of an 8x8 block "
        "that are kept (light), with the mean at the top left. Below: the image with only these coefficients in every block."
    )
    return Picture(image_grid(torch.stack(masks + lowered), columns=len(SHOWN_ROWS), separator=LINE), caption)


def chosen_places(image: Tensor) -> list[tuple[float, float]]:
    """Three places of different colour in an image (1, C, H, W), as fractions of height and width; they depend on the image only.

    Among the inner cells of an 8x8 grid: first the cell nearest to the mean colour, then twice the cell whose colour is farthest
    from the chosen ones.
    """
    colours = torch.nn.functional.adaptive_avg_pool2d(image.float().cpu(), SEARCHED)[0, :, 1:-1, 1:-1].flatten(1).T
    chosen = [int((colours - colours.mean(0)).square().sum(1).argmin())]
    while len(chosen) < NUM_PLACES:
        distance = torch.cdist(colours, colours[chosen]).min(1).values
        chosen.append(int(distance.argmax()))
    inner = SEARCHED - 2
    return [((place // inner + 1.5) / SEARCHED, (place % inner + 1.5) / SEARCHED) for place in chosen]


def _columns(images: Tensor) -> int:
    """Number of images in a picture: 4 large ones or 6 small ones."""
    return min(len(images), 4 if max(images.shape[-2:]) > TILE else 6)


def _two_rows(images: Tensor, below: Tensor) -> Tensor:
    """Images (N, C, H, W) in [-1, 1] above as many uint8 pictures, all resized to one size."""
    side = max(TILE, *images.shape[-2:])
    tiles = [fitted(picture, side) for picture in (*as_rgb(to_uint8(images)).cpu(), *as_rgb(below))]
    return image_grid(torch.stack(tiles), columns=len(images), separator=LINE)
