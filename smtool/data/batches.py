"""Batches of images and of latents, and conversion between uint8 and [-1, 1]."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from smtool.networks.posterior import Posterior

Rounding = Literal["nearest", "truncate"]


@dataclass(frozen=True)
class ImageBatch:
    """Images (B, C, H, W), float32 in [-1, 1], or uint8 as they are stored (`signed` makes them the former); labels (B,) int64 or
    None; ids: the samples' keys in their shards.

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

    def pinned(self) -> "ImageBatch":
        """The batch in pinned memory, from which a GPU copies without making the host wait."""
        labels, features = (None if value is None else value.pin_memory() for value in (self.labels, self.features))
        return ImageBatch(self.images.pin_memory(), labels, self.ids, features)


@dataclass(frozen=True)
class LatentBatch:
    """Posterior moments before normalization: mean, logvar (B, C, h, w) float32, or bfloat16 as a cache stores them; labels (B,)
    int64 or None; ids as in ImageBatch.

    images: (B, C, H, W) uint8 or None, mirrored where the latent is that of a mirrored image. features: the teacher's features
    of those images, (B, D, h, w) of the same dtypes, or None.
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
        """In float32 at least."""
        return Posterior(widened(self.mean), widened(self.logvar))

    def slice(self, start: int, stop: int) -> "LatentBatch":
        ids = self.ids[start:stop]
        return self._with(lambda tensor: tensor[start:stop], ids)

    def to(self, device: str | torch.device) -> "LatentBatch":
        return self._with(lambda tensor: tensor.to(device, non_blocking=True), self.ids)

    def in_float32(self) -> "LatentBatch":
        """The batch with moments and features in float32."""
        features = None if self.features is None else widened(self.features)
        return replace(self, mean=widened(self.mean), logvar=widened(self.logvar), features=features)

    def pinned(self) -> "LatentBatch":
        """As `ImageBatch.pinned`; tensors on a GPU stay there."""
        return self._with(lambda tensor: tensor.pin_memory() if tensor.device.type == "cpu" else tensor, self.ids)

    def _with(self, change: Callable[[Tensor], Tensor], ids: tuple[str, ...]) -> "LatentBatch":
        labels, images, features = (
            None if value is None else change(value) for value in (self.labels, self.images, self.features)
        )
        return LatentBatch(change(self.mean), change(self.logvar), labels, ids, images, features)


def to_signed(images: Tensor) -> Tensor:
    """uint8 images in [0, 255] -> float32 in [-1, 1]."""
    return images.float().div(127.5).sub(1.0)


def signed(images: Tensor) -> Tensor:
    """Images in [-1, 1]: `to_signed` of uint8 images, others as they are."""
    return to_signed(images) if images.dtype == torch.uint8 else images


def widened(stored: Tensor) -> Tensor:
    """A tensor of a cache in float32, in which it has the same values; float32 and float64 as they are."""
    return stored.to(torch.promote_types(stored.dtype, torch.float32))


def to_uint8(images: Tensor, rounding: Rounding = "nearest") -> Tensor:
    """Float images in [-1, 1] -> uint8 in [0, 255]; values outside are clamped.

    "truncate" rounds down, as the sample writers of guided-diffusion and REPA do; it darkens images by half a level on average.
    """
    levels = images.float().add(1.0).mul(127.5)
    return (levels.round() if rounding == "nearest" else levels).clamp(0, 255).to(torch.uint8)
