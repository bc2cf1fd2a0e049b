"""The size of training images over the steps of a run: smaller images are made from the prepared ones, in the training step."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from smtool.image_shape import ImageSize
from smtool.randomness import Streams

Shrink = Literal["resize", "crop"]


@dataclass(frozen=True)
class SizeSchedule:
    """sizes: (first step, size) with rising steps from 0 on. shrink: whether images are resized or cut to the size.

    A function of step and position in the global batch, so that it needs no state and does not depend on ranks.
    """

    sizes: tuple[tuple[int, ImageSize], ...]
    shrink: Shrink = "resize"

    def at(self, step: int) -> ImageSize:
        """The size of the images in a step, counted from 0."""
        return [size for first, size in self.sizes if first <= step][-1]

    def apply(self, images: Tensor, streams: Streams, step: int) -> Tensor:
        """Images (B, C, H, W) in [-1, 1] at the size of the step.

        "resize": bicubic with antialiasing, clamped to [-1, 1]. "crop": a square or rectangle at a random place of each image.
        """
        height, width = self.at(step)
        if images.shape[-2:] == (height, width):
            return images
        if self.shrink == "resize":
            return F.interpolate(images.float(), (height, width), mode="bicubic", antialias=True).clamp(-1, 1)
        free = torch.tensor([images.shape[-2] - height + 1, images.shape[-1] - width + 1])
        places = (replace(streams, device="cpu").uniform("crop", (len(images), 2)) * free).long().tolist()
        return torch.stack(
            [image[:, top : top + height, left : left + width] for image, (top, left) in zip(images, places, strict=True)]
        )

    @property
    def said(self) -> str:
        """For the log: "64 px from step 0, 128 px from step 5,000, resized"."""
        steps = ", ".join(f"{size.words} from step {first:,}" for first, size in self.sizes)
        return f"{steps}, {'resized' if self.shrink == 'resize' else 'cut at random places'}"
