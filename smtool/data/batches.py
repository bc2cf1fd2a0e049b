"""Batches of images and of latents, and conversion between uint8 and [-1, 1]."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from smtool.networks.posterior import Posterior

Rounding = Literal["nearest", "truncate"]


@dataclass(frozen=True)
class ImageBatch:
    """Images (B, C, H, W), float32 in [-1, 1]; labels (B,) int64 or None; ids: the samples' keys in their shards.

    C: 1 gray, 2 gray with alpha, 3 color, 4 color with alpha; alpha is 1 where the image is opaque, -1 where it is clear.
    features: a teacher's features of the images, (B, D, h, w) float32, or None.
    """

    images: Tensor
    labels: Tensor | None
    ids: tuple[str, ...]
    features: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    def slice(self, start: int, stop: int) -> "ImageBatch":
        labels, features = (None if value is None else value[start:stop] for value in (self.labels, self.features))
        return ImageBatch(self.images[start:stop], labels, self.ids[start:stop], features)

    def split(self, size: int) -> Iterator["ImageBatch"]:
        """Batches of `size` in order; the last may be smaller."""
        return (self.slice(start, start + size) for start in range(0, len(self), size))

    def to(self, device: str | torch.device) -> "ImageBatch":
        images, labels, features = (
            None if value is None else value.to(device, non_blocking=True) for value in (self.images, self.labels, self.features)
        )
        assert images is not None
        return ImageBatch(images, labels, self.ids, features)


@dataclass(frozen=True)
class LatentBatch:
    """Posterior moments before normalization: mean, logvar (B, C, h, w) float32; labels (B,) int64 or None; ids as in ImageBatch.

    images: (B, C, H, W) uint8 or None, mirrored where the latent is that of a mirrored image. features: the teacher's features
    of those images, (B, D, h, w) float32, or None.
    """

    mean: Tensor
    logvar: Tensor
    labels: Tensor | None
    ids: tuple[str, ...]
    images: Tensor | None = None
    features: Tensor | None = None

    def __len__(self) -> int:
        return len(self.mean)

    @property
    def posterior(self) -> Posterior:
        return Posterior(self.mean, self.logvar)

    def slice(self, start: int, stop: int) -> "LatentBatch":
        ids = self.ids[start:stop]
        return self._with(lambda tensor: tensor[start:stop], ids)

    def to(self, device: str | torch.device) -> "LatentBatch":
        return self._with(lambda tensor: tensor.to(device, non_blocking=True), self.ids)

    def _with(self, change: Callable[[Tensor], Tensor], ids: tuple[str, ...]) -> "LatentBatch":
        labels, images, features = (
            None if value is None else change(value) for value in (self.labels, self.images, self.features)
        )
        return LatentBatch(change(self.mean), change(self.logvar), labels, ids, images, features)


def to_signed(images: Tensor) -> Tensor:
    """uint8 images in [0, 255] -> float32 in [-1, 1]."""
    return images.float().div(127.5).sub(1.0)


def to_uint8(images: Tensor, rounding: Rounding = "nearest") -> Tensor:
    """Float images in [-1, 1] -> uint8 in [0, 255]; values outside are clamped.

    "truncate" rounds down, as the sample writers of guided-diffusion and REPA do; it darkens images by half a level on average.
    """
    levels = images.float().add(1.0).mul(127.5)
    return (levels.round() if rounding == "nearest" else levels).clamp(0, 255).to(torch.uint8)
