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

from smtool.devices import in_float64, to_device
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
SMALLEST_POWER = 1e-12
"""Lower limit of a band's power, relative to the mean over all cells, so that it has a logarithm."""
_BISECTIONS, _CORRECTIONS = 60, 20


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

        Cells outside the first and the last band's frequency continue the nearest line, within the limits of the gains. Cell
        (0, 0), which has no frequency, has its own gain.
        """
        return _at_cells(self.gains, self.size).clamp(1 / LARGEST_GAIN, LARGEST_GAIN)

    @property
    def num_limited(self) -> int:
        """Number of bands, over all channels, whose gain is at LARGEST_GAIN or its inverse."""
        return int(((self.gains >= LARGEST_GAIN) | (self.gains <= 1 / LARGEST_GAIN)).sum())

    def _filtered(self, latents: Tensor, factor: Tensor) -> Tensor:
        if latents.shape[-3:] != factor.shape:
            raise ValueError(f"recolouring was measured on latents of {tuple(factor.shape)}, not {tuple(latents.shape[-3:])}")
        exact = in_float64(latents)
        return idct2(dct2(exact) * to_device(factor, exact.device)).to(latents)


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
    target = torch.ones_like(band_count(power.size)) if flatten == "white" else flattened_power(power, flatten)
    normalized = power.latent_power(mean) / std.double().square()[:, None]
    return Recolouring(flatten, power.size, _gains(normalized, target, power.size))


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


def _gains(power: Tensor, target: Tensor, size: Size) -> Tensor:
    """Gains sqrt(c target / power) at the bands' frequencies, within the limits; with c per channel for a variance of 1.

    power: (C, bands) of the channels at variance 1. The variance of filtered latents grows with c, from below to above 1 because
    of the limits, so c is found by bisection.
    """
    power_knots = _knots(power.clamp(min=SMALLEST_POWER), size)
    cells = _at_cells(power_knots, size)
    wanted = 0.5 * (_knots(target[None], size).log() - power_knots.log())
    low, high = (torch.full((len(power), 1), sign * 100.0, dtype=torch.float64) for sign in (-1, 1))

    def limited(log_scale: Tensor) -> Tensor:
        return (wanted + log_scale).exp().clamp(1 / LARGEST_GAIN, LARGEST_GAIN)

    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        gains = _at_cells(limited(middle), size).clamp(1 / LARGEST_GAIN, LARGEST_GAIN)
        above = ((gains.square() * cells).mean((1, 2)) > 1.0)[:, None]
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return limited(low)


def _knots(means: Tensor, size: Size) -> Tensor:
    """Values at the bands' frequencies whose interpolation has these means over the bands' cells, (C, bands) -> (C, bands).

    A fixed-point iteration, limited to a factor e: next to an empty band, no interpolation has its mean.
    """
    correction = torch.zeros_like(means)
    for _ in range(_CORRECTIONS):
        found = band_means(_at_cells(means * correction.exp(), size))
        correction = (correction + (means / found).log()).clamp(-1.0, 1.0)
    return means * correction.exp()


def _at_cells(values: Tensor, size: Size) -> Tensor:
    """Interpolate positive values at the bands' frequencies, (C, bands), to cells, (C, h, w): linear in ln over ln frequency.

    Cells outside the first and the last band's frequency continue the nearest line. Cell (0, 0), which has no frequency, has the
    value of its own band.
    """
    at, knots = cell_frequency(size).flatten()[1:].log(), band_frequency(size)[1:].log()
    right = torch.searchsorted(knots, at).clamp(1, len(knots) - 1)
    weight = (at - knots[right - 1]) / (knots[right] - knots[right - 1])
    logs = values[:, 1:].log()
    cells = torch.lerp(logs[:, right - 1], logs[:, right], weight).exp()
    return torch.cat([values[:, :1], cells], dim=1).unflatten(1, size)
