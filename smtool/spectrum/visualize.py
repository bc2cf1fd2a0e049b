"""Spectra, masks, latents and token similarities as image tensors. This module computes pixels; it draws and writes nothing."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from smtool.spectrum.dct import dct2, full_precision, idct2, without_autocast
from smtool.spectrum.lowpass import Shape, low_pass_mask

FITTED_IMAGES = 64
FITTED_POSITIONS = 4096
KEPT, LINE, REMOVED = 255, 128, 64
"""Grey levels of a mask's picture."""


@dataclass(frozen=True)
class PrincipalAxes:
    """The three directions in which latents vary most: mean (C,), axes (C, 3), orthonormal columns, largest variance first.

    The sign of each axis makes its largest entry positive, so that equal latents give equal colours.
    """

    mean: Tensor
    axes: Tensor


def fit_pca(latents: Tensor, *, generator: torch.Generator) -> PrincipalAxes:
    """Principal axes of latent vectors (N, C, h, w), C >= 3, from the first 64 images and at most 4096 positions of each.

    generator: draws the positions, on its own device. Raises ValueError for another shape and for C < 3.
    Source: paper Fig. 3 (arXiv 2603.14645) and its released code (released-code.md#published-curves).
    """
    if latents.ndim != 4 or latents.shape[1] < 3 or len(latents) == 0:
        raise ValueError(f"a picture in 3 colours needs latents (N, C, h, w) of C >= 3, but got {tuple(latents.shape)}")
    with torch.no_grad():
        tokens = full_precision(latents[:FITTED_IMAGES]).flatten(2)                         # (N, C, positions)
        if tokens.shape[-1] > FITTED_POSITIONS:
            tokens = torch.stack([image[:, _drawn(image, generator)] for image in tokens])
        positions = tokens.transpose(0, 1).flatten(1).double()                              # (C, all)
        mean = positions.mean(1, keepdim=True)
        _, vectors = torch.linalg.eigh((positions - mean) @ (positions - mean).mT)
        axes = vectors.flip(1)[:, :3]
        axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
        return PrincipalAxes(mean[:, 0].cpu(), axes.cpu())


def pca_pictures(latents: Tensor, principal: PrincipalAxes) -> Tensor:
    """Latents (B, C, h, w) as colours, uint8 (B, 3, h, w): the three principal components.

    Each image is scaled from its smallest to its largest value over all three components, so the brightness of two images is
    not comparable. An image without variation has one colour.
    """
    with torch.no_grad():
        mean, axes = principal.mean.to(latents.device), principal.axes.to(latents.device)
        parts = torch.einsum("bchw,ck->bkhw", full_precision(latents).double() - mean[:, None, None], axes)
        low, high = (part.unflatten(0, (-1, 1, 1, 1)) for part in parts.flatten(1).aminmax(dim=1))
        return (255 * (parts - low) / (high - low).clamp(min=torch.finfo(torch.float64).tiny)).round().byte()


def cosine_map(features: Tensor, row: int, column: int) -> Tensor:
    """Cosine of the token at (row, column) with every token of its feature map: (B, C, h, w) -> (B, h, w), in [-1, 1].

    It is 1 at (row, column) itself, and 0 where either token has length 0. Raises ValueError for a position outside the map.
    Source: paper Fig. 6 (arXiv 2603.14645).
    """
    height, width = features.shape[-2:]
    if features.ndim != 4 or not (0 <= row < height and 0 <= column < width):
        raise ValueError(f"there is no token ({row}, {column}) in features of shape {tuple(features.shape)}")
    with without_autocast(features):
        tokens = functional.normalize(full_precision(features), dim=1)
        return (tokens * tokens[..., row : row + 1, column : column + 1]).sum(1).clamp(-1, 1)


def magnitude_normalized(images: Tensor) -> Tensor:
    """Images (B, C, H, W) with a white spectrum: every DCT coefficient except (0, 0) keeps its sign and gets the same magnitude.

    Mean and variance of every channel are kept, so the images can be shown side by side; values may lie outside the original
    range. Whatever is still recognizable comes from the signs of the coefficients, not from the power spectrum.
    Source: paper Fig. 2 (arXiv 2603.14645). The paper does not name its transform; the DCT is this project's choice.
    """
    with torch.no_grad(), without_autocast(images):
        coefficients = dct2(images)
        mean = coefficients[..., 0, 0].clone()
        coefficients[..., 0, 0] = 0
        rms = coefficients.square().mean((-2, -1), keepdim=True).sqrt()
        white = coefficients.sign() * rms * (coefficients[0, 0].numel() / (coefficients[0, 0].numel() - 1)) ** 0.5
        white[..., 0, 0] = mean
        return idct2(white)


def mask_picture(block: int, rows_removed: int, *, shape: Shape = "triangle", cell: int = 16) -> Tensor:
    """The mask of `low_pass_mask` as an image, uint8 (3, block cell, block cell), with frequency (0, 0) at the top left.

    Kept coefficients are light, removed ones dark, with lines between them. cell: pixels per coefficient, at least 3; otherwise
    ValueError. Source: paper Figs. 9 and 10 (arXiv 2603.14645).
    """
    if cell < 3:
        raise ValueError(f"a coefficient needs at least 3 pixels to show, but cell is {cell}")
    grey = torch.where(low_pass_mask(block, rows_removed, shape=shape), KEPT, REMOVED).to(torch.uint8)
    picture = grey.repeat_interleave(cell, 0).repeat_interleave(cell, 1)
    for line in (slice(None, None, cell), -1):
        picture[line], picture[:, line] = LINE, LINE
    return picture.expand(3, -1, -1).contiguous()


def _drawn(image: Tensor, generator: torch.Generator) -> Tensor:
    order = torch.randperm(image.shape[-1], generator=generator, device=generator.device)
    return order[:FITTED_POSITIONS].to(image.device)
