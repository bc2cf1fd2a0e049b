"""Latent batches for training, from a cache or encoded on the way: the same order and the same flips either way."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import count

import torch
from torch import Tensor

from smtool.datasets.latents import LatentShards
from smtool.datasets.latents_encode import encoded
from smtool.datasets.loading import prefetched
from smtool.datasets.order import batch_flips, batch_indices
from smtool.datasets.reader import ImageShards
from smtool.datasets.types import ImageBatch, LatentBatch, to_uint8
from smtool.networks.autoencoder import Autoencoder

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
) -> Generator[LatentBatch]:
    """Positions start:stop of the global batches first, first + 1, ... without end, in the order of `training_batches`.

    flip: each sample is flipped with probability 1/2, decided by seed, batch number and position. images: those that
    the latents were made of, to come along (flipped alike).
    """
    if flip:
        latents.check_flip()
    if images is not None:
        latents.check_images(images)

    def read(request: _Request) -> LatentBatch:
        found = latents.read(*request)
        return found if images is None else replace(found, images=to_uint8(_flipped(images.read(request[0]), request[1]).images))

    return prefetched(read, _requests(len(latents), seed, batch, first, start, stop, flip), workers)


def encoded_batches(
    images: ImageShards,
    autoencoder: Autoencoder,
    *,
    seed: int,
    batch: int,
    first: int,
    start: int,
    stop: int,
    workers: int,
    flip: bool,
    encode_batch: int = 32,
    transform: Callable[[Tensor], Tensor] | None = None,
) -> Generator[LatentBatch]:
    """The same batches without a cache, encoded where the autoencoder lies, `encode_batch` images at a time, with images.

    transform: changes images (B, 3, H, W) in [-1, 1] before they are encoded, such as a low-pass in a warm-up.
    """

    def read(request: _Request) -> ImageBatch:
        batch = _flipped(images.read(request[0]), request[1])
        return batch if transform is None else replace(batch, images=transform(batch.images))

    requests = _requests(len(images), seed, batch, first, start, stop, flip)
    return _encoded(prefetched(read, requests, workers), autoencoder, encode_batch)


def _encoded(batches: Generator[ImageBatch], autoencoder: Autoencoder, encode_batch: int) -> Generator[LatentBatch]:
    with closing(batches):
        for batch in batches:
            parts = [batch.slice(at, at + encode_batch) for at in range(0, len(batch), encode_batch)]
            posteriors = [encoded(autoencoder, part.images, part.ids, device=autoencoder.encoder_tail.device) for part in parts]
            mean, logvar = (torch.cat([getattr(each, name) for each in posteriors]) for name in ("mean", "logvar"))
            yield LatentBatch(mean, logvar, batch.labels, batch.ids, images=to_uint8(batch.images))


def _requests(length: int, seed: int, batch: int, first: int, start: int, stop: int, flip: bool) -> Iterator[_Request]:
    if not 0 <= start < stop <= batch:
        raise ValueError(f"positions {start}:{stop} do not lie in a batch of {batch}")
    return (
        (batch_indices(length, seed=seed, batch=batch, index=k)[start:stop], _decided(seed, batch, k, flip)[start:stop])
        for k in count(first)
    )


def _decided(seed: int, batch: int, index: int, flip: bool) -> list[bool]:
    return batch_flips(seed=seed, batch=batch, index=index) if flip else [False] * batch


def _flipped(batch: ImageBatch, flipped: Sequence[bool]) -> ImageBatch:
    chosen: Tensor = torch.tensor(flipped).view(-1, 1, 1, 1)
    return replace(batch, images=torch.where(chosen, batch.images.flip(-1), batch.images))
