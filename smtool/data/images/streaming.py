"""Batches streamed from remote shards by webdataset, for data too large for the local disk. Local folders are read by index."""

import os
import random
import tarfile
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch

from smtool.data.batches import ImageBatch, to_signed
from smtool.data.images.decoding import AS_STORED, UnusableImage, decode
from smtool.data.images.remote import Patience, RemoteFile
from smtool.errors import DataError

SCHEMES = ("http", "https", "gs", "hf")
_SUFFIXES = ("png", "jpg", "jpeg", "webp")


def stream_images(
    pattern: str,
    *,
    batch: int,
    seed: int,
    epoch: int,
    shuffle: int = 4096,
    rank: int = 0,
    ranks: int = 1,
    patience: Patience = Patience(),
) -> Iterator[ImageBatch]:
    """Yield one epoch of this rank's remote shards, such as https://host/train-{000000..000063}.tar; full batches only.

    The order of the shards is drawn from (seed, epoch); samples are shuffled in a buffer of `shuffle`. Ranks read different
    shards, so their epochs may differ in length. Color profiles are ignored: `smtool prepare` has converted them. Only the URL
    schemes in SCHEMES are opened: no pipes, no local paths.

    A connection by http or https that stalls, breaks or ends early is renewed at the byte where it stopped, as often as
    `patience` says; a download that fails raises DataError. Other schemes are read by webdataset, which does not try again, and
    does not detect a shard that was truncated between two members.
    """
    os.environ.setdefault("WDS_SECURE", "1")  # read by webdataset when it is imported
    import webdataset
    from webdataset.shardlists import expand_urls

    urls = expand_urls(pattern)
    if wrong := [url for url in urls if url.partition("://")[0] not in SCHEMES]:
        raise DataError(
            f"{wrong[0]}: only {', '.join(SCHEMES)} can be streamed.",
            hint="For local shards, run `smtool prepare` and call open_images.",
        )
    order = random.Random(f"{seed}/{epoch}")
    order.shuffle(urls)
    if not urls[rank::ranks]:
        raise DataError(
            f"{pattern}: {len(urls)} shards cannot be shared by {ranks} ranks.", hint="Use at least one shard per rank."
        )
    stages = webdataset.tariterators
    files = stages.tar_file_expander(_opened(urls[rank::ranks], patience))
    samples = iter(webdataset.filters.shuffle(shuffle, rng=order)(stages.group_by_keys(files)))
    try:
        while len(drawn := list(islice(samples, batch))) == batch:
            yield _batch(drawn)
    except (OSError, ValueError, tarfile.TarError) as error:
        reason = next((part for part in error.args if isinstance(part, str)), error)      # webdataset adds objects
        raise DataError(
            f"{pattern}: cannot be streamed ({reason}).", hint="Check that each shard can be downloaded completely."
        ) from error


def _opened(urls: list[str], patience: Patience) -> Iterator[dict[str, Any]]:
    """Shards as webdataset's stages expect them."""
    from webdataset.gopen import gopen

    for url in urls:
        stream = RemoteFile(url, patience) if url.startswith(("http://", "https://")) else gopen(url)
        yield {"url": url, "stream": stream}
        stream.close()


def _batch(samples: list[dict[str, Any]]) -> ImageBatch:
    pixels = [_pixels(sample) for sample in samples]
    if len({image.shape for image in pixels}) > 1:
        raise DataError(
            f"{samples[0]['__url__']}: holds images of several sizes.", hint="Prepare it at one size with `smtool prepare`."
        )
    images = to_signed(torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)).contiguous()
    labels = [int(sample["cls"]) for sample in samples if "cls" in sample]
    return ImageBatch(
        images, torch.tensor(labels) if len(labels) == len(samples) else None, tuple(sample["__key__"] for sample in samples)
    )


def _pixels(sample: dict[str, Any]) -> np.ndarray:
    suffix = next((suffix for suffix in _SUFFIXES if suffix in sample), None)
    if suffix is None:
        raise DataError(f"{sample['__url__']}: the sample {sample['__key__']} holds no image.")
    try:
        return np.asarray(decode(sample[suffix], AS_STORED).image)
    except UnusableImage as error:
        raise DataError(f"{sample['__url__']}: the image {sample['__key__']} is damaged: {error}.") from error
