"""Random access by index to the shards of a cache; thread-safe."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from smtool.data.cache.card import CacheCard
from smtool.data.cache.shards import CACHE_INDEX, unpacked
from smtool.data.images.card import check_present, damaged
from smtool.data.images.shards import read_index, read_member
from smtool.errors import DataError


class CacheShards:
    """The shards of one cache. Keeps the index in memory and no open file, so threads and forks may share it."""

    def __init__(self, folder: Path, card: CacheCard) -> None:
        self.folder, self.card = folder, card
        for shard in card.shards:
            check_present(folder, shard)
        self._paths = [folder / shard.name for shard in card.shards]
        self._shard_of = np.repeat(np.arange(len(card.shards)), [shard.images for shard in card.shards])
        indices = [read_index(folder, shard, CACHE_INDEX) for shard in card.shards]
        for shard, rows in zip(card.shards, indices, strict=True):
            if ((rows["label"] < -1) | (rows["label"] >= max(card.num_classes, 1))).any():
                raise damaged(folder / shard.index_name, f"it has a label that is not among the {card.num_classes} classes")
        self._rows = np.concatenate([np.empty(0, CACHE_INDEX), *indices])
        if not len(self._rows):
            raise DataError(f"{folder} holds no {card.noun}s.", hint=f"Make it again: {card.command()}")

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, indices: Sequence[int], flipped: Sequence[bool]) -> dict[str, Tensor]:
        """The stored tensors (B, ...) by name for the images at these indices, in this order, of the cache's dtype.

        flipped: per index, whether they are those of the mirrored image.
        """
        if any(flipped):
            self.check_flip()
        return unpacked(self._bytes(index, int(side)) for index, side in zip(indices, flipped, strict=True))

    def labels(self, indices: Sequence[int]) -> Tensor | None:
        return torch.from_numpy(self._rows["label"][list(indices)].astype(np.int64)) if self.card.num_classes else None

    def ids(self, indices: Sequence[int]) -> tuple[str, ...]:
        return tuple(f"{key:08d}" for key in self._rows["key"][list(indices)])

    def check_flip(self) -> None:
        """Raise DataError if the cache has no outputs for mirrored images."""
        if not self.card.flip:
            noun = self.card.noun
            raise DataError(
                f"{self.folder} holds no {noun}s of flipped images, and flipping a {noun} does not give that of a flipped image.",
                hint=f"Train with flip = false, or cache both: {self.card.command()}",
            )

    def _bytes(self, index: int, side: int) -> bytes:
        row, path = self._rows[index], self._paths[self._shard_of[index]]
        offset, size, crc32 = int(row["offset"][side]), int(row["bytes"]), int(row["crc32"][side])
        return read_member(path, offset=offset, size=size, crc32=crc32, what=f"the {self.card.noun} of image {row['key']:08d}")
