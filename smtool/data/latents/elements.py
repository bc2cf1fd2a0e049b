"""Mean and variance of every element of a latent, in float64, for LatentStats of kind "element" (RAE, arXiv 2510.11690)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from smtool.data.images.reader import ImageShards
from smtool.data.latents.shards import LatentShards
from smtool.networks.posterior import LatentStats, Posterior
from smtool.networks.tokenizer import Tokenizer
from smtool.randomness import generator, noise_of
from smtool.tokenizers.encode import encoded

EPS = 1e-5
"""Added to variances: normalized is (z - mean) / sqrt(variance + EPS) (released-code.md#rae)."""
BATCH = 64


@dataclass(frozen=True)
class ElementMoments:
    """Moments of the elements of latents (C, h, w); `a + b` merges two. scatter: sums of squared deviations from the mean."""

    count: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def of(cls, latents: Tensor) -> "ElementMoments":
        """Of latents (B, C, h, w). Raises ValueError for values that are not finite."""
        values = latents.detach().cpu().double()
        if not torch.isfinite(values).all():
            raise ValueError("latents hold NaN or infinity")
        mean = values.mean(0)
        return cls(len(values), mean, (values - mean).square().sum(0))

    def __add__(self, other: "ElementMoments") -> "ElementMoments":
        count, step = self.count + other.count, other.mean - self.mean
        scatter = self.scatter + other.scatter + step.square() * (self.count * other.count / count)
        return ElementMoments(count, self.mean + step * (other.count / count), scatter)

    def stats(self, data: str) -> LatentStats:
        """Population mean, and the square root of population variance plus EPS, of every element. data: digest of the images."""
        std = (self.scatter / self.count + EPS).sqrt()
        residual = torch.zeros(len(self.mean))
        return LatentStats("element", self.mean.float(), std.float(), self.count, data, residual)


def measure_elements(
    source: LatentShards | ImageShards,
    autoencoder: Tokenizer,
    *,
    count: int,
    flip: bool,
    data: str,
    report: Callable[[int, int], object] | None = None,
) -> LatentStats:
    """Measure the first `count` samples of a cache, or of images that are encoded now; flip: and their mirrored ones.

    Samples have the noise of the other statistics (`LatentMoments.of`).
    """
    stop, seed = min(count, len(source)), source.card.seed if isinstance(source, LatentShards) else 0
    moments: ElementMoments | None = None
    for start in range(0, stop, BATCH):
        piece = range(start, min(start + BATCH, stop))
        for side, posterior in _sides(source, autoencoder, piece, flip=flip):
            drawn = (generator("latent statistics", seed, number, side) for number in piece)
            part = ElementMoments.of(posterior.sample(noise_of(drawn, posterior.mean.shape[1:]).to(posterior.mean)))
            moments = part if moments is None else moments + part
        if report:
            report(piece.stop, stop)
    assert moments is not None, "a source is not empty"
    return moments.stats(data)


def _sides(
    source: LatentShards | ImageShards, autoencoder: Tokenizer, piece: range, *, flip: bool
) -> Iterator[tuple[str, Posterior]]:
    images = source.read(piece) if isinstance(source, ImageShards) else None
    for side, flipped in (("plain", False), ("flipped", True))[: 1 + flip]:
        if images is not None:
            yield side, encoded(autoencoder, images.images.flip(-1) if flipped else images.images, images.ids)
        elif isinstance(source, LatentShards):
            yield side, source.read(piece, [flipped] * len(piece)).posterior
