"""Two sets of images side by side, and such a comparison as one extractor sees it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from smtool.evaluation.feature_pass import Table
from smtool.evaluation.scores import SamplePassport, SampleScore
from smtool.features.extractor import Extractor, View
from smtool.features.protocol import Protocol
from smtool.inference.sampling import Sampling
from smtool.metrics.frechet import FeatureStats


@dataclass(frozen=True)
class Side:
    """One of two sets of images. moments: those that a file brought, by an extractor's score name and view, which stand for
    features where they are given; moments_count: of how many images, if the file says so.
    """

    digest: str
    count: int
    features: Table
    moments: Mapping[tuple[str, View], FeatureStats] = field(default_factory=dict)
    moments_count: int | None = None


@dataclass(frozen=True)
class Comparison:
    """Samples, what they are compared with, and how the samples were drawn.

    infinity: whether Frechet distances are extrapolated to infinitely many samples too, which takes some 30 more of each.
    """

    samples: Side
    reference: Side
    protocol: Protocol
    sampling: Sampling
    seed: int
    device: str = "cpu"
    infinity: bool = False


@dataclass(frozen=True)
class Seen:
    """A comparison as one extractor sees it. notes: what must be said of this extractor with every score."""

    comparison: Comparison
    extractor: Extractor
    notes: tuple[str, ...] = ()

    @property
    def has_features(self) -> bool:
        """Whether the reference is there as features, and not as moments only."""
        return (self.extractor.score, "pooled") in self.comparison.reference.features

    def samples(self, view: View = "pooled") -> Tensor:
        return self.comparison.samples.features[self.extractor.score, view].to(self.comparison.device)

    def images(self, view: View = "pooled") -> Tensor:
        """Of the reference."""
        return self.comparison.reference.features[self.extractor.score, view].to(self.comparison.device)

    def score(
        self,
        name: str,
        title: str,
        better: Literal["higher", "lower"],
        value: float,
        half_width: float | None,
        metric: str,
        *,
        notes: Sequence[str] = (),
        given: bool = False,
        alone: bool = False,
    ) -> SampleScore:
        """given: compared with a file's statistics, of an unknown number of images; alone: compared with nothing."""
        this = self.comparison
        passport = SamplePassport(
            metric=metric,
            extractor=self.extractor.name,
            extractor_sha256=self.extractor.digest,
            resize=self.extractor.resize,
            codec=this.protocol.codec,
            protocol=this.protocol.name,
            num_images=this.samples.count,
            images_sha256=this.samples.digest,
            num_reference=None if alone else this.reference.moments_count if given else this.reference.count,
            reference_sha256=None if alone else this.reference.digest,
            seed=this.seed,
            sampling=this.sampling,
        )
        return SampleScore(
            name=name,
            title=title,
            better=better,
            value=value,
            half_width=half_width,
            notes=(*notes, *self.notes),
            passport=passport,
        )
