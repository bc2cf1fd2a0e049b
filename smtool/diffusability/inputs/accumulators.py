"""Statistics accumulated in one pass over images: ring powers per image and channel, and moments; not all images or latents."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from smtool.diffusability.inputs.subjects import Size, Subject
from smtool.errors import CheckpointError
from smtool.inference.encode import mode, sampled_by_number
from smtool.inference.reconstruct import images_at_once
from smtool.networks.posterior import LatentStats, Posterior
from smtool.spectrum import BandMoments, ChannelMoments, Estimator, Spectrum, band_moments, channel_moments
from smtool.spectrum.ring_table import RingTable

PosteriorKind = Literal["sample", "mean", "deterministic"]
Scale = Literal["normalized", "raw"]


class ImageRings:
    """Ring tables of the images: at their own size (PHYSICAL), and with every estimator at the latents' sizes."""

    def __init__(self, estimators: Sequence[Estimator], latent_sizes: Sequence[Size]) -> None:
        self._own = {estimator: RingTable(estimator) for estimator in estimators if estimator.name == "physical"}
        self._at = {(estimator, size): RingTable(estimator, size) for estimator in estimators for size in latent_sizes}
        self.sizes = list(dict.fromkeys(latent_sizes))

    def add(self, images: Tensor) -> None:
        for table in (*self._own.values(), *self._at.values()):
            table.add(images)

    def measures(self, estimator: Estimator) -> bool:
        return estimator in self._own or any(measured == estimator for measured, _ in self._at)

    def own(self, estimator: Estimator) -> Spectrum:
        return self._own[estimator].spectrum()

    def at(self, estimator: Estimator, size: Size) -> Spectrum:
        return self._at[estimator, size].spectrum()


@dataclass(frozen=True)
class LatentMoments:
    """Moments of posteriors of raw latents; `a + b` merges two sets of images.

    channels, bands: moments of the posterior means. variance: (C,) float64, posterior variance summed over images and positions.
    largest: the largest absolute value of all means.
    """

    channels: ChannelMoments
    bands: BandMoments
    variance: Tensor
    largest: float

    @classmethod
    def of(cls, posterior: Posterior) -> "LatentMoments":
        mean, variance = posterior.mean, posterior.logvar.double().exp()
        return cls(channel_moments(mean), band_moments(mean), variance.sum((0, 2, 3)).cpu(), mean.abs().max().item())

    def __add__(self, other: "LatentMoments") -> "LatentMoments":
        channels, bands = self.channels + other.channels, self.bands + other.bands
        return LatentMoments(channels, bands, self.variance + other.variance, max(self.largest, other.largest))

    @property
    def noise(self) -> Tensor:
        """Posterior variance per channel, mean over images and positions: (C,)."""
        return self.variance / self.channels.num_positions


class LatentRings:
    """Ring tables and moments of one subject's latents, and the first `keep` latents whole. Every image is encoded once.

    A deterministic encoder has one kind of latents, "deterministic"; other encoders have posterior samples and posterior means.
    """

    def __init__(self, subject: Subject, estimators: Sequence[Estimator], *, keep: int) -> None:
        self.subject = subject
        self.kinds: tuple[PosteriorKind, ...] = ("deterministic",) if subject.codec.deterministic else ("sample", "mean")
        self._keep = keep
        stats = subject.codec.stats
        self._recoloured = stats if stats is not None and stats.recolouring is not None else None
        scales: tuple[Scale, ...] = ("raw",) if self._recoloured is None else ("raw", "normalized")
        self._tables = {
            (kind, estimator, scale): RingTable(estimator)
            for kind in self.kinds for estimator in estimators for scale in scales
        }  # fmt: skip
        self._samples: ChannelMoments | None = None
        self._posteriors: LatentMoments | None = None
        self._kept: list[Tensor] = []

    def add(self, images: Tensor, first: int) -> Tensor:
        """Encode images (B, C, H, W); return their posterior means, raw. first: number of the first of them in the pass."""
        means = []
        for part in images.split(images_at_once(images.shape[-2], images.shape[-1])):
            means.append(self._add(part, first))
            first += len(part)
        return torch.cat(means)

    @property
    def headline(self) -> PosteriorKind:
        """The kind of latents that a transformer is trained on."""
        return self.kinds[0]

    def readings(self) -> list[tuple[PosteriorKind, Scale]]:
        """All reported combinations of posterior kind and scale."""
        return [(kind, scale) for kind in self.kinds for scale in ("normalized", "raw")]

    def table(self, kind: PosteriorKind, estimator: Estimator, scale: Scale = "raw") -> RingTable:
        """Ring powers that give those of this scale when they are divided by the std of `stats`, for "normalized", or by nothing.

        They are those of the raw latents, except for normalized latents with a recolouring, which changes the spectrum.
        """
        return self._tables[kind, estimator, "raw" if self._recoloured is None else scale]

    def stats(self, data: str) -> LatentStats:
        """The statistics that normalize these latents: the autoencoder's own, else those of the samples of this pass.

        Statistics of 2x2 patches become those of whole channels, because one factor then scales a channel's spectrum.

        data: digest of the images.
        """
        if self.subject.codec.stats is not None:
            return self.subject.codec.stats.per_channel()
        assert self._samples is not None
        return measured_stats(self._samples, images=self.posteriors.bands.num_images, data=data)

    @property
    def posteriors(self) -> LatentMoments:
        """Moments of all posteriors, raw."""
        assert self._posteriors is not None
        return self._posteriors

    @property
    def first_latents(self) -> Tensor:
        """Raw samples of the first images of the pass, up to `keep` of them: (n, C, h, w)."""
        return torch.cat(self._kept)

    def _add(self, images: Tensor, first: int) -> Tensor:
        posterior = self.subject.encode(images)
        draw = mode if self.subject.codec.deterministic else sampled_by_number("spectrum", "posterior")
        sample = draw(posterior, range(first, first + len(images)))
        latents = {self.headline: sample, "mean": posterior.mode()}
        if not all(bool(z.isfinite().all()) for z in latents.values()):
            where = f"latents of the batch that starts at image {first}"
            raise CheckpointError(f"{self.subject.label}: {where} hold NaN or infinity.")
        for (kind, _, scale), table in self._tables.items():
            table.add(latents[kind] if scale == "raw" else self._filtered(latents[kind]))
        of_samples, of_posteriors = channel_moments(sample), LatentMoments.of(posterior)
        self._samples = of_samples if self._samples is None else self._samples + of_samples
        self._posteriors = of_posteriors if self._posteriors is None else self._posteriors + of_posteriors
        if (wanted := self._keep - first) > 0:
            self._kept.append(sample[:wanted])
        return latents["mean"]

    def _filtered(self, latents: Tensor) -> Tensor:
        """Recoloured latents at the scale of raw ones."""
        assert self._recoloured is not None
        return self._recoloured.normalize(latents) * self._recoloured.std.to(latents).view(1, -1, 1, 1)


def measured_stats(samples: ChannelMoments, *, images: int, data: str) -> LatentStats:
    """Mean and population std of every channel; a constant channel gets std 1, so that it normalizes to 0."""
    std = (samples.scatter.diagonal() / samples.num_positions).sqrt()
    return LatentStats("channel", samples.mean.float(), std.where(std > 0, 1.0).float(), images, data)
