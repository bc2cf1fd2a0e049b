"""FreqWarm (released-code.md#freqwarm): train a transformer's first steps on the latents of low-passed images."""

import math
from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from smtool.config import Config
from smtool.diffusion.process import at_least_float32

Filter = Literal["ideal", "butterworth", "gaussian"]
CORNER = math.sqrt(0.5)
"""Largest radius, in cycles per pixel: the corners of the Fourier domain. Its axes end at 0.5."""


class Warmup(Config):
    """Train on latents of low-passed images, E(low-pass(x)), in the first steps, and on E(x) afterwards.

    This is no curriculum from smooth to sharp latents: latents of low-passed images are said to have relatively more power at
    high frequencies. The images are filtered, not the latents, so the warm-up encodes images in every step, without a cache.

    The filters are those of the released snippet. It states nothing of the training, so these choices are smtool's: an abrupt
    end after `steps`, which is required; latents normalized by the statistics of unfiltered images; one optimizer and one
    schedule for both parts; unfiltered images for the teacher of an [alignment].
    """

    kind: Filter = Field("ideal", description="shape of the low-pass in the Fourier domain")
    cutoff: float = Field(0.20, gt=0, description="cutoff in cycles per pixel; axes end at 0.5, corners at 0.707")
    order: int = Field(2, ge=1, description="butterworth only: order of the filter; higher is steeper")
    steps: int = Field(ge=1, description="length of the warm-up in optimizer steps")

    def problems(self) -> Iterator[tuple[str, str]]:
        """(key, sentence) for a filter that removes nothing."""
        if self.kind == "ideal" and self.cutoff >= CORNER:
            yield "cutoff", f"must be below {CORNER:.4f}, the corners, for an ideal filter, but is {self.cutoff:g}"

    def active(self, step: int) -> bool:
        """Whether step 0, 1, ... is one of the first `steps`."""
        return step < self.steps

    def filtered(self, images: Tensor) -> Tensor:
        return fourier_low_pass(images, self.cutoff, kind=self.kind, order=self.order)


def fourier_low_pass(images: Tensor, cutoff: float, *, kind: Filter, order: int) -> Tensor:
    """Multiply each channel's discrete Fourier transform by `fourier_gain`, with periodic borders.

    images: (..., H, W). Returns the same shape and dtype, not clipped, as released: ringing of an ideal filter can exceed the
    images' range.
    Computed in float32 or higher precision.
    """
    with torch.autocast(images.device.type, enabled=False):
        x = at_least_float32(images)
        height, width = x.shape[-2:]
        gain = fourier_gain(height, width, cutoff, kind=kind, order=order).to(x)
        return torch.fft.irfft2(torch.fft.rfft2(x) * gain, s=(height, width)).to(images.dtype)


def fourier_gain(height: int, width: int, cutoff: float, *, kind: Filter, order: int) -> Tensor:
    """(H, W // 2 + 1) float64: gain at radius r = sqrt(fy^2 + fx^2) in cycles per pixel, in the layout of torch.fft.rfft2.

    ideal: 1 where r <= cutoff, else 0. butterworth: 1 / (1 + (r / cutoff)^(2 order)), 1/2 at the cutoff. gaussian:
    exp(-r^2 / (2 cutoff^2)), 0.61 at the cutoff. Source: released-code.md#freqwarm.
    """
    rows = torch.fft.fftfreq(height, dtype=torch.float64)
    columns = torch.fft.rfftfreq(width, dtype=torch.float64)
    ratio = torch.hypot(rows[:, None], columns) / cutoff
    if kind == "ideal":
        return (ratio <= 1).double()
    if kind == "butterworth":
        return 1 / (1 + ratio ** (2 * order))
    return torch.exp(-ratio.square() / 2)
