"""Mean and standard deviation of sampled latents, in float64, for LatentStats."""

import math
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

import torch

from smtool.config import Config
from smtool.data.images.loading import prefetched
from smtool.data.images.reader import ImageShards
from smtool.errors import DataError
from smtool.metrics.frechet import FeatureStats
from smtool.networks.posterior import LatentStats, Posterior
from smtool.networks.tokenizer import Tokenizer
from smtool.randomness import generator, noise_of
from smtool.tokenizers.encode import encoded

StatsKind = Literal["channel", "scalar"]


@dataclass(frozen=True)
class LatentMoments:
    """Moments of latents; `a + b` merges two. count: latents measured; cells: moments of the C-vectors at all positions."""

    count: int
    cells: FeatureStats

    @classmethod
    def of(cls, posterior: Posterior, numbers: Sequence[int], *, flipped: bool, seed: int) -> "LatentMoments":
        """Moments of one sampled latent per image; its noise depends only on seed, image number and flip."""
        side = "flipped" if flipped else "plain"
        drawn = (generator("latent statistics", seed, number, side) for number in numbers)
        latents = posterior.sample(noise_of(drawn, posterior.mean.shape[1:]))
        return cls(len(latents), FeatureStats.of(latents.transpose(0, 1).flatten(1).T))

    def __add__(self, other: "LatentMoments") -> "LatentMoments":
        return LatentMoments(self.count + other.count, self.cells + other.cells)


class Measured(Config):
    """Population mean and standard deviation of `count` sampled latents, per channel and over all channels."""

    count: int
    channel_mean: tuple[float, ...]
    channel_std: tuple[float, ...]
    scalar_mean: float
    scalar_std: float

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
        )

    def stats(self, kind: StatsKind, *, data: str) -> LatentStats:
        """Statistics for normalization: (z - mean) / std per channel, or z / std for "scalar", which keeps the mean.

        The scalar form is that of the released trainers: U-ViT's extraction multiplies by 1 / std, REPA's bias is 0
        (released-code.md#latent-normalization). Raises DataError for a channel with std 0.
        """
        mean, std = (self.channel_mean, self.channel_std) if kind == "channel" else ((0.0,), (self.scalar_std,))
        if constant := [channel for channel, value in enumerate(std) if not value > 0.0]:
            raise DataError(
                f"Latent channel {constant[0]} has the same value everywhere (std 0), so it cannot be normalized.",
                hint="The autoencoder does not use it: train it longer or with fewer latent_channels, or use scalar statistics.",
            )
        residual = torch.tensor([self.scalar_mean / self.scalar_std]) if kind == "scalar" else torch.zeros(len(mean))
        return LatentStats(kind, torch.tensor(mean), torch.tensor(std), count=self.count, data=data, residual=residual)


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
                part = LatentMoments.of(posterior, piece, flipped=flipped, seed=seed)
                moments = part if moments is None else moments + part
            if report:
                report(piece.stop, stop)
    assert moments is not None  # an opened split is not empty
    return Measured.of(moments).stats(kind, data=images.digest)


def _short(value: float) -> float:
    """Rounded to 9 significant digits (more than float32 has), so that the result does not depend on the number of threads."""
    return float(f"{value:.9g}")
