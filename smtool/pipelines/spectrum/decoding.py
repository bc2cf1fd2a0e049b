"""Decoding for the measuring sections: batches sized to memory, and the one decoding of whole latents that they share."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from smtool.networks.tokenizer import Tokenizer

PIXELS_AT_ONCE = 2**18
"""Image pixels of a batch: 4 images at 256 px, for which a Stable Diffusion decoder holds about a gigabyte."""
LARGEST_BATCH = 64


def images_at_once(height: int, width: int) -> int:
    """Images of this size that make one batch."""
    return max(1, min(LARGEST_BATCH, PIXELS_AT_ONCE // (height * width)))


def batch_of_latents(codec: Tokenizer, latents: Tensor) -> int:
    """Latents (N, C, h, w) of one batch, by the size of their images."""
    return images_at_once(*(side * codec.downsample for side in latents.shape[-2:]))


def decoded(codec: Tokenizer, latents: Tensor) -> Tensor:
    """Images (N, 3, H, W) of raw latents (N, C, h, w), batch by batch."""
    with exact_convolutions():
        return torch.cat([codec.decode(z) for z in latents.split(batch_of_latents(codec, latents))])


@torch.no_grad()
def reconstructed(codec: Tokenizer, latents: Tensor) -> Tensor | None:
    """The decoding of whole latents, made once and passed to every section that compares with it; None without a decoder."""
    return decoded(codec, latents) if codec.can_decode else None


def exactly(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The function under `exact_convolutions`."""

    def run(x: Tensor) -> Tensor:
        with exact_convolutions():
            return function(x)

    return run


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Convolutions in float32 on a GPU too: TF32, its default, drowns differences of nearly equal images."""
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = convolutions.fp32_precision
    convolutions.fp32_precision = "ieee"
    try:
        yield
    finally:
        convolutions.fp32_precision = before
