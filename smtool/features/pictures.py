"""Images as feature networks get them: a batch of one size or a list of several sizes, of one to four channels."""

from collections.abc import Callable, Sequence
from typing import overload

import torch
from torch import Tensor

from smtool.devices import to_device

Pictures = Tensor | Sequence[Tensor]
"""A batch (B, C, H, W), or images (C, H, W) of several sizes."""
ALPHA = (2, 4)
"""Numbers of channels of which the last is alpha: grey with alpha, and RGBA."""


@overload
def each(pictures: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor: ...


@overload
def each(pictures: Sequence[Tensor], change: Callable[[Tensor], Tensor]) -> Sequence[Tensor]: ...


def each(pictures: Pictures, change: Callable[[Tensor], Tensor]) -> Pictures:
    """Apply a function of batches (B, C, H, W) to a batch, or to each image of a list by itself."""
    return change(pictures) if isinstance(pictures, Tensor) else [change(image[None])[0] for image in pictures]


def moved(pictures: Pictures, device: torch.device) -> Pictures:
    return each(pictures, lambda images: to_device(images, device))


def as_rgb(images: Tensor) -> Tensor:
    """Grey, grey with alpha, RGB or RGBA images (B, C, H, W) -> (B, 3, H, W) of the same type: uint8, or float in [-1, 1].

    Grey is repeated over three channels. Where there is alpha, colors are composited on mid grey (127.5, in floats 0); uint8
    results are rounded. Floats are differentiable; values outside [-1, 1] are not clamped.
    """
    if images.ndim != 4 or not 1 <= images.shape[1] <= 4:
        raise ValueError(f"images (B, C, H, W) with 1 to 4 channels are needed, found {tuple(images.shape)}")
    return (_over_grey(images) if images.shape[1] in ALPHA else images).expand(-1, 3, -1, -1)


def seen_channels(channels: int) -> str:
    """What `as_rgb` does to images with this number of channels, for passports."""
    done = ["alpha composited on grey"] if channels in ALPHA else []
    done += ["grey repeated to three channels"] if channels <= 2 else []
    return ", ".join(done) or "RGB"


def seen_by_both(images: int, reference: int | None) -> str:
    """What `as_rgb` does to images and to a reference with these numbers of channels; reference None: there is none."""
    if reference is None or reference == images:
        return seen_channels(images)
    return f"images: {seen_channels(images)}; reference: {seen_channels(reference)}"


def _over_grey(images: Tensor) -> Tensor:
    colors, alpha = images[:, :-1], images[:, -1:]
    if images.is_floating_point():
        return colors * (alpha + 1.0) / 2.0
    share = alpha.float() / 255.0
    return (colors.float() * share + 127.5 * (1.0 - share)).round().to(torch.uint8)
