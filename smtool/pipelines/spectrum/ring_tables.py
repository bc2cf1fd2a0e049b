"""One pass over images: what a spectrum keeps of them is ring powers per image and channel, never the images or their latents."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from smtool.errors import CheckpointError
from smtool.networks.posterior import LatentStats, Posterior
from smtool.networks.tokenizer import Tokenizer
from smtool.pipelines.spectrum.decoding import images_at_once
from smtool.pipelines.spectrum.health import LatentMoments
from smtool.randomness import generator
from smtool.spectrum import ChannelMoments, Estimator, Spectrum, channel_moments, spectrum_of

PosteriorKind = Literal["sample", "mean", "deterministic"]
Scale = Literal["normalized", "raw"]
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
        return self._with(self._divided(std).mean(1))

    def channels(self, std: Tensor | None = None) -> list[Spectrum]:
        """The spectrum of every channel, divided likewise."""
        return [self._with(power) for power in self._divided(std).unbind(1)]

    def _divided(self, std: Tensor | None) -> Tensor:
        power = self._joined()
        return power if std is None else power / std.to(power).square().clamp(min=1e-24)[:, None]

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
    """Ring tables and moments of one codec's latents, and the first of them whole. Every image is encoded once.

    A codec whose encoder returns no posterior has one reading, "deterministic"; others are read as samples and as means.
    """

    def __init__(self, label: str, codec: Tokenizer, estimators: Sequence[Estimator], *, keep: int) -> None:
        self.label, self.codec = label, codec
        self.kinds: tuple[PosteriorKind, ...] = ("deterministic",) if codec.deterministic else ("sample", "mean")
        self._keep = keep
        self._tables = {(kind, estimator): RingTable(estimator) for kind in self.kinds for estimator in estimators}
        self._samples: ChannelMoments | None = None
        self._posteriors: LatentMoments | None = None
        self._kept: list[Tensor] = []

    def add(self, images: Tensor, first: int) -> None:
        """Encode images (B, 3, H, W), the first of which is number `first` of the pass."""
        at_once = images_at_once(images.shape[-2], images.shape[-1])
        for start in range(0, len(images), at_once):
            self._add(images[start:start + at_once], first + start)

    @property
    def headline(self) -> PosteriorKind:
        """What a transformer is trained on."""
        return self.kinds[0]

    def readings(self) -> list[tuple[PosteriorKind, Scale]]:
        """Every posterior and scale that is reported."""
        return [(kind, scale) for kind in self.kinds for scale in ("normalized", "raw")]

    def table(self, kind: PosteriorKind, estimator: Estimator) -> RingTable:
        return self._tables[kind, estimator]

    def stats(self, data: str) -> LatentStats:
        """What normalizes these latents: the codec's own statistics, else those of the samples seen here."""
        if self.codec.stats is not None:
            return self.codec.stats
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

    def _add(self, images: Tensor, first: int) -> None:
        posterior = self.codec.encode(images)
        sample = self._sampled(posterior, first)
        latents = {self.headline: sample, "mean": posterior.mode()}
        if not all(bool(z.isfinite().all()) for z in latents.values()):
            raise CheckpointError(f"{self.label}: the latents of image {first} or one of the next hold NaN or infinity.")
        for (kind, _), table in self._tables.items():
            table.add(latents[kind])
        more = channel_moments(sample)
        self._samples = more if self._samples is None else self._samples + more
        of_posterior = LatentMoments.of(posterior)
        self._posteriors = of_posterior if self._posteriors is None else self._posteriors + of_posterior
        if (wanted := self._keep - first) > 0:
            self._kept.append(sample[:wanted])

    def _sampled(self, posterior: Posterior, first: int) -> Tensor:
        if self.codec.deterministic:
            return posterior.mode()
        return posterior.sample(_noise(posterior.mean, first))


def measured_stats(samples: ChannelMoments, *, images: int, data: str) -> LatentStats:
    """Mean and population std of every channel. One that never varies keeps its scale: divided by 1, it stays silent."""
    std = (samples.scatter.diagonal() / samples.num_positions).sqrt()
    return LatentStats("channel", samples.mean.float(), std.where(std > 0, 1.0).float(), images, data)


def _noise(like: Tensor, first: int) -> Tensor:
    """Posterior noise that belongs to the image's number in the pass, whatever the batch."""
    rows = [torch.randn(like.shape[1:], generator=generator("spectrum", "posterior", first + i)) for i in range(len(like))]
    return torch.stack(rows).to(like)
