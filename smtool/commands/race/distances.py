"""Distances of samples and of reconstructions to images by each metric, with 95 % intervals over images."""

from collections.abc import Callable

import torch
from torch import Tensor

from smtool.commands.race.trial import Distance, Distances, Estimate
from smtool.evaluation.generation_scores import kernel_name
from smtool.features.extractor import Extractor
from smtool.inference.features import pooled_features
from smtool.metrics.bootstrap import bootstrap_error
from smtool.metrics.frechet import Gaussian
from smtool.metrics.kernel import kernel_distance
from smtool.metrics.mind import mind
from smtool.randomness import generator
from smtool.recipe.race import Metric
from smtool.spectrum.jackknife import student_t_quantile

_REPLICATES = 20
_BATCH = 64

Measure = Callable[[Tensor, str], Estimate]
"""Features (N, D) of a set of images, and its name -> distance to the reference."""


def distances_to(
    reference: Tensor, extractor: Extractor, metric: Metric, *, samples: Tensor, reconstructions: Tensor
) -> Distances:
    """All distances on one extractor. reference: features (M, D); the images: uint8 (N, C, H, W). metric: the one that ranks."""
    generated, reconstructed = features_of(samples, extractor), features_of(reconstructions, extractor)
    measures: dict[Metric, Measure] = {
        "fd": _frechet(reference, extractor.score), "kd": _kernel(reference), "mind": _transport(reference, extractor.score)
    }  # fmt: skip
    found = {
        name: Distance(
            name=distance_name(name, extractor),
            generation=measure(generated, "generation"),
            reconstruction=measure(reconstructed, "reconstruction"),
        )
        for name, measure in measures.items()
    }
    judge, kernel = found.pop(metric), found.get("kd")
    kernel = kernel or judge
    return Distances(
        metric=metric,
        name=judge.name,
        extractor_sha256=extractor.digest,
        dim=extractor.dim,
        generation=judge.generation,
        kernel_generation=kernel.generation.value,
        reconstruction=judge.reconstruction,
        kernel_reconstruction=kernel.reconstruction.value,
        kernel_name=kernel.name,
        gap=judge.generation.value - judge.reconstruction.value,
        others=found,
    )


def distance_name(metric: Metric, extractor: Extractor) -> str:
    """Name of a distance on these features, such as fd_random, kid_random or mind_random."""
    if metric == "kd":
        return kernel_name(extractor)
    return extractor.score if metric == "fd" else extractor.score.replace("fd_", "mind_", 1)


def features_of(images: Tensor, extractor: Extractor) -> Tensor:
    """Features, float32 (N, dim) on the CPU, of uint8 images (N, C, H, W)."""
    return pooled_features(extractor, images.split(_BATCH))


def _frechet(reference: Tensor, score: str) -> Measure:
    """Frechet distance, with a bootstrap over the images."""
    fixed = Gaussian.of(reference)

    def measure(features: Tensor, what: str) -> Estimate:
        def distance(chosen: Tensor) -> float:
            return Gaussian.of(features[chosen]).distance(fixed)

        indices = torch.arange(len(features))
        error = bootstrap_error(distance, indices, replicates=_REPLICATES, draws=generator("race", score, what))
        return _estimate(distance(indices), error, _REPLICATES - 1)

    return measure


def _kernel(reference: Tensor) -> Measure:
    """Kernel distance, with a jackknife over the images."""

    def measure(features: Tensor, what: str) -> Estimate:
        found = kernel_distance(features, reference)
        return _estimate(found.value, found.error, len(features) - 1)

    return measure


def _transport(reference: Tensor, score: str) -> Measure:
    """MIND. Directions and the part of the reference are the same for all racers."""

    def measure(features: Tensor, what: str) -> Estimate:
        found = mind(features, reference, draws=generator("race", "mind", score))
        return _estimate(found.value, found.error, found.count - 1)

    return measure


def _estimate(value: float, error: float, degrees: int) -> Estimate:
    return Estimate(value=value, half_width=student_t_quantile(0.975, degrees) * error)
