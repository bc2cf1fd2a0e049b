"""What images and latents take to prepare, to store and to read, at rates that were measured once."""

import tarfile
from dataclasses import dataclass
from typing import Final, Literal

from smtool.cost.result import DataCost
from smtool.data.cache.card import CacheDtype
from smtool.data.cache.shards import bytes_per_image
from smtool.data.images.shards import INDEX
from smtool.image_shape import ImageSize

Format = Literal["png", "jpeg"]
IMAGES: Final = 10**9


@dataclass(frozen=True)
class Rates:
    """Per pixel of an RGB image: bytes in a shard, and seconds of one CPU core to prepare it and to read it."""

    bytes: float
    prepare_seconds: float
    read_seconds: float


RATES: Final[dict[Format, Rates]] = {
    "png": Rates(1.94, 0.70e-6, 4.6e-8),
    "jpeg": Rates(0.53, 0.36e-6, 2.2e-8),
}
"""Measured with `prepare --format png` and `jpeg:95` on 96 photographs of 256 x 256 pixels (JPEG 95), as CPU time on an AMD EPYC.
Larger originals cost more to decode."""


@dataclass(frozen=True)
class Latents:
    """Cached latents. shape: (C, h, w); flip: mirrored images are cached too; encode_seconds: of a GPU for one image, None if
    the autoencoder is not known."""

    shape: tuple[int, int, int]
    dtype: CacheDtype
    flip: bool
    encode_seconds: float | None

    @property
    def bytes(self) -> int:
        return bytes_per_image({"mean": self.shape, "logvar": self.shape}, self.dtype, flip=self.flip, labelled=True)


def image_bytes(size: ImageSize, channels: int, image_format: Format) -> int:
    """Bytes of an image in its shard: image, class and description, each in blocks of 512 bytes after a block of its own, and a
    row of the index."""
    data = RATES[image_format].bytes * size.height * size.width * channels / 3
    blocks = 1 + -(-int(data) // tarfile.BLOCKSIZE) + 2 + 2
    return blocks * tarfile.BLOCKSIZE + INDEX.itemsize


def data_cost(
    size: ImageSize, channels: int, *, images_per_second: float, latents: Latents | None, image_format: Format = "png",
    images: int = IMAGES,
) -> DataCost:
    """images_per_second: rate at which training reads; with latents, it reads these and no images."""
    pixels, rates = size.height * size.width * channels / 3, RATES[image_format]
    encode = None if latents is None or latents.encode_seconds is None else latents.encode_seconds * (1 + latents.flip)
    return DataCost(
        images=images,
        image_bytes=image_bytes(size, channels, image_format),
        image_format=image_format,
        prepare_core_hours=images * pixels * rates.prepare_seconds / 3600,
        read_core_hours=images * pixels * rates.read_seconds / 3600,
        readers=images_per_second * pixels * rates.read_seconds,
        latent_bytes=None if latents is None else latents.bytes,
        encode_gpu_hours=None if encode is None else images * encode / 3600,
    )
