"""Distances of a few samples to a few images, for monitoring a training run."""

from collections.abc import Sequence
from contextlib import closing
from functools import lru_cache
from pathlib import Path

from torch import Tensor

from smtool.data import ImageShards
from smtool.data.batches import to_uint8
from smtool.data.images.loading import prefetched
from smtool.errors import DataError
from smtool.evaluation.generation_scores import kernel_name
from smtool.features.extractor import Extractor
from smtool.features.load import load_extractor
from smtool.inference.features import pooled_features
from smtool.metrics.frechet import Gaussian
from smtool.metrics.kernel import kernel_distance

_BATCH = 64
_READERS = 4


def quick_distances(
    samples: Tensor,
    reference: ImageShards,
    *,
    features: str,
    num_images: int,
    device: str = "cpu",
    weights_dir: Path | None = None,
) -> dict[str, float]:
    """Frechet and kernel distance of uint8 samples (N, 3, H, W) to the first `num_images` of the reference, by score name.

    Without interval and codec; the reference's features are cached in memory only. At small N the Frechet distance
    (fd_random ...) is larger than at 50,000 samples; the kernel distance (kid_random ...) is unbiased. Raises DataError for fewer
    than 2 samples or images.
    """
    refuse_few(len(samples), reference)
    extractor = quick_extractor(features, device, weights_dir)
    return feature_distances(extractor, sample_features(extractor, samples), _reference(reference, extractor, num_images))


@lru_cache(maxsize=2)
def quick_extractor(features: str, device: str, weights_dir: Path | None) -> Extractor:
    return load_extractor(features, weights_dir=weights_dir).to(device)


def sample_features(extractor: Extractor, samples: Tensor) -> Tensor:
    """Features (N, D) of uint8 samples (N, 3, H, W), on the CPU."""
    return pooled_features(extractor, samples.split(_BATCH))


def image_features(extractor: Extractor, images: ImageShards, positions: Sequence[int]) -> Tensor:
    """Features (N, D) of the images at these positions, on the CPU."""
    pieces = [positions[start : start + _BATCH] for start in range(0, len(positions), _BATCH)]
    with closing(prefetched(images.read, pieces, _READERS)) as batches:
        return pooled_features(extractor, (to_uint8(batch.images) for batch in batches))


def feature_distances(extractor: Extractor, found: Tensor, images: Tensor) -> dict[str, float]:
    """`quick_distances` between features (N, D) of samples and (M, D) of images; N, M >= 2."""
    return {
        extractor.score: Gaussian.of(found).distance(Gaussian.of(images)),
        kernel_name(extractor): kernel_distance(found, images).value,
    }


def refuse_few(samples: int, reference: ImageShards) -> None:
    """Raise DataError for fewer than 2 samples or images."""
    if samples < 2 or len(reference) < 2:
        raise DataError(f"a distance needs at least 2 samples and 2 images, found {samples} and {len(reference)}.")


@lru_cache(maxsize=2)
def _reference(reference: ImageShards, extractor: Extractor, num_images: int) -> Tensor:
    return image_features(extractor, reference, range(min(num_images, len(reference))))
