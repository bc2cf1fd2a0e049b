"""Distances of a few samples to a few images, for monitoring a training run."""

from functools import lru_cache
from pathlib import Path

from torch import Tensor

from smtool.data import ImageShards, validation_batches
from smtool.data.batches import to_uint8
from smtool.errors import DataError
from smtool.evaluation.generation_scores import kernel_name
from smtool.features.extractor import Extractor
from smtool.features.load import load_extractor
from smtool.inference.features import pooled_features
from smtool.metrics.frechet import Gaussian
from smtool.metrics.kernel import kernel_distance

_BATCH = 64


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
    if len(samples) < 2 or len(reference) < 2:
        raise DataError(f"a distance needs at least 2 samples and 2 images, found {len(samples)} and {len(reference)}.")
    extractor = _extractor(features, device, weights_dir)
    found = pooled_features(extractor, samples.split(_BATCH))
    images = _reference(reference, extractor, num_images)
    return {
        extractor.score: Gaussian.of(found).distance(Gaussian.of(images)),
        kernel_name(extractor): kernel_distance(found, images).value,
    }


@lru_cache(maxsize=2)
def _extractor(features: str, device: str, weights_dir: Path | None) -> Extractor:
    return load_extractor(features, weights_dir=weights_dir).to(device)


@lru_cache(maxsize=2)
def _reference(reference: ImageShards, extractor: Extractor, num_images: int) -> Tensor:
    batches = validation_batches(reference, batch=_BATCH, limit=num_images)
    return pooled_features(extractor, (to_uint8(batch.images) for batch in batches))
