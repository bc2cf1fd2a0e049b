"""Mean, standard deviation and power spectrum of sampled latents, in float64, for LatentStats."""

import math
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from smtool.config import Config
from smtool.data.images.loading import prefetched
from smtool.data.images.reader import ImageShards
from smtool.errors import DataError
from smtool.metrics.frechet import FeatureStats
from smtool.networks.posterior import LatentStats, Posterior
from smtool.networks.tokenizer import Tokenizer
from smtool.randomness import generator, noise_of
from smtool.spectrum.radial_bands import RadialPower, has_bands
from smtool.spectrum.recolour import Flatten, Recolouring, recolouring
from smtool.tokenizers.encode import encoded


@dataclass(frozen=True)
class Spectral:
    """Statistics per channel with a recolouring to the law `flatten`: delta relative to the images, or "white"."""

    flatten: Flatten


StatsKind = Literal["channel", "scalar", "rms"] | Spectral


@dataclass(frozen=True)
class LatentMoments:
    """Moments of latents; `a + b` merges two. count: latents measured; cells: moments of the C-vectors at all positions.

    power: radial power of latents and images; None for a grid without bands, or if any part has none.
    """

    count: int
    cells: FeatureStats
    power: RadialPower | None = None

    @classmethod
    def of(
        cls, posterior: Posterior, images: Tensor, numbers: Sequence[int], *, flipped: bool, seed: int
    ) -> "LatentMoments":
        """Moments of one sampled latent per image; its noise depends only on seed, image number and flip.

        images: those that were encoded. The power of mirrored images is that of the images, so it is measured once.
        """
        side = "flipped" if flipped else "plain"
        drawn = (generator("latent statistics", seed, number, side) for number in numbers)
        latents = posterior.sample(noise_of(drawn, posterior.mean.shape[1:]))
        cells = FeatureStats.of(latents.transpose(0, 1).flatten(1).T)
        measured = has_bands((latents.shape[-2], latents.shape[-1]), (images.shape[-2], images.shape[-1]))
        return cls(len(latents), cells, RadialPower.of(latents, images[: 0 if flipped else None]) if measured else None)

    def __add__(self, other: "LatentMoments") -> "LatentMoments":
        power = None if self.power is None or other.power is None else self.power + other.power
        return LatentMoments(self.count + other.count, self.cells + other.cells, power)


class MeasuredPower(Config):
    """`RadialPower` as it is stored: sums over latents, per channel, and over their images, in radial bands."""

    size: tuple[int, int]
    source: tuple[int, int]
    num_latents: int
    num_images: int
    latents: tuple[tuple[float, ...], ...]
    images: tuple[float, ...]

    @classmethod
    def of(cls, power: RadialPower, *, digits: Callable[[float], float] = float) -> "MeasuredPower":
        """digits: rounds each sum."""
        return cls(
            size=power.size,
            source=power.source,
            num_latents=power.num_latents,
            num_images=power.num_images,
            latents=tuple(tuple(map(digits, row)) for row in power.latents.tolist()),
            images=tuple(map(digits, power.images.tolist())),
        )

    @property
    def radial(self) -> RadialPower:
        latents, images = (torch.tensor(value, dtype=torch.float64) for value in (self.latents, self.images))
        return RadialPower(self.size, self.source, self.num_latents, self.num_images, latents, images)


class Measured(Config):
    """Population mean and standard deviation of `count` sampled latents, per channel and over all channels.

    power: None for latents of fewer than 3x3 cells, and in files of earlier versions.
    """

    count: int
    channel_mean: tuple[float, ...]
    channel_std: tuple[float, ...]
    scalar_mean: float
    scalar_std: float
    power: MeasuredPower | None = None

    @classmethod
    def of(cls, moments: LatentMoments) -> "Measured":
        cells = moments.cells
        variance = cells.scatter.diagonal() / cells.count  # (C,)
        mean = cells.mean.mean()
        return cls(
            count=moments.count,
            channel_mean=tuple(map(_short, cells.mean.tolist())),
            channel_std=tuple(map(_short, variance.sqrt().tolist())),
            scalar_mean=_short(mean.item()),
            scalar_std=_short(math.sqrt((variance + (cells.mean - mean).square()).mean().item())),
            power=None if moments.power is None else MeasuredPower.of(moments.power, digits=_short),
        )

    def stats(self, kind: StatsKind, *, data: str) -> LatentStats:
        """Statistics for normalization: (z - mean) / std per channel, or z / std for "scalar", which keeps the mean.

        "rms" is scalar too: z divided by its root mean square, as DC-AE's latents are.

        The scalar form is that of the released trainers: U-ViT's extraction multiplies by 1 / std, REPA's bias is 0
        (released-code.md#latent-normalization). Spectral statistics filter the channels after that. Raises DataError for a
        channel with std 0, and where a recolouring has no measured spectrum or no law.
        """
        scale = math.hypot(self.scalar_mean, self.scalar_std) if kind == "rms" else self.scalar_std
        mean, std = ((0.0,), (scale,)) if kind in ("scalar", "rms") else (self.channel_mean, self.channel_std)
        if constant := [channel for channel, value in enumerate(std) if not value > 0.0]:
            raise DataError(
                f"Latent channel {constant[0]} has the same value everywhere (std 0), so it cannot be normalized.",
                hint="The autoencoder does not use it: train it longer or with fewer latent_channels, or use scalar statistics.",
            )
        residual = torch.tensor([self.scalar_mean / scale]) if kind in ("scalar", "rms") else torch.zeros(len(mean))
        recoloured = self._recolouring(kind.flatten) if isinstance(kind, Spectral) else None
        name: Literal["channel", "scalar", "spectral"] = "channel" if kind == "channel" else "scalar"
        name = "spectral" if isinstance(kind, Spectral) else name
        return LatentStats(name, torch.tensor(mean), torch.tensor(std), self.count, data, residual, recoloured)

    def _recolouring(self, flatten: Flatten) -> Recolouring:
        if self.power is None:
            raise DataError(
                "The spectrum of these latents was not measured, so they cannot be recoloured.",
                hint="Latents need at least 3x3 cells. A cache of an earlier version has no spectrum: delete its folder, "
                "so that it is prepared again, or use --set latents.online=true.",
            )
        mean, std = (torch.tensor(value, dtype=torch.float64) for value in (self.channel_mean, self.channel_std))
        try:
            return recolouring(self.power.radial, mean, std, flatten)
        except ValueError as error:
            hint = 'Use flatten = "white", or stats = "channel".'
            raise DataError(f"Latents cannot be recoloured: {error}.", hint=hint) from error


def measure_latents(
    images: ImageShards,
    autoencoder: Tokenizer,
    *,
    kind: StatsKind,
    count: int | None,
    flip: bool,
    batch: int,
    workers: int,
    seed: int = 0,
    report: Callable[[int, int], object] | None = None,
) -> LatentStats:
    """Measure statistics without a cache, on the first `count` images in stored order (already shuffled; None: all).

    flip: measure the flipped images too. An fp32 cache of the same images has the same statistics up to rounding.
    """
    stop = len(images) if count is None else min(count, len(images))
    moments: LatentMoments | None = None
    pieces = [range(start, min(start + batch, stop)) for start in range(0, stop, batch)]
    with closing(prefetched(images.read, pieces, workers)) as batches:
        for piece, read in zip(pieces, batches, strict=True):
            for flipped in (False, True)[: 1 + flip]:
                posterior = encoded(autoencoder, read.images.flip(-1) if flipped else read.images, read.ids)
                part = LatentMoments.of(posterior, read.images, piece, flipped=flipped, seed=seed)
                moments = part if moments is None else moments + part
            if report:
                report(piece.stop, stop)
    assert moments is not None  # an opened split is not empty
    return Measured.of(moments).stats(kind, data=images.digest)


def _short(value: float) -> float:
    """Rounded to 9 significant digits (more than float32 has), so that the result does not depend on the number of threads."""
    return float(f"{value:.9g}")
