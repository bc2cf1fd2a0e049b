"""Random access by index to one split of a prepared folder; thread-safe."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from smtool.data.batches import ImageBatch
from smtool.data.images.card import CARD_NAME, DatasetCard, Split, check_present, damaged
from smtool.data.images.jpeg_on_gpu import decoded_jpegs
from smtool.data.images.shards import INDEX, read_index, read_member
from smtool.devices import is_out_of_memory, reason_of
from smtool.image_shape import ImageSize


class ImageShards:
    """One split of a prepared folder. Keeps the index in memory and no open file, so threads and forks may share it."""

    def __init__(self, folder: Path, card: DatasetCard, split: Split) -> None:
        self.folder, self.card, self.split = folder, card, split
        shards = card.shards(split)
        for shard in shards:
            check_present(folder, shard)
        self._paths = [folder / shard.name for shard in shards]
        self._shard_of = np.repeat(np.arange(len(shards)), [shard.images for shard in shards])
        self._rows = np.concatenate([np.empty(0, INDEX), *(read_index(folder, shard) for shard in shards)])
        for name, count in (("label", card.num_classes), ("group", len(card.group_names))):
            if ((self._rows[name] < -1) | (self._rows[name] >= count)).any():
                raise damaged(folder / CARD_NAME, f"the shards hold a {name} that is not among its {count}")

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def digest(self) -> str:
        """sha256 over this split's shards."""
        return self.card.split_digest(self.split)

    @property
    def image_size(self) -> ImageSize:
        return self.card.image_size

    @property
    def channels(self) -> int:
        """Number of channels of the images, alpha included."""
        return self.card.channels

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 for images without labels."""
        return self.card.num_classes

    @property
    def groups(self) -> list[str] | None:
        """Per image, the name of the photograph it was cut from; None if each image is a photograph of its own."""
        names = self.card.group_names
        return [names[number] for number in self._rows["group"]] if names else None

    def read(self, indices: Sequence[int]) -> ImageBatch:
        """The images at these indices, in this order, in [-1, 1].

        Raises DataError if the stored bytes have changed since writing.
        """
        images = np.empty((len(indices), self.channels, *self.image_size), np.float32)
        for image, index in zip(images, indices, strict=True):
            _write_signed(self._pixels(index), image)
        return self._batch(torch.from_numpy(images), indices)

    def read_stored(self, indices: Sequence[int], flipped: Sequence[bool] | None = None) -> ImageBatch:
        """As `read`, but uint8 as stored, which costs a third of the time after decoding and a quarter of the bytes.

        flipped: per index, whether the image is mirrored; None: none is.
        """
        images = np.empty((len(indices), self.channels, *self.image_size), np.uint8)
        for image, index, mirrored in zip(images, indices, flipped or [False] * len(indices), strict=True):
            pixels = self._pixels(index)
            image[:] = (pixels[:, ::-1] if mirrored else pixels).transpose(2, 0, 1)
        return self._batch(torch.from_numpy(images), indices)

    def read_jpegs(self, indices: Sequence[int], device: str) -> ImageBatch:
        """As `read_stored`, but JPEG files are decoded on a GPU, where the images then are (`jpeg_on_gpu`)."""
        try:
            decoded = decoded_jpegs([self._bytes(index) for index in indices], device)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            shard = self._paths[self._shard_of[indices[0]]]
            raise damaged(shard, f"an image cannot be decoded on {device} ({reason_of(error)})") from error
        for image, index in zip(decoded, indices, strict=True):
            self._check_shape(index, (*image.shape[1:], image.shape[0]))
        return self._batch(torch.stack(decoded), indices)

    def _batch(self, images: Tensor, indices: Sequence[int]) -> ImageBatch:
        rows = self._rows[list(indices)]
        return ImageBatch(images, self._labels(rows), tuple(f"{key:08d}" for key in rows["key"]))

    def _labels(self, rows: np.ndarray) -> Tensor | None:
        return torch.from_numpy(rows["label"].astype(np.int64)) if self.num_classes else None

    def _pixels(self, index: int) -> np.ndarray:
        try:
            pixels = pixels_of(self._bytes(index))
        except (OSError, ValueError, SyntaxError) as error:
            raise damaged(self._paths[self._shard_of[index]], "the bytes of an image are no image") from error
        self._check_shape(index, pixels.shape)
        return pixels

    def _check_shape(self, index: int, shape: tuple[int, ...]) -> None:
        """Raise DataError unless (height, width, channels) are those of the card."""
        if shape != (*self.image_size, self.channels):
            height, width, channels = shape
            raise damaged(
                self._paths[self._shard_of[index]],
                f"its images are {height} high and {width} wide with {channels} channels, which the card denies",
            )

    def _bytes(self, index: int) -> bytes:
        row = self._rows[index]
        offset, size, crc32 = int(row["offset"]), int(row["bytes"]), int(row["crc32"])
        path = self._paths[self._shard_of[index]]
        return read_member(path, offset=offset, size=size, crc32=crc32, what=f"image {row['key']:08d}")


def pixels_of(file: bytes) -> np.ndarray:
    """(H, W, C) uint8, as Pillow decodes a stored file."""
    with Image.open(io.BytesIO(file)) as image:
        pixels = np.asarray(image)
    return pixels.reshape(*pixels.shape[:2], -1)  # Pillow gives gray images no axis of channels


def _write_signed(pixels: np.ndarray, image: np.ndarray) -> None:
    """`to_signed` from (H, W, C) uint8 into (C, H, W) float32; in numpy, because torch would start threads in each reader."""
    np.divide(pixels.transpose(2, 0, 1), np.float32(127.5), out=image, dtype=np.float32)
    image -= 1
