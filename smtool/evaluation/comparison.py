"""A comparison of two sets of images, and the same comparison in the features of one extractor."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from smtool.evaluation.feature_pass import Table
from smtool.evaluation.image_sizes import compared, described
from smtool.evaluation.scores import SamplePassport, SampleScore
from smtool.features.extractor import Extractor, View
from smtool.features.pictures import seen_by_both
from smtool.features.protocol import Protocol
from smtool.image_shape import ImageSize
from smtool.inference.sampling import Sampling
from smtool.metrics.frechet import FeatureStats


@dataclass(frozen=True)
class Side:
    """One of two sets of images.

    digest: sha256 of the images; features: by an extractor's score name and view. moments: moments read from a file, by the same
    keys, used instead of features; moments_count: number of images of these moments, None if the file does not state it. sizes:
    number of the images of each size, empty if unknown; channels: of the images.
    """

    digest: str
    count: int
    features: Table
    moments: Mapping[tuple[str, View], FeatureStats] = field(default_factory=dict)
    moments_count: int | None = None
    sizes: Mapping[ImageSize, int] = field(default_factory=dict)
    channels: int = 3


@dataclass(frozen=True)
class Comparison:
    """Samples, what they are compared with, and how the samples were drawn.

    infinity: whether Frechet distances are also extrapolated to infinitely many samples, which computes each about 30 more times.
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
    """A comparison in the features of one extractor. notes: added to every score of this extractor."""

    comparison: Comparison
    extractor: Extractor
    notes: tuple[str, ...] = ()

    @property
    def has_features(self) -> bool:
        """Whether the reference has features, not only moments."""
        return (self.extractor.score, "pooled") in self.comparison.reference.features

    def samples(self, view: View = "pooled") -> Tensor:
        """Features (N, dim) of the samples, on the device of the comparison."""
        return self.comparison.samples.features[self.extractor.score, view].to(self.comparison.device)

    def images(self, view: View = "pooled") -> Tensor:
        """Features (N, dim) of the reference, on the device of the comparison."""
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
        """A score with its passport. given: compared with moments from a file; alone: not compared with a reference."""
        this = self.comparison
        reference = {} if alone or given else this.reference.sizes
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
            image_sizes=described(this.samples.sizes),
            reference_sizes=described(reference),
            channels=seen_by_both(this.samples.channels, this.reference.channels if reference else None),
            warning=compared(this.samples.sizes, reference, resized=self.extractor.resize != "none"),
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
