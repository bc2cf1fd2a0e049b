"""One pass over images: what a spectrum keeps of them is ring powers per image and channel, never the images or their latents."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from smtool.errors import CheckpointError
from smtool.networks.autoencoder import Autoencoder
from smtool.networks.posterior import LatentStats
from smtool.pipelines.spectrum.low_pass_curve import LowPassCurve, low_pass_curve
from smtool.randomness import generator
from smtool.spectrum import Estimator, Spectrum, spectrum_of

PosteriorKind = Literal["sample", "mean"]
Size = tuple[int, int]


class RingTable:
    """Ring powers under one estimator, gathered batch by batch: (N, C, bins)."""

    def __init__(self, estimator: Estimator, size: Size | None = None) -> None:
        self._estimator, self._size = estimator, size
        self._parts: list[Tensor] = []
        self._rings: Spectrum | None = None

    def add(self, x: Tensor) -> None:
        """More images or latents (B, C, H, W)."""
        spectrum = spectrum_of(x.flatten(0, 1)[:, None], self._estimator, self._size)
        self._parts.append(spectrum.power.unflatten(0, x.shape[:2]))
        self._rings = spectrum

    def spectrum(self, std: Tensor | None = None) -> Spectrum:
        """The mean over channels, each divided by its std (C,) where that is given (then for estimators without DC only)."""
        power = self._joined()
        weighted = power if std is None else power / std.to(power).square().clamp(min=1e-24)[:, None]
        return self._with(weighted.mean(1))

    def channels(self) -> list[Spectrum]:
        """The spectrum of every channel."""
        return [self._with(power) for power in self._joined().unbind(1)]

    def _joined(self) -> Tensor:
        self._parts = [torch.cat(self._parts)]
        return self._parts[0]

    def _with(self, power: Tensor) -> Spectrum:
        assert self._rings is not None
        return replace(self._rings, power=power)


class ImageRings:
    """Ring tables of the images themselves: at their own size (PHYSICAL), and under every estimator at the latents' sizes."""

    def __init__(self, estimators: Sequence[Estimator], latent_sizes: Sequence[Size]) -> None:
        self._own = {estimator: RingTable(estimator) for estimator in estimators if estimator.name == "physical"}
        self._at = {(estimator, size): RingTable(estimator, size) for estimator in estimators for size in latent_sizes}

    def add(self, images: Tensor) -> None:
        for table in (*self._own.values(), *self._at.values()):
            table.add(images)

    @property
    def sizes(self) -> list[Size]:
        """The latents' sizes, in order."""
        return list(dict.fromkeys(size for _, size in self._at))

    def measures(self, estimator: Estimator) -> bool:
        return estimator in self._own or any(measured == estimator for measured, _ in self._at)

    def own(self, estimator: Estimator) -> Spectrum:
        return self._own[estimator].spectrum()

    def at(self, estimator: Estimator, size: Size) -> Spectrum:
        return self._at[estimator, size].spectrum()


class LatentRings:
    """Ring tables, moments and the low-pass curve of one autoencoder's latents. Every image is encoded once."""

    def __init__(self, label: str, autoencoder: Autoencoder, estimators: Sequence[Estimator], *, low_pass_images: int) -> None:
        self.label, self.autoencoder = label, autoencoder
        self._low_pass_images = low_pass_images
        self._tables: dict[tuple[PosteriorKind, Estimator], RingTable] = {
            (kind, estimator): RingTable(estimator) for kind in ("sample", "mean") for estimator in estimators
        }
        self._moments: ChannelMoments | None = None
        self._curves: list[LowPassCurve] = []
        self.low_pass_problem = ""

    def add(self, images: Tensor, first: int) -> None:
        """Encode images (B, 3, H, W), the first of which is number `first` of the pass."""
        posterior = self.autoencoder.encode(images)
        latents = {"sample": posterior.sample(_noise(posterior.mean, first)), "mean": posterior.mode()}
        if not all(bool(z.isfinite().all()) for z in latents.values()):
            raise CheckpointError(f"{self.label}: the latents of image {first} or one of the next hold NaN or infinity.")
        for (kind, _), table in self._tables.items():
            table.add(latents[kind])
        more = ChannelMoments.of(latents["sample"])
        self._moments = more if self._moments is None else self._moments + more
        wanted = self._low_pass_images - first
        if wanted > 0 and not self.low_pass_problem:
            self._add_curve(images[:wanted], latents["sample"][:wanted])

    def table(self, kind: PosteriorKind, estimator: Estimator) -> RingTable:
        return self._tables[kind, estimator]

    def stats(self, data: str) -> LatentStats:
        """What normalizes these latents: the autoencoder's own statistics, else those of the samples seen here."""
        if self.autoencoder.stats is not None:
            return self.autoencoder.stats
        assert self._moments is not None
        return self._moments.stats(data)

    def low_pass(self) -> LowPassCurve | None:
        """None where it was not asked for, or cannot be had (`low_pass_problem` says why)."""
        return LowPassCurve.joined(self._curves) if self._curves else None

    def _add_curve(self, images: Tensor, latents: Tensor) -> None:
        try:
            self._curves.append(low_pass_curve(self.autoencoder.decode, images, latents))
        except ValueError as error:      # sides that blocks do not fill
            self.low_pass_problem = str(error)


@dataclass(frozen=True)
class ChannelMoments:
    """Count, mean and sum of squared deviations of every channel, (C,) float64; `a + b` merges exactly."""

    images: int
    count: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def of(cls, latents: Tensor) -> "ChannelMoments":
        values = latents.detach().cpu().double().transpose(0, 1).flatten(1)
        mean = values.mean(1)
        return cls(len(latents), values.shape[1], mean, (values - mean[:, None]).square().sum(1))

    def __add__(self, other: "ChannelMoments") -> "ChannelMoments":
        count, step = self.count + other.count, other.mean - self.mean
        scatter = self.scatter + other.scatter + step.square() * (self.count * other.count / count)
        return ChannelMoments(self.images + other.images, count, self.mean + step * (other.count / count), scatter)

    def stats(self, data: str) -> LatentStats:
        std = (self.scatter / self.count).sqrt()
        return LatentStats("channel", self.mean.float(), std.float(), self.images, data)


def _noise(like: Tensor, first: int) -> Tensor:
    """Posterior noise that belongs to the image's number in the pass, whatever the batch."""
    rows = [torch.randn(like.shape[1:], generator=generator("spectrum", "posterior", first + i)) for i in range(len(like))]
    return torch.stack(rows).to(like)
