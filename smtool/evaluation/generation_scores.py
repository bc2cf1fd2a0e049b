"""Scores of generated images from features, each with interval and passport."""

import math

from torch import Tensor

from smtool.evaluation.comparison import Comparison, Seen
from smtool.evaluation.frechet_scores import UNRELIABLE, frechet_scores
from smtool.evaluation.generation_judges import Question
from smtool.evaluation.scores import SampleScore, half_width
from smtool.features.extractor import Extractor
from smtool.metrics.inception_score import inception_score
from smtool.metrics.kernel import SUBSET_SIZE, SUBSETS, kernel_distance, kernel_distance_of_subsets
from smtool.metrics.manifold import density_coverage, precision_recall
from smtool.metrics.mind import DIRECTIONS, mind
from smtool.randomness import generator

KERNEL_IMAGES = 10_000      # up to this many images per set, all pairs are used


def generation_scores(comparison: Comparison, question: Question, note: str | None = None) -> list[SampleScore]:
    """The scores of one extractor. note: added to each of them.

    A Frechet distance of too few images for a covariance of full rank gets the note "unreliable" and is placed after the kernel
    distance, which is then computed even if it was not requested.
    """
    seen = Seen(comparison, question.extractor, (note,) if note else ())
    found: list[SampleScore] = []
    if "frechet" in question.kinds:
        found += frechet_scores(seen, "pooled")
    if "spatial" in question.kinds:
        found += frechet_scores(seen, "spatial")
    reliable = not any(score.notes and score.notes[0].startswith(UNRELIABLE) for score in found)
    if "kernel" in question.kinds or (not reliable and seen.has_features):
        found.insert(len(found) if reliable else 0, _kernel(seen))
    if "transport" in question.kinds:
        found.append(_transport(seen))
    if "recognition" in question.kinds:
        found += _recognition(seen)
    if "manifold" in question.kinds:
        found += _manifold(seen)
    return found


def kernel_name(extractor: Extractor) -> str:
    """Name of the kernel distance on these features. Only the published Inception weights give a KID."""
    return "kid" if extractor.is_published_inception else extractor.score.replace("fd_", "kid_", 1)


def _kernel(seen: Seen) -> SampleScore:
    """Kernel distance of all pairs; above KERNEL_IMAGES, over subsets, with the error estimated on the first KERNEL_IMAGES."""
    samples, images = seen.samples(), seen.images()
    part = kernel_distance(samples[:KERNEL_IMAGES], images[:KERNEL_IMAGES])
    count = min(len(samples), KERNEL_IMAGES)
    width = half_width(part.error * math.sqrt(count / len(samples)), len(samples) - 1)
    value, metric = part.value, "kernel distance"
    if max(len(samples), len(images)) > KERNEL_IMAGES:
        draws = generator(seen.comparison.seed, "kernel subsets", seen.extractor.score)
        value = kernel_distance_of_subsets(samples, images, draws=draws)
        metric = f"kernel distance, {SUBSETS} subsets of {min(SUBSET_SIZE, len(samples), len(images)):,}"
    name = kernel_name(seen.extractor)
    title = "KID" if name == "kid" else name.replace("kid_", "KD ", 1)
    return seen.score(name, title, "lower", value, width, metric)


def _transport(seen: Seen) -> SampleScore:
    """MIND; with fewer reference images than samples, of as many samples."""
    draws = generator(seen.comparison.seed, "mind", seen.extractor.score)
    result = mind(seen.samples(), seen.images(), draws=draws)
    published = seen.extractor.is_published_inception
    name = "mind" if published else seen.extractor.score.replace("fd_", "mind_", 1)
    title = "MIND" if published else name.replace("mind_", "MIND ", 1)
    width = half_width(result.error, result.count - 1) if result.error else None
    notes = [f"biased upwards, the more the fewer images; of {result.count:,} vectors of each set"]
    return seen.score(name, title, "lower", result.value, width, f"MIND, {DIRECTIONS:,} directions", notes=notes)


def _recognition(seen: Seen) -> list[SampleScore]:
    """The inception score over ten splits and over all samples at once."""
    found = inception_score(seen.samples("logits"))
    width = half_width(found.std / math.sqrt(found.splits - 1), found.splits - 1)
    name = "is" if seen.extractor.is_published_inception else seen.extractor.score.replace("fd_", "is_", 1)
    metric, splits, whole = "inception score", f"IS, {found.splits} splits", "IS, all at once"
    notes = ["no interval, because it is a single value; see the score over splits"]
    return [
        seen.score(name, splits, "higher", found.mean, width, metric, alone=True),
        seen.score(f"{name}_whole", whole, "higher", found.whole, None, metric, notes=notes, alone=True),
    ]


def _manifold(seen: Seen) -> list[SampleScore]:
    """Precision and recall, density and coverage.

    Intervals are those of means over samples (precision, density) or over images (recall, coverage), with fixed balls.
    """
    samples, images = seen.samples(), seen.images()
    pr, dc = precision_recall(samples, images), density_coverage(samples, images)
    return [
        _share(seen, "precision", pr.realistic),
        _share(seen, "recall", pr.reached, "interval over images, for fixed samples"),
        _share(seen, "density", dc.counts),
        _share(seen, "coverage", dc.covered, "interval over images, for fixed samples"),
    ]


def _share(seen: Seen, metric: str, values: Tensor, *notes: str) -> SampleScore:
    """A score that is a mean over samples or over images."""
    values = values.double()
    error = values.std().item() / math.sqrt(len(values))
    width = half_width(error, len(values) - 1) if error else None
    notes = notes if error else ("no interval, because all images have the same value",)
    name = "inception" if seen.extractor.is_published_inception else seen.extractor.score.removeprefix("fd_")
    return seen.score(f"{metric}_{name}", f"{metric} ({name})", "higher", values.mean().item(), width, metric, notes=notes)
