"""DCTdiff's transform of images to tokens and back, as small matrix products over macro-blocks of 2B x 2B pixels.

A macro-block has four luma blocks of B x B pixels and, with chroma 420, one block of each halved chroma plane; with 444, four.
All steps of encoding are linear, so that one matrix does them at once. Source: arXiv 2412.15032 and its released code.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from smtool.spectrum.dct import constant, dct_matrix, full_precision, without_autocast

Chroma = Literal["420", "444"]
CLIP = 2.0
"""Latents are limited to this many eta before they are decoded, as in the released code."""
_TO_YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))
_LEVELS, _MIDDLE = 127.5, 128.0
"""Images in [-1, 1] have 127.5 levels a unit; the level 128 is subtracted from luma before the DCT."""


def zigzag(block: int) -> list[int]:
    """Raster indices of the coefficients of a block in JPEG's zig-zag order, lowest frequency first."""
    order = []
    for diagonal in range(2 * block - 1):
        cells = [(row, diagonal - row) for row in range(block) if 0 <= diagonal - row < block]
        order += [row * block + column for row, column in (cells if diagonal % 2 else reversed(cells))]
    return order


def channel_groups(kept: int, chroma: Chroma) -> tuple[tuple[int, int], ...]:
    """(blocks, coefficients) of Y, Cb and Cr in the order of channels, as `smtool.spectrum.entropy_weights` takes them."""
    blocks = 1 if chroma == "420" else 4
    return (4, kept), (blocks, kept), (blocks, kept)


def to_tokens(images: Tensor, *, block: int, kept: int, chroma: Chroma, eta: float) -> Tensor:
    """Images (B, 3, H, W) in [-1, 1] -> latents (B, 6 kept, H / 2 block, W / 2 block), 12 kept with 444, in units of eta.

    Channels: luma blocks (0, 0), (0, 1), (1, 0), (1, 1), then Cb, then Cr, each with `kept` coefficients in zig-zag order.
    """
    images = full_precision(images)
    matrix = _encoding(block, kept, chroma, dtype=images.dtype, device=images.device)
    with without_autocast(images):
        patches = F.pixel_unshuffle(images, 2 * block)
        tokens = torch.einsum("cp,nphw->nchw", matrix[:, :-1], patches) + matrix[:, -1].view(-1, 1, 1)
        return tokens / eta


def from_tokens(latents: Tensor, *, block: int, kept: int, chroma: Chroma, eta: float, clip: bool = True) -> Tensor:
    """The images of latents: clipped to 2 eta, coefficients that are not kept 0, halved chroma enlarged bilinearly.

    Images (B, 3, H, W), about [-1, 1]: neither clamped nor rounded. clip: False leaves latents as they are.
    """
    latents = full_precision(latents)
    inverse = _inverse(block, kept, dtype=latents.dtype, device=latents.device)
    colours = torch.tensor(_TO_RGB, dtype=latents.dtype, device=latents.device)
    with without_autocast(latents):
        latents = (latents.clamp(-CLIP, CLIP) if clip else latents) * eta
        sizes = [blocks * coefficients for blocks, coefficients in channel_groups(kept, chroma)]
        planes = torch.cat([_plane(part, inverse, block) for part in latents.split(sizes, 1)], 1)
        return (torch.einsum("rc,nchw->nrhw", colours, planes) + _MIDDLE) / _LEVELS - 1


def _plane(coefficients: Tensor, inverse: Tensor, block: int) -> Tensor:
    """One plane (B, 1, H, W) of blocks' coefficients, (B, 4 kept or kept, h, w); a halved plane is enlarged."""
    kept = inverse.shape[1]
    blocks = torch.einsum("pk,nbkhw->nbphw", inverse, coefficients.unflatten(1, (-1, kept)))   # (B, blocks, block**2, h, w)
    if blocks.shape[1] == 1:
        half = F.pixel_shuffle(blocks[:, 0], block)
        return F.interpolate(half, scale_factor=2.0, mode="bilinear", align_corners=False)
    rows = F.pixel_shuffle(blocks.transpose(1, 2).flatten(1, 2), 2)      # (B, block**2, 2h, 2w): block (0, 1) is right of (0, 0)
    return F.pixel_shuffle(rows, block)


@constant
def _inverse(block: int, kept: int) -> Tensor:
    """(block**2, kept): the pixels, in raster order, of each kept coefficient."""
    one = dct_matrix(block, dtype=torch.float64)
    return torch.kron(one, one)[zigzag(block)[:kept]].T.contiguous()


@constant
def _encoding(block: int, kept: int, chroma: Chroma) -> Tensor:
    """(channels, 3 * (2 block)**2 + 1): the coefficients of the pixels of a macro-block, channel by channel; last, a constant."""
    basis = _inverse(block, kept, dtype=torch.float64, device="cpu").T.unflatten(1, (block, block))       # (kept, block, block)
    corners = torch.eye(4, dtype=torch.float64).view(4, 2, 2)
    full = torch.einsum("bij,kuv->bkiujv", corners, basis).reshape(4 * kept, 2 * block, 2 * block)
    halved = basis.repeat_interleave(2, 1).repeat_interleave(2, 2) / 4
    planes = [full, *(halved if chroma == "420" else full for _ in range(2))]
    rows = [
        torch.einsum("c,kij->kcij", torch.tensor(colour, dtype=torch.float64) * _LEVELS, plane).flatten(1)
        for colour, plane in zip(_TO_YCBCR, planes, strict=True)
    ]
    offsets = [plane.sum((1, 2)) * offset for plane, offset in zip(planes, (_LEVELS - _MIDDLE, 0, 0), strict=True)]
    return torch.cat([torch.cat(rows), torch.cat(offsets)[:, None]], 1)
