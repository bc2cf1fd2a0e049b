"""How far generated images are from real ones: from features to scores, each with interval and passport."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from smtool.features.extractor import Extractor, View
from smtool.features.protocol import Protocol
from smtool.metrics.bootstrap import bias_of_size, bootstrap_error
from smtool.metrics.extrapolation import GROUPS, extrapolated
from smtool.metrics.frechet import FeatureStats, Gaussian
from smtool.metrics.inception_score import inception_score
from smtool.metrics.kernel import SUBSET_SIZE, SUBSETS, kernel_distance, kernel_distance_of_subsets
from smtool.metrics.manifold import density_coverage, precision_recall
from smtool.pipelines.evaluate.feature_pass import Table
from smtool.pipelines.evaluate.generation_judges import Question
from smtool.pipelines.evaluate.scores import SamplePassport, Score
from smtool.randomness import generator
from smtool.spectrum.jackknife import student_t_quantile

FRECHET_REPLICATES = 50
LARGE_REPLICATES = 20      # above LARGE_DIM, where each takes seconds
LARGE_DIM = 512
FULL_ENOUGH = 2      # images per dimension, in each half, for a bias like 1 / N
HALVINGS = 2
KERNEL_IMAGES = 10_000      # up to so many of each, all pairs are taken


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
    """Samples, what they are compared with, and what passports say of how the samples came about.

    infinity: whether Frechet distances are extrapolated to infinitely many samples too, which takes some 30 more of each.
    """

    samples: Side
    reference: Side
    protocol: Protocol
    sampling: Mapping[str, Any]
    seed: int
    device: str = "cpu"
    infinity: bool = False

    def scores(self, question: Question, note: str | None = None) -> list[Score]:
        """The scores of one extractor. note: what must be said of it as a judge.

        A Frechet distance of too few images for a covariance of full rank is called unreliable and comes after the kernel
        distance, which is then given even where nobody asked.
        """
        judge = _Judge(self, question.extractor, (note,) if note else ())
        found: list[Score] = []
        if "frechet" in question.kinds:
            found += judge.frechet("pooled")
        if "spatial" in question.kinds:
            found += judge.frechet("spatial")
        reliable = not any(score.notes and score.notes[0].startswith("unreliable") for score in found)
        if "kernel" in question.kinds or (not reliable and judge.has_features):
            found.insert(len(found) if reliable else 0, judge.kernel())
        if "recognition" in question.kinds:
            found += judge.recognition()
        if "manifold" in question.kinds:
            found += judge.manifold()
        return found


@dataclass(frozen=True)
class _Judge:
    """One extractor's view of a comparison."""

    comparison: Comparison
    extractor: Extractor
    notes: tuple[str, ...]

    @property
    def has_features(self) -> bool:
        return (self.extractor.score, "pooled") in self.comparison.reference.features

    def frechet(self, view: View) -> list[Score]:
        """Frechet distance, with a bootstrap over the samples; the reference stays as it is. With its limit where asked."""
        samples = self._samples(view)
        given = self.comparison.reference.moments.get((self.extractor.score, view))
        fixed = Gaussian.of(self._images(view)) if given is None else Gaussian.of_stats(given)
        dim = samples.shape[1]

        def distance(chosen: Tensor) -> float:
            return Gaussian.of(samples[chosen.to(samples.device)]).distance(fixed)

        draws = generator(self.comparison.seed, "bootstrap", self.extractor.score, view)
        replicates = LARGE_REPLICATES if dim > LARGE_DIM else FRECHET_REPLICATES
        error = bootstrap_error(distance, torch.arange(len(samples)), replicates=replicates, draws=draws)
        name, title = self._names(view)
        fewest = min(len(samples), math.inf if given is not None else self.comparison.reference.count)
        enough = len(samples) >= 2 * FULL_ENOUGH * dim
        notes = []
        if fewest <= dim:
            notes.append(f"unreliable, {fewest:,} images for {dim:,} features: no covariance of full rank, and a large bias")
        elif enough:
            bias = bias_of_size(distance, len(samples), halvings=HALVINGS, draws=draws)
            notes.append(f"about {bias:.2g} of it is due to there being {len(samples):,} samples only (from halves, if like 1/N)")
        if given is not None:
            notes.append("compared with the statistics in the reference's file, not with its images")
        value = distance(torch.arange(len(samples)))
        if self.comparison.infinity and not enough:
            needed = f"{2 * FULL_ENOUGH * dim:,} samples ({2 * FULL_ENOUGH} x {dim:,} features)"
            notes.append(f"not extrapolated to N = infinity, which needs {needed}")
        half_width = _half_width(error, replicates - 1)
        facts: dict[str, Any] = {"given": given is not None}
        scores = [self._score(name, title, "lower", value, half_width, "frechet distance", notes=notes, **facts)]
        if self.comparison.infinity and enough:
            scores.append(self._limit(name, title, distance, len(samples), facts))
        return scores

    def _limit(self, name: str, title: str, distance: Callable[[Tensor], float], count: int, facts: dict[str, Any]) -> Score:
        """The Frechet distance that infinitely many samples would have, if its excess falls like 1 / N."""
        draws = generator(self.comparison.seed, "extrapolation", name)
        found = extrapolated(distance, count, halvings=HALVINGS, draws=draws)
        notes = [f"linear in 1/N, from N = {found.fewest:,} and {found.most:,} samples; the reference's N stays as it is"]
        half_width, metric = _half_width(found.error, GROUPS - 1), "frechet distance, N to infinity"
        return self._score(f"{name}_infinity", f"{title}, N → ∞", "lower", found.value, half_width, metric, notes=notes, **facts)

    def kernel(self) -> Score:
        """Kernel distance of all images; where there are many, over subsets, with the error that a part of them shows."""
        samples, images = self._samples("pooled"), self._images("pooled")
        part = kernel_distance(samples[:KERNEL_IMAGES], images[:KERNEL_IMAGES])
        count = min(len(samples), KERNEL_IMAGES)
        half_width = _half_width(part.error * math.sqrt(count / len(samples)), len(samples) - 1)
        value, metric = part.value, "kernel distance"
        if max(len(samples), len(images)) > KERNEL_IMAGES:
            draws = generator(self.comparison.seed, "kernel subsets", self.extractor.score)
            value = kernel_distance_of_subsets(samples, images, draws=draws)
            metric = f"kernel distance, {SUBSETS} subsets of {min(SUBSET_SIZE, len(samples), len(images)):,}"
        name = kernel_name(self.extractor)
        title = "KID" if name == "kid" else name.replace("kid_", "KD ", 1)
        return self._score(name, title, "lower", value, half_width, metric)

    def recognition(self) -> list[Score]:
        """The inception score, of ten splits and of all samples at once."""
        logits = self._samples("logits")
        found = inception_score(logits)
        half_width = _half_width(found.std / math.sqrt(found.splits - 1), found.splits - 1)
        published = self.extractor.is_published_inception
        name = "is" if published else self.extractor.score.replace("fd_", "is_", 1)
        return [
            self._score(name, f"IS, {found.splits} splits", "higher", found.mean, half_width, "inception score", alone=True),
            self._score(
                f"{name}_whole",
                "IS, all at once",
                "higher",
                found.whole,
                None,
                "inception score",
                notes=["no interval: it is one number; see that of the splits"],
                alone=True,
            ),
        ]

    def manifold(self) -> list[Score]:
        """Precision and recall, density and coverage.

        Intervals are of means over samples for precision and density, over images for recall and coverage; balls stay.
        """
        samples, images = self._samples("pooled"), self._images("pooled")
        pr, dc = precision_recall(samples, images), density_coverage(samples, images)
        return [
            self._share("precision", pr.realistic),
            self._share("recall", pr.reached, "interval over images, for these very samples"),
            self._share("density", dc.counts),
            self._share("coverage", dc.covered, "interval over images, for these very samples"),
        ]

    def _share(self, metric: str, values: Tensor, *notes: str) -> Score:
        """A mean over samples or over images."""
        values = values.double()
        error = values.std().item() / math.sqrt(len(values))
        half_width = _half_width(error, len(values) - 1) if error else None
        notes = notes if error else ("no interval, the same for every image",)
        name = "inception" if self.extractor.is_published_inception else self.extractor.score.removeprefix("fd_")
        title = f"{metric} ({name})"
        return self._score(f"{metric}_{name}", title, "higher", values.mean().item(), half_width, metric, notes=notes)

    def _names(self, view: View) -> tuple[str, str]:
        """Name and title of a Frechet distance."""
        name = self.extractor.score
        if self.extractor.is_published_inception:
            return ("fid", "FID") if view == "pooled" else ("sfid", "sFID")
        title = name.replace("fd_", "FD ", 1)
        return (name, title) if view == "pooled" else (name.replace("fd_", "sfd_", 1), f"{title}, spatial")

    def _samples(self, view: View) -> Tensor:
        return self.comparison.samples.features[self.extractor.score, view].to(self.comparison.device)

    def _images(self, view: View) -> Tensor:
        return self.comparison.reference.features[self.extractor.score, view].to(self.comparison.device)

    def _score(
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
    ) -> Score:
        """given: compared with a file's statistics, of an unknown number of images; alone: compared with nothing."""
        this, sampling = self.comparison, self.comparison.sampling
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
            sampling=dict(sampling),
        )
        return Score(name, title, better, value, half_width, (*notes, *self.notes), passport)


def _half_width(error: float, degrees: int) -> float:
    """Of the 95 % interval."""
    return student_t_quantile(0.975, degrees) * error


def kernel_name(extractor: Extractor) -> str:
    """Name of the kernel distance on these features. Only Inception as published gives a KID."""
    return "kid" if extractor.is_published_inception else extractor.score.replace("fd_", "kid_", 1)

