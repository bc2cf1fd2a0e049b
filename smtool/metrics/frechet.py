"""The Frechet distance between two sets of features, from moments that can be merged."""

from dataclasses import dataclass

import torch
from torch import Tensor

from smtool.devices import ReadLater


@dataclass(frozen=True)
class FeatureStats:
    """Moments of a set of feature vectors, float64.

    count: number of vectors; mean: (D,); scatter: (D, D), the sum of outer products of deviations from the mean.
    `a + b` holds the moments of both sets together (Chan, Golub, LeVeque 1983), so passes may be split and ranks merged.
    """

    count: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def of(cls, features: Tensor) -> "FeatureStats":
        """Moments of features (N, D), N >= 1. Raises ValueError for values that are not finite."""
        return cls.of_finite(finite_features(features))

    @classmethod
    def of_finite(cls, values: Tensor) -> "FeatureStats":
        """`of` for rows of what `finite_features` returned, which is not checked again: a GPU would wait for the check."""
        mean = values.mean(0)
        deviation = values - mean
        return cls(len(values), mean, deviation.T @ deviation)

    @classmethod
    def given(cls, mean: Tensor, covariance: Tensor, *, count: int | None = None) -> "FeatureStats":
        """From the mean and covariance of a file. count None, unknown: taken as one more than the dimension, enough for full
        rank. Raises ValueError for other shapes, or values that are not finite."""
        if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)) or not len(mean):
            raise ValueError(f"a mean of shape {tuple(mean.shape)} with a covariance of shape {tuple(covariance.shape)}")
        if not (torch.isfinite(mean).all() and torch.isfinite(covariance).all()):
            raise ValueError("a mean or covariance with NaN or infinity")
        count = count or len(mean) + 1
        return cls(count, mean.double(), covariance.double() * (count - 1))

    def __add__(self, other: "FeatureStats") -> "FeatureStats":
        if self.mean.shape != other.mean.shape:
            raise ValueError(f"features of {len(self.mean)} and of {len(other.mean)} dimensions cannot be merged")
        count = self.count + other.count
        step = other.mean - self.mean
        mean = self.mean + step * (other.count / count)
        scatter = self.scatter + other.scatter + torch.outer(step, step) * (self.count * other.count / count)
        return FeatureStats(count, mean, scatter)

    @property
    def dim(self) -> int:
        return len(self.mean)

    @property
    def covariance(self) -> Tensor:
        """Unbiased covariance (D, D), as numpy.cov; needs two vectors."""
        if self.count < 2:
            raise ValueError("a covariance needs at least 2 feature vectors, found 1")
        return self.scatter / (self.count - 1)

    @property
    def full_rank(self) -> bool:
        """Whether there are enough vectors for a covariance of full rank; below, a Frechet distance is unreliable."""
        return self.count > self.dim


def finite_features(features: Tensor) -> Tensor:
    """Features (N, D) as float64. Raises ValueError for another shape, or values that are not finite."""
    if features.ndim != 2 or len(features) == 0:
        raise ValueError(f"features have the shape {tuple(features.shape)}, but (N, D) with N >= 1 is needed")
    values = features.detach().double()
    if not torch.isfinite(values).all():
        bad = int((~torch.isfinite(values)).any(1).sum())
        raise ValueError(f"{bad} of {len(values)} feature vectors hold NaN or infinity")
    return values


@dataclass(frozen=True)
class Gaussian:
    """The Gaussian of a set of features: mean (D,), and a root R (D, r) with covariance R R^T, for any r.

    If one side is fixed and the other changes, as in a bootstrap, the root of the fixed side is computed only once.
    """

    mean: Tensor
    root: Tensor

    @classmethod
    def of(cls, features: Tensor) -> "Gaussian":
        """The Gaussian of features (N, D), N >= 2; for N <= D much faster than through moments."""
        return cls.of_finite(finite_features(features))

    @classmethod
    def of_finite(cls, values: Tensor) -> "Gaussian":
        """`of` for rows of what `finite_features` returned, which is not checked again."""
        if len(values) > values.shape[-1]:
            return cls.of_stats(FeatureStats.of_finite(values))
        if len(values) < 2:
            raise ValueError("a covariance needs at least 2 feature vectors, found 1")
        mean = values.mean(0)
        return cls(mean, (values - mean).T / (len(values) - 1) ** 0.5)      # centred, they are a root themselves

    @classmethod
    def of_stats(cls, stats: FeatureStats) -> "Gaussian":
        return cls(stats.mean, _root(stats))

    def distance(self, other: "Gaussian") -> float:
        """The Frechet distance to another Gaussian; see `frechet_distance`."""
        if len(self.mean) != len(other.mean):
            raise ValueError(f"features of {len(self.mean)} and of {len(other.mean)} dimensions cannot be compared")
        mean, root = other.mean.to(self.mean.device), other.root.to(self.mean.device)
        total = ReadLater((self.mean - mean).square().sum() + self.root.square().sum() + root.square().sum())
        overlap = torch.linalg.svdvals((self.root.T @ root).cpu()).sum()      # GPUs are slow at this one
        return max(0.0, float(total.value) - 2.0 * float(overlap))


def frechet_distance(a: FeatureStats, b: FeatureStats) -> float:
    """Squared 2-Wasserstein distance between the Gaussians with these moments (Dowson, Landau 1982; FID: Heusel et al. 2017).

    |mean_a - mean_b|^2 + tr(A) + tr(B) - 2 tr((A B)^(1/2)), in squared feature units, never negative.
    The last trace is the sum of the singular values of R_A^T R_B for any roots R R^T = A, B: real by construction, exact for
    covariances without full rank, and equal to scipy's sqrtm where that converges.
    """
    if a.dim != b.dim:
        raise ValueError(f"features of {a.dim} and of {b.dim} dimensions cannot be compared")
    return Gaussian.of_stats(a).distance(Gaussian.of_stats(b))


def frechet_distance_of_features(x: Tensor, y: Tensor) -> float:
    """The same distance between feature vectors (N, D) and (M, D)."""
    if x.shape[1:] != y.shape[1:]:
        raise ValueError(f"features of the shapes {tuple(x.shape)} and {tuple(y.shape)} cannot be compared")
    return Gaussian.of(x).distance(Gaussian.of(y))


def _root(stats: FeatureStats) -> Tensor:
    """R (D, r) with R R^T = covariance: by Cholesky, or by eigenvalues (without zero ones) for a covariance without full rank."""
    covariance = stats.covariance
    if stats.full_rank:
        factor, failed = torch.linalg.cholesky_ex(covariance)
        if not failed:
            return factor
    values, vectors = torch.linalg.eigh(covariance)
    kept = values > values[-1].clamp_min(0.0) * len(values) * torch.finfo(values.dtype).eps
    return vectors[:, kept] * values[kept].sqrt()
