"""A reconstruction loss that is split by frequency: absolute differences in each band of a Haar transform.

The idea is that of "Missing fine details" (arXiv 2509.05441), which separates low and high frequencies by wavelets. Its formula
and weights could not be read, so the transform, the norm and the defaults here are smtool's own.
"""

from typing import Annotated

import torch
from pydantic import Field, model_validator
from torch import Tensor

from smtool.config import Config
from smtool.spectrum import haar_bands

BandWeight = Annotated[float, Field(ge=0)]


class Wavelet(Config):
    """Frequency-split reconstruction loss, beside the pixel-wise one: mean absolute difference in each Haar band."""

    weight: float = Field(1.0, gt=0, description="factor of the whole term")
    levels: int = Field(2, ge=1, le=12, description="how often the low band is halved; images need sides of 2^levels or more")
    low: BandWeight = Field(1.0, description="factor of the low band of the last level")
    high: BandWeight | tuple[BandWeight, ...] = Field(
        1.0, description="factor of the details: one number, or one per level, finest first; details of a level are three bands"
    )

    @model_validator(mode="after")
    def _a_weight_for_each_level(self) -> "Wavelet":
        if len(self.by_level) != self.levels:
            count = len(self.by_level)
            raise ValueError(f"high has {count} numbers, but levels is {self.levels}; give one number, or one per level")
        if self.low == 0 and not any(self.by_level):
            raise ValueError("low and high are 0, so the term is always 0; delete the table instead")
        return self

    @property
    def by_level(self) -> tuple[float, ...]:
        """The factor of the details of each level, finest first."""
        return self.high if isinstance(self.high, tuple) else (self.high,) * self.levels

    @property
    def smallest_input(self) -> int:
        """The smallest side in pixels that has all levels."""
        return int(2**self.levels)

    def loss(self, reconstruction: Tensor, images: Tensor) -> Tensor:
        """low * mean |low band| + sum over levels of high * mean |details| of the difference (B, C, H, W); without `weight`.

        Bands are orthonormal, so the low band of level l is 2^l times a local mean of the difference.
        """
        bands = haar_bands(reconstruction - images, self.levels)
        terms = [factor * details.abs().mean() for factor, details in zip(self.by_level, bands.high, strict=True)]
        return torch.stack([self.low * bands.low.abs().mean(), *terms]).sum()
