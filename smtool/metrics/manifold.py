"""Precision and recall, density and coverage: are samples like images, and are all images covered by samples?

Each is computed from balls around feature vectors: the radius is the distance to the k-th nearest neighbour in the same set.
Distances are Euclidean, in float64.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from smtool.metrics.frechet import finite_features

NEIGHBOURS = 3
"""k of precision and recall."""
DENSE_NEIGHBOURS = 5
"""k of density and coverage."""
_ROWS = 1024


@dataclass(frozen=True)
class PrecisionRecall:
    """realistic: (samples,) bool, in the ball of at least one image; reached: (images,) bool, in the ball of at least one
    sample."""

    realistic: Tensor
    reached: Tensor

    @property
    def precision(self) -> float:
        return self.realistic.double().mean().item()

    @property
    def recall(self) -> float:
        return self.reached.double().mean().item()


@dataclass(frozen=True)
class DensityCoverage:
    """counts: (samples,) float64, number of image balls that contain the sample, over k; covered: (images,) bool, whether the
    image's ball contains a sample."""

    counts: Tensor
    covered: Tensor

    @property
    def density(self) -> float:
        """About 1 for equal distributions; not bounded by 1."""
        return self.counts.mean().item()

    @property
    def coverage(self) -> float:
        return self.covered.double().mean().item()


def precision_recall(samples: Tensor, images: Tensor, *, neighbours: int = NEIGHBOURS) -> PrecisionRecall:
    """Improved precision and recall (Kynkaanniemi et al. 2019) of samples (N, D) and images (M, D), as features.

    Precision falls when samples are unlike any image, recall when images are unlike any sample. Balls are closed, as published.
    """
    samples, images = _pair(samples, images, neighbours)
    around_images, around_samples = _radii(images, neighbours), _radii(samples, neighbours)
    realistic, reached = [], torch.zeros(len(images), dtype=torch.bool, device=images.device)
    for rows, distance in _distances(samples, images):
        realistic.append((distance <= around_images).any(1))
        reached |= (distance <= around_samples[rows, None]).any(0)
    return PrecisionRecall(torch.cat(realistic).cpu(), reached.cpu())


def density_coverage(samples: Tensor, images: Tensor, *, neighbours: int = DENSE_NEIGHBOURS) -> DensityCoverage:
    """Density and coverage (Naeem et al. 2020) of samples (N, D) and images (M, D), as features.

    Only balls around images are used, so a single outlier among the samples does not cover many images. Balls are open, as in the
    authors' package prdc.
    """
    samples, images = _pair(samples, images, neighbours)
    radii = _radii(images, neighbours)
    counts, covered = [], torch.zeros(len(images), dtype=torch.bool, device=images.device)
    for _, distance in _distances(samples, images):
        inside = distance < radii
        counts.append(inside.sum(1).double() / neighbours)
        covered |= inside.any(0)
    return DensityCoverage(torch.cat(counts).cpu(), covered.cpu())


def _pair(samples: Tensor, images: Tensor, neighbours: int) -> tuple[Tensor, Tensor]:
    samples, images = finite_features(samples), finite_features(images)
    if samples.shape[1] != images.shape[1]:
        raise ValueError(f"features of {samples.shape[1]} and of {images.shape[1]} dimensions cannot be compared")
    if min(len(samples), len(images)) <= neighbours:
        found = f"{len(samples)} samples and {len(images)} images"
        raise ValueError(f"balls of {neighbours} nearest neighbours need at least {neighbours + 1} of each, found {found}")
    return samples, images.to(samples.device)


def _radii(x: Tensor, neighbours: int) -> Tensor:
    """(N,): distance to the k-th nearest other vector. The nearest, at distance 0, is the vector itself."""
    radii = []
    for rows, distance in _distances(x, x):
        distance[torch.arange(len(distance)), torch.arange(len(x))[rows]] = 0.0      # cdist leaves rounding there
        radii.append(distance.kthvalue(neighbours + 1, dim=1).values)
    return torch.cat(radii)


def _distances(x: Tensor, y: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield a few rows of the distance matrix at a time: (slice of x, distances (rows, M))."""
    for start in range(0, len(x), _ROWS):
        rows = slice(start, min(start + _ROWS, len(x)))
        yield rows, torch.cdist(x[rows], y)
