"""What readers yield."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ImageBatch:
    """Images (B, 3, H, W), float32 in [-1, 1]; labels (B,) int64 or None; ids: the samples' keys in their shards."""

    images: Tensor
    labels: Tensor | None
    ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def slice(self, start: int, stop: int) -> "ImageBatch":
        labels = None if self.labels is None else self.labels[start:stop]
        return ImageBatch(self.images[start:stop], labels, self.ids[start:stop])

    def to(self, device: str | torch.device) -> "ImageBatch":
        labels = None if self.labels is None else self.labels.to(device, non_blocking=True)
        return ImageBatch(self.images.to(device, non_blocking=True), labels, self.ids)


def to_signed(images: Tensor) -> Tensor:
    """uint8 images in [0, 255] -> float32 in [-1, 1]."""
    return images.float().div(127.5).sub(1.0)


def to_uint8(images: Tensor) -> Tensor:
    """Float images in [-1, 1] -> uint8, rounded to the nearest level; values outside are clamped."""
    return images.float().add(1.0).mul(127.5).round().clamp(0, 255).to(torch.uint8)
