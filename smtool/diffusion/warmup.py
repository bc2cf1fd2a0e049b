"""FreqWarm: a transformer's first steps see the latents of low-passed images (facts section 5.6)."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from smtool.config import Config
from smtool.diffusion.process import at_least_float32

Filter = Literal["ideal", "butterworth", "gaussian"]


class Warmup(Config):
    """Train on E(low-pass(x)) at first, on E(x) afterwards.

    The images are filtered, not the latents, so a cache of latents does not serve: the warm-up encodes as it trains. Latents
    keep the normalization of whole images. An [alignment]'s teacher sees the unfiltered images all the while: the features are
    what tokens are to be led to, and a teacher was never shown such blur. The released snippet does not say how many steps the
    warm-up lasts.
    """

    kind: Filter = Field("ideal", description="shape of the low-pass in the Fourier domain")
    cutoff: float = Field(0.20, gt=0, description="cycles per pixel; Nyquist is 0.5 along an axis, 0.71 along the diagonal")
    order: int = Field(2, ge=1, description="butterworth only: steepness")
    steps: int = Field(ge=1, description="optimizer steps that the warm-up lasts")

    def active(self, step: int) -> bool:
        """Whether step 0, 1, ... is one of the first `steps`."""
        return step < self.steps

    def filtered(self, images: Tensor) -> Tensor:
        return fourier_low_pass(images, self.cutoff, kind=self.kind, order=self.order)


def fourier_low_pass(images: Tensor, cutoff: float, *, kind: Filter, order: int) -> Tensor:
    """Multiply each channel's discrete Fourier transform by `fourier_gain`; borders are periodic.

    images: (..., H, W). Returns the same shape and dtype, not clipped: an ideal filter rings beyond the images' range.
    Computed in float32 at least.
    """
    with torch.autocast(images.device.type, enabled=False):
        x = at_least_float32(images)
        height, width = x.shape[-2:]
        gain = fourier_gain(height, width, cutoff, kind=kind, order=order).to(x)
        return torch.fft.irfft2(torch.fft.rfft2(x) * gain, s=(height, width)).to(images.dtype)


def fourier_gain(height: int, width: int, cutoff: float, *, kind: Filter, order: int) -> Tensor:
    """(H, W // 2 + 1) float64: gain at radius r = sqrt(fy^2 + fx^2) in cycles per pixel, laid out as torch.fft.rfft2 is.

    ideal: 1 where r <= cutoff, else 0. butterworth: 1 / (1 + (r / cutoff)^(2 order)), 1/2 at the cutoff. gaussian:
    exp(-r^2 / (2 cutoff^2)), 0.61 at the cutoff. What the released options call their cutoff is not known; these are ours.
    """
    rows = torch.fft.fftfreq(height, dtype=torch.float64)
    columns = torch.fft.rfftfreq(width, dtype=torch.float64)
    ratio = torch.hypot(rows[:, None], columns) / cutoff
    if kind == "ideal":
        return (ratio <= 1).double()
    if kind == "butterworth":
        return 1 / (1 + ratio ** (2 * order))
    return torch.exp(-ratio.square() / 2)
