"""A split of a prepared folder, read by index in any order and from any thread."""

import io
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from smtool.datasets.card import DatasetCard, Split, check_present, damaged
from smtool.datasets.shards import Row, read_index
from smtool.datasets.types import ImageBatch, to_signed


class ImageShards:
    """One split of a prepared folder. Holds the index in memory and no open file, so threads and forks may share it."""

    def __init__(self, folder: Path, card: DatasetCard, split: Split) -> None:
        self.folder, self.card, self.split = folder, card, split
        self._rows: list[Row] = []
        self._shard_of: list[int] = []
        for number, shard in enumerate(card.shards(split)):
            check_present(folder, shard)
            rows = read_index(folder, shard)
            self._rows += rows
            self._shard_of += [number] * len(rows)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def digest(self) -> str:
        return self.card.split_digest(self.split)

    @property
    def image_size(self) -> int:
        return self.card.image_size

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 for images without labels."""
        return self.card.num_classes

    @property
    def groups(self) -> list[str] | None:
        """Per image, the photograph it was cut from; None where each image is a photograph of its own."""
        names = [row.group for row in self._rows]
        return [name for name in names if name is not None] if names and None not in names else None

    def read(self, indices: Sequence[int]) -> ImageBatch:
        """The images at these indices, in this order. Raises DataError for a sample whose bytes are not those of the card."""
        pixels = np.stack([self._pixels(index) for index in indices])  # (B, H, W, 3) uint8
        images = to_signed(torch.from_numpy(pixels).permute(0, 3, 1, 2)).contiguous()
        return ImageBatch(images, self._labels(indices), tuple(self._rows[index].key for index in indices))

    def _pixels(self, index: int) -> np.ndarray:
        with Image.open(io.BytesIO(self._bytes(index))) as image:
            return np.asarray(image)

    def _bytes(self, index: int) -> bytes:
        row, path = self._rows[index], self.folder / self.card.shards(self.split)[self._shard_of[index]].name
        try:
            handle = os.open(path, os.O_RDONLY)
            try:
                data = os.pread(handle, row.bytes, row.offset)
            finally:
                os.close(handle)
        except OSError as error:
            raise damaged(path, f"it cannot be read ({error.strerror})") from error
        if zlib.crc32(data) != row.crc32:
            raise damaged(path, f"the image {row.key} is not the one that was written")
        return data

    def _labels(self, indices: Sequence[int]) -> Tensor | None:
        labels = [self._rows[index].label for index in indices]
        return None if None in labels else torch.tensor(labels, dtype=torch.int64)
