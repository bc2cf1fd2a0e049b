"""Ring powers of many images or latents, collected batch by batch."""

from dataclasses import replace

import torch
from torch import Tensor

from smtool.spectrum.estimators import Estimator
from smtool.spectrum.psd import Size, Spectrum, spectrum_of


class RingTable:
    """Ring powers (N, C, bins) under one estimator. size: (h, w) of the latents that images are compared with, or None."""

    def __init__(self, estimator: Estimator, size: Size | None = None) -> None:
        self._estimator, self._size = estimator, size
        self._parts: list[Tensor] = []
        self._rings: Spectrum | None = None

    def add(self, x: Tensor) -> None:
        """Add a batch of images or latents (B, C, H, W)."""
        spectrum = spectrum_of(x.flatten(0, 1)[:, None], self._estimator, self._size)
        self._parts.append(spectrum.power.unflatten(0, x.shape[:2]))
        self._rings = spectrum

    def spectrum(self, std: Tensor | None = None) -> Spectrum:
        """The spectrum averaged over channels. std: (C,), divides the channels first (only for estimators without DC)."""
        return self._with(self._divided(std).mean(1))

    def channels(self, std: Tensor | None = None) -> list[Spectrum]:
        """The spectrum of every channel. std: (C,), divides the channels first (only for estimators without DC)."""
        return [self._with(power) for power in self._divided(std).unbind(1)]

    def _divided(self, std: Tensor | None) -> Tensor:
        self._parts = [torch.cat(self._parts)]
        (power,) = self._parts
        return power if std is None else power / std.to(power).square().clamp(min=1e-24)[:, None]

    def _with(self, power: Tensor) -> Spectrum:
        assert self._rings is not None
        return replace(self._rings, power=power)
