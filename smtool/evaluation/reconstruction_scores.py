"""Scores of reconstructions from the results of a pass: means over images and Frechet distances, with interval and passport."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from smtool.devices import to_device
from smtool.evaluation.frechet_scores import replicates_for, too_few
from smtool.evaluation.image_sizes import compared, described
from smtool.evaluation.judges import Judges, PairJudge
from smtool.evaluation.reconstruction_pass import Measurements
from smtool.evaluation.scores import FRECHET, Passport, ReconstructionScore, half_width
from smtool.features.extractor import Extractor
from smtool.features.perceptual import PerceptualDistance
from smtool.features.pictures import ALPHA, seen_by_both, seen_channels
from smtool.features.protocol import Protocol
from smtool.image_shape import ImageSize
from smtool.metrics.bootstrap import bootstrap_error
from smtool.metrics.frechet import Gaussian, finite_features
from smtool.randomness import generator

MEAN_REPLICATES = 1000
FEWEST_GROUPS = 3


@dataclass(frozen=True)
class Origin:
    """The images of a pass. groups: for each image, the photograph it is a crop of; None if all images are independent.

    reference: features of other images, by the extractor's score name, for Frechet distances; empty: compare with the images
    themselves, as usual for reconstructions. size, reference_size: of all images, None if unknown; channels,
    reference_channels: of them.
    """

    images_sha256: str
    groups: Sequence[str] | None = None
    reference_sha256: str | None = None
    reference: Mapping[str, Tensor] = field(default_factory=dict)
    size: ImageSize | None = None
    reference_size: ImageSize | None = None
    channels: int = 3
    reference_channels: int | None = None

    def numbered_groups(self, count: int) -> Tensor:
        """The group number of each of the first `count` images: (count,) int64."""
        if self.groups is None:
            return torch.arange(count)
        numbers = {name: number for number, name in enumerate(dict.fromkeys(self.groups))}
        return torch.tensor([numbers[name] for name in self.groups[:count]])


def reconstruction_scores(
    measured: Measurements, judges: Judges, origin: Origin, protocol: Protocol, *, seed: int = 0, device: str = "cpu"
) -> dict[str, ReconstructionScore]:
    """Score name -> score, in the judges' order. device: where Frechet distances are computed."""
    scorer = _Scorer(origin, protocol, seed, measured.count, device)
    scores = [scorer.mean(judge, measured.pairs[judge.name]) for judge in judges.pairs]
    scores += [scorer.frechet(extractor, *measured.features[extractor.score]) for extractor in judges.extractors]
    return {score.name: score for score in scores}


@dataclass(frozen=True)
class _Scorer:
    """Computes the scores of one pass. Holds what they have in common."""

    origin: Origin
    protocol: Protocol
    seed: int
    count: int
    device: str

    def mean(self, judge: PairJudge, values: Tensor) -> ReconstructionScore:
        """The mean over images; None if the PSNR of an image is infinite."""
        passport = self._passport(
            judge.metric,
            judge.network,
            resize="none",
            codec=self.protocol.codec if judge.pixels == "coded" else "none",
            pixels="float" if judge.pixels == "float" else "uint8",
        )
        value: float | None = None
        width: float | None = None
        notes: tuple[str, ...]
        if exact := int(values.isinf().sum()):
            notes = (f"{exact} of {len(values)} images are reproduced exactly",)
        else:
            value = values.mean().item()
            width, notes = self._half_width(lambda chosen: values[chosen].mean().item(), MEAN_REPLICATES, judge.name)
        return ReconstructionScore(
            name=judge.name,
            title=judge.title,
            better=judge.better,
            value=value,
            half_width=width,
            notes=notes,
            passport=passport,
        )

    def frechet(self, extractor: Extractor, images: Tensor, decoded: Tensor) -> ReconstructionScore:
        """The Frechet distance of the decoded images to the originals, or to `origin.reference`."""
        images, decoded = (finite_features(features.to(self.device)) for features in (images, decoded))
        other = self.origin.reference.get(extractor.score)
        fixed = None if other is None else Gaussian.of(other.to(self.device))

        def distance(chosen: Tensor) -> float:
            chosen = to_device(chosen, self.device)
            against = Gaussian.of_finite(images[chosen]) if fixed is None else fixed
            return against.distance(Gaussian.of_finite(decoded[chosen]))

        width, notes = self._half_width(distance, replicates_for(extractor.dim), extractor.score)
        if unreliable := too_few(self.count if other is None else min(self.count, len(other)), extractor.dim):
            notes = (unreliable, *notes)
        passport = self._passport(
            FRECHET,
            extractor,
            resize=extractor.resize,
            codec=self.protocol.codec,
            num_reference=None if other is None else len(other),
        )
        is_fid = extractor.score == "fid"
        name, title = ("rfid", "rFID") if is_fid else (extractor.score, extractor.score.replace("fd_", "FD "))
        return ReconstructionScore(
            name=name,
            title=title,
            better="lower",
            value=distance(torch.arange(self.count)),
            half_width=width,
            notes=notes,
            passport=passport,
        )

    def _half_width(
        self, statistic: Callable[[Tensor], float], replicates: int, name: str
    ) -> tuple[float | None, tuple[str, ...]]:
        """Half-width of the 95 % interval, and notes on it."""
        groups = self.origin.numbered_groups(self.count)
        count = len(groups.unique())
        if count < FEWEST_GROUPS:
            return None, (f"no interval, because there {'is' if count == 1 else 'are'} only {count} independent "
                          f"{'image' if count == 1 else 'images'}",)
        error = bootstrap_error(statistic, groups, replicates=replicates, draws=generator(self.seed, "bootstrap", name))
        notes = () if self.origin.groups is None else (f"interval over {count} photographs, of which the images are crops",)
        return half_width(error, min(count, replicates) - 1), notes

    def _passport(
        self,
        metric: str,
        network: Extractor | PerceptualDistance | None,
        *,
        resize: str,
        codec: str,
        pixels: Literal["uint8", "float"] = "uint8",
        num_reference: int | None = None,
    ) -> Passport:
        origin = self.origin
        sizes = {} if origin.size is None else {origin.size: self.count}
        others, other_sha256 = sizes, origin.images_sha256
        if num_reference is not None:
            others = {} if origin.reference_size is None else {origin.reference_size: num_reference}
            other_sha256 = origin.reference_sha256 or origin.images_sha256
        return Passport(
            metric=metric,
            extractor=network.name if network else None,
            extractor_sha256=network.digest if network else None,
            resize=resize,
            codec=codec,
            pixels=pixels,
            rounding=None if pixels == "float" else self.protocol.rounding,
            posterior=self.protocol.posterior,
            protocol=self.protocol.name,
            num_images=self.count,
            images_sha256=self.origin.images_sha256,
            num_reference=self.count if num_reference is None else num_reference,
            reference_sha256=other_sha256,
            seed=self.seed,
            image_sizes=described(sizes),
            reference_sizes=described(others),
            channels=self._channels(network is not None, codec, elsewhere=num_reference is not None),
            warning=compared(sizes, others, resized=resize != "none"),
        )

    def _channels(self, by_network: bool, codec: str, *, elsewhere: bool) -> str:
        """What a score saw of the channels: networks and JPEG with alpha see three, formulas the images' own."""
        channels = self.origin.channels
        if by_network:
            return seen_by_both(channels, self.origin.reference_channels if elsewhere else None)
        if channels == 3 or (codec != "none" and channels in ALPHA):
            return seen_channels(channels)
        return "over 1 channel" if channels == 1 else f"over {channels} channels"
