"""Latent batches for training, from a cache or encoded at each step, with the same order and the same flips."""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import count
from typing import NamedTuple

from torch import Tensor

from smtool.data.batches import ImageBatch, LatentBatch, signed, to_signed
from smtool.data.features.shards import FeatureShards
from smtool.data.images.loading import prefetched
from smtool.data.images.reader import ImageShards
from smtool.data.latents.shards import LatentShards
from smtool.data.order import batch_flips, batch_indices
from smtool.devices import to_device
from smtool.networks.posterior import Posterior
from smtool.networks.tokenizer import Tokenizer
from smtool.tokenizers.encode import Encoded, begin_encoding

_Request = tuple[list[int], list[bool]]  # indices, and which of them are flipped


def latent_batches(
    latents: LatentShards,
    *,
    seed: int,
    batch: int,
    first: int,
    start: int,
    stop: int,
    workers: int,
    flip: bool,
    images: ImageShards | None = None,
    features: FeatureShards | None = None,
    pin: bool = False,
) -> Generator[LatentBatch]:
    """Yield positions start:stop of the global batches first, first + 1, ... endlessly, in the order of `training_batches`.

    Latents and features have the dtype of their cache. flip: flip each sample with probability 1/2, by seed, batch number and
    position. images: the images of the latents, to add to the batches with the same flips. features: a teacher's features of the
    same images, to add to the batches. pin: the threads put batches into pinned memory.
    """
    if flip:
        latents.check_flip()
        _check_flip(features)
    if images is not None:
        latents.check_images(images)

    def read(request: _Request) -> LatentBatch:
        pictures = None if images is None else images.read_stored(*request).images
        found = replace(latents.read_stored(*request), images=pictures, features=_features(features, request))
        return found.pinned() if pin else found

    return prefetched(read, _requests(len(latents), seed, batch, first, start, stop, flip), workers)


def encoded_batches(
    images: ImageShards,
    autoencoder: Tokenizer,
    *,
    seed: int,
    batch: int,
    first: int,
    start: int,
    stop: int,
    workers: int,
    flip: bool,
    features: FeatureShards | None = None,
    encode_batch: int = 32,
    transform: Callable[[Tensor], Tensor] | None = None,
    pin: bool = False,
) -> Generator[LatentBatch]:
    """Yield the batches of `latent_batches`, with images, encoded on the autoencoder's device, `encode_batch` images per pass.

    transform: changes images (B, C, H, W) in [-1, 1] before encoding, such as the low-pass of a warm-up. The images and
    features in the batches are those of the unchanged images.
    """
    if flip:
        _check_flip(features)

    def read(request: _Request) -> _Pictures:
        batch = replace(images.read_stored(*request), features=_features(features, request))
        batch = batch.pinned() if pin else batch
        return _Pictures(batch, batch.images if transform is None else transform(to_signed(batch.images)))

    requests = _requests(len(images), seed, batch, first, start, stop, flip)
    return _encoded(prefetched(read, requests, workers), autoencoder, encode_batch)


def image_batches(
    images: ImageShards,
    *,
    seed: int,
    batch: int,
    first: int,
    start: int,
    stop: int,
    workers: int,
    flip: bool,
    features: FeatureShards | None = None,
    pin: bool = False,
) -> Generator[ImageBatch]:
    """Yield the images of the batches of `encoded_batches`, with the same order and flips, uint8."""
    if flip:
        _check_flip(features)

    def read(request: _Request) -> ImageBatch:
        found = replace(images.read_stored(*request), features=_features(features, request))
        return found.pinned() if pin else found

    return prefetched(read, _requests(len(images), seed, batch, first, start, stop, flip), workers)


class _Pictures(NamedTuple):
    """Images, uint8, with the teacher's features, and the images to encode: the same, or transformed ones in [-1, 1]."""

    batch: ImageBatch
    changed: Tensor


def _encoded(read: Generator[_Pictures], autoencoder: Tokenizer, encode_batch: int) -> Generator[LatentBatch]:
    """On a GPU, a batch is encoded before the one in front of it is yielded: when it is checked, the host waits for its encoding
    only, not for the training step that was queued after it."""
    ahead = 1 if autoencoder.device.type == "cuda" else 0
    begun: deque[tuple[_Pictures, list[Encoded]]] = deque()
    with closing(read):
        for pictures in read:
            size, ids = len(pictures.batch), pictures.batch.ids
            parts = [slice(at, at + encode_batch) for at in range(0, size, encode_batch)]
            images = to_device(pictures.changed, autoencoder.device)
            begun.append((pictures, [begin_encoding(autoencoder, signed(images[part]), ids[part]) for part in parts]))
            if len(begun) > ahead:
                yield _latents(*begun.popleft())
        for pictures, found in begun:
            yield _latents(pictures, found)


def _latents(pictures: _Pictures, found: list[Encoded]) -> LatentBatch:
    posterior, batch = Posterior.joined(one.checked() for one in found), pictures.batch
    return LatentBatch(posterior.mean, posterior.logvar, batch.labels, batch.ids, batch.images, batch.features)


def _check_flip(features: FeatureShards | None) -> None:
    if features is not None:
        features.check_flip()


def _features(features: FeatureShards | None, request: _Request) -> Tensor | None:
    return None if features is None else features.read_stored(*request)


def _requests(length: int, seed: int, batch: int, first: int, start: int, stop: int, flip: bool) -> Iterator[_Request]:
    if not 0 <= start < stop <= batch:
        raise ValueError(f"positions {start}:{stop} do not lie in a batch of {batch}")
    return (
        (batch_indices(length, seed=seed, batch=batch, index=k)[start:stop], _decided(seed, batch, k, flip)[start:stop])
        for k in count(first)
    )


def _decided(seed: int, batch: int, index: int, flip: bool) -> list[bool]:
    return batch_flips(seed=seed, batch=batch, index=index) if flip else [False] * batch
