"""Decodes latents and reconstructs images with a frozen tokenizer, batch by batch."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from smtool.data.batches import ImageBatch, to_uint8
from smtool.errors import CheckpointError
from smtool.inference.encode import Draw, encoded_latents, mode
from smtool.networks.tokenizer import Tokenizer

PIXELS_AT_ONCE = 2**18
"""Image pixels per batch: 4 images at 256 px, for which a Stable Diffusion decoder needs about a gigabyte."""
LARGEST_BATCH = 64


@dataclass(frozen=True)
class Reconstruction:
    """Images (B, C, H, W), raw latents (B, C, h, w) and unclamped decodings (B, C, H, W), all on the tokenizer's device."""

    images: Tensor
    latents: Tensor
    decoded: Tensor


@torch.no_grad()
def reconstructed(
    tokenizer: Tokenizer, batches: Iterable[ImageBatch], draw: Draw = mode, *, first: int = 0
) -> Iterator[Reconstruction]:
    """Encode and decode every batch, and yield the results. first: number of the first image, for draws that depend on it.

    Raises DataError for an encoding and CheckpointError for a decoding that is not finite, naming the image.
    """
    for batch in batches:
        here = batch.to(tokenizer.device)
        (latents,) = encoded_latents(tokenizer, [here], draw, first=first)
        decoded = tokenizer.decode(latents)
        finite = decoded.flatten(1).isfinite().all(1)
        if not finite.all():
            raise CheckpointError(f"the reconstruction of image {batch.ids[finite.tolist().index(False)]} holds NaN or infinity.")
        yield Reconstruction(here.images, latents, decoded)
        first += len(batch)


def uint8_reconstructions(tokenizer: Tokenizer, batches: Iterable[ImageBatch]) -> Tensor:
    """Reconstructions from the posteriors' modes: uint8 (N, C, H, W) on the CPU."""
    return torch.cat([to_uint8(part.decoded).cpu() for part in reconstructed(tokenizer, batches)])


def decoded_in_parts(decode: Callable[[Tensor], Tensor], latents: Tensor, batch: int) -> Tensor:
    """Decode raw latents (N, C, h, w) to images (N, C, H, W), `batch` at a time, on the latents' device."""
    return torch.cat([decode(part) for part in latents.split(batch)])


def images_at_once(height: int, width: int) -> int:
    """Batch size for images of this size, from the memory that a decoder needs."""
    return max(1, min(LARGEST_BATCH, PIXELS_AT_ONCE // (height * width)))
