"""Recolouring: a linear, invertible filter that gives latents another power spectrum without any training.

The filter multiplies each coefficient of the orthonormal DCT by a positive gain, which depends on the channel and the radial
frequency; division undoes it. ESM (arXiv 2603.14645) trains an encoder for the spectrum of the images times f^delta; this filter
gives the latents of any encoder that spectrum. White noise in recoloured latents is noise of spectrum 1 / gain^2 in the original
ones, so recolouring also gives each frequency its own noise schedule (`smtool.spectrum.theory.recoloured_crossing`).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from smtool.devices import to_device
from smtool.spectrum.calibration import FitRange, expected_power
from smtool.spectrum.dct import dct2, idct2
from smtool.spectrum.delta import highest_frequency
from smtool.spectrum.powerlaw import SMALLEST_SIDE as SMALLEST_SIDE_OF_FITS
from smtool.spectrum.psd import Size
from smtool.spectrum.radial_bands import SMALLEST_SIDE, RadialPower, band_count, band_frequency, band_means, cell_frequency

Flatten = float | Literal["white"]
LARGEST_GAIN = 32.0
"""Gains of latents with unit variance are limited to [1 / 32, 32], 30 dB. A band with less than 1 / 1024 of the power that the
law asks for stays below the law: its content is mostly noise of the posterior or rounding, which more gain would only amplify.
For bands with too much power, the limit bounds by how much decoding amplifies a sampler's errors."""
_BISECTIONS = 80


@dataclass(frozen=True)
class Recolouring:
    """The filter of latents (B, C, h, w) that have mean 0 and standard deviation 1 in each channel.

    flatten: the law: delta for the images' spectrum times f^delta, or "white". size: (h, w). gains: (C, bands) float64, at the
    frequency of each band (`radial_bands.band_frequency`).
    """

    flatten: Flatten
    size: Size
    gains: Tensor

    def apply(self, latents: Tensor) -> Tensor:
        """Filter latents, computed in float64 and returned in their dtype. Raises ValueError for another shape."""
        return self._filtered(latents, self.cell_gains)

    def undo(self, latents: Tensor) -> Tensor:
        """The inverse of `apply`."""
        return self._filtered(latents, 1.0 / self.cell_gains)

    def to_metadata(self) -> dict[str, object]:
        return {"flatten": self.flatten, "size": list(self.size), "gains": self.gains.tolist()}

    @classmethod
    def from_metadata(cls, value: dict[str, Any]) -> "Recolouring":
        """Read the result of `to_metadata`."""
        height, width = value["size"]
        return cls(value["flatten"], (height, width), torch.tensor(value["gains"], dtype=torch.float64))

    @cached_property
    def cell_gains(self) -> Tensor:
        """The gain of each DCT cell, (C, h, w) float64: ln gain interpolated linearly in ln frequency between bands.

        Beyond the highest band the gain stays equal. Cell (0, 0), which has no frequency, has its own gain.
        """
        at, of_bands = cell_frequency(self.size), band_frequency(self.size)[1:]
        at[0, 0] = of_bands[0]
        x, knots, values = at.log().flatten(), of_bands.log(), self.gains[:, 1:].log()
        x = x.clamp(knots[0], knots[-1])
        right = torch.searchsorted(knots, x).clamp(1, len(knots) - 1)
        weight = (x - knots[right - 1]) / (knots[right] - knots[right - 1])
        cells = torch.lerp(values[:, right - 1], values[:, right], weight).exp()
        return torch.cat([self.gains[:, :1], cells[:, 1:]], dim=1).unflatten(1, self.size)

    @property
    def num_limited(self) -> int:
        """Number of bands, over all channels, whose gain is at LARGEST_GAIN or its inverse."""
        return int(((self.gains >= LARGEST_GAIN) | (self.gains <= 1 / LARGEST_GAIN)).sum())

    def _filtered(self, latents: Tensor, factor: Tensor) -> Tensor:
        if latents.shape[-3:] != factor.shape:
            raise ValueError(f"recolouring was measured on latents of {tuple(factor.shape)}, not {tuple(latents.shape[-3:])}")
        return idct2(dct2(latents.double()) * to_device(factor, latents.device)).to(latents.dtype)


def check_size(size: Size, flatten: Flatten) -> None:
    """Raise ValueError for a grid that is too small: "white" needs 3x3 cells, a fitted power law 8x8."""
    least = SMALLEST_SIDE if flatten == "white" else SMALLEST_SIDE_OF_FITS
    if min(size) < least:
        other = '; "white" needs 3x3' if flatten != "white" and min(size) >= SMALLEST_SIDE else ""
        raise ValueError(f"flatten = {flatten} needs latents of at least {least}x{least} cells, not {size[0]}x{size[1]}{other}")


def recolouring(power: RadialPower, mean: Tensor, std: Tensor, flatten: Flatten) -> Recolouring:
    """The filter that gives latents, after (z - mean) / std per channel, the law `flatten` and variance 1 in every channel.

    mean, std: (C,), of the measured latents. The law sets the power of every band. The power below the fundamental is unknown,
    so cell (0, 0) gets that of the lowest ring. Raises ValueError as `check_size` and `flattened_power` do.
    """
    check_size(power.size, flatten)
    count = band_count(power.size)
    target = torch.ones_like(count) if flatten == "white" else flattened_power(power, flatten)
    normalized = power.latent_power(mean) / std.double().square()[:, None]
    return Recolouring(flatten, power.size, _gains(normalized, target, count))


def flattened_power(power: RadialPower, delta: float) -> Tensor:
    """Power of a latent that is its image times f^delta, in each band, correct up to a constant factor: (bands,).

    The DCT of a finite window leaks power between frequencies, differently for images and for latents and for every exponent. So
    the images' power is multiplied by the ratio of the expected powers of two power laws: that of their fitted exponent minus
    delta on the latent's grid, and that of their exponent on their own. `fit_delta` then finds delta.
    Raises ValueError for images without power in a band. The grid must have at least 8x8 cells.
    """
    size, source = power.size, power.source
    images = power.image_power()
    rings = images[:-1]      # without the corner
    exponent = FitRange(size, source, 0.9 / min(size), highest_frequency(size, source)).exponent(rings).item()
    ratio = band_means(expected_power(exponent - delta, size, size)) / band_means(expected_power(exponent, size, source))
    above = images * ratio[1:]
    return torch.cat([above[:1], above])


def _gains(power: Tensor, target: Tensor, count: Tensor) -> Tensor:
    """Gains sqrt(c target / power) within the limits, with c per channel such that the filtered channel has variance 1.

    power: (C, bands) of the channels at variance 1. With c = 0 all bands have the lowest gain and less variance than 1, with a
    large c the highest and more; the variance grows with c, so c is found by bisection.
    """
    wanted = (target / power.clamp(min=1e-30)).log()
    low, high = (torch.full((len(power), 1), sign * 200.0, dtype=torch.float64) for sign in (-1, 1))
    limit = 2 * torch.tensor(LARGEST_GAIN, dtype=torch.float64).log()
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        squared = (wanted + middle).clamp(-limit, limit).exp()
        above = ((squared * power * count).sum(1, keepdim=True) > count.sum())
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return (0.5 * (wanted + low)).clamp(-limit / 2, limit / 2).exp()
