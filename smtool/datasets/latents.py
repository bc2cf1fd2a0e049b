"""A latent cache, read by index in any order and from any thread."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from smtool.datasets.card import check_present
from smtool.datasets.latents_card import LatentCard, prepare_command, read_latent_card, refuse_stale
from smtool.datasets.latents_measure import StatsKind
from smtool.datasets.latents_shards import LATENT_INDEX, unpacked
from smtool.datasets.reader import ImageShards
from smtool.datasets.shards import read_index, read_member
from smtool.datasets.types import LatentBatch
from smtool.errors import DataError


class LatentShards:
    """A latent cache. Holds the index in memory and no open file, so threads and forks may share it.

    stats: what to normalize by, of the kind that was asked for when it was opened.
    """

    def __init__(self, folder: Path, card: LatentCard, stats: StatsKind) -> None:
        self.folder, self.card = folder, card
        self.stats = card.measured.stats(stats, data=card.data)
        for shard in card.shards:
            check_present(folder, shard)
        self._paths = [folder / shard.name for shard in card.shards]
        self._shard_of = np.repeat(np.arange(len(card.shards)), [shard.images for shard in card.shards])
        self._rows = np.concatenate([np.empty(0, LATENT_INDEX), *(read_index(folder, shard) for shard in card.shards)])

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def digest(self) -> str:
        return self.card.digest

    @property
    def autoencoder(self) -> str:
        """Digest of the autoencoder that made them."""
        return self.card.autoencoder

    @property
    def data(self) -> str:
        """Digest of the images that they were made of."""
        return self.card.data

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        return self.card.latent_shape

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 for images without labels."""
        return self.card.num_classes

    @property
    def flip(self) -> bool:
        """Whether the moments of the flipped images are there too."""
        return self.card.flip

    def check_flip(self) -> None:
        """DataError if flipped latents are wanted and there are none."""
        if not self.flip:
            command = prepare_command(self.card.images_folder, self.card.checkpoint)
            raise DataError(
                f"{self.folder} holds no latents of flipped images, and a flipped latent is not the latent of a flipped image.",
                hint=f"Train with flip = false, or encode both: {command}",
            )

    def check_images(self, images: ImageShards) -> None:
        """DataError unless these are the images that the latents were made of, so that they can be joined by index."""
        refuse_stale(self.folder, self.card, autoencoder=None, data=images.digest)

    def read(self, indices: Sequence[int], flipped: Sequence[bool]) -> LatentBatch:
        """The moments at these indices, in this order, each of the image or of the flipped image."""
        if any(flipped):
            self.check_flip()
        rows = self._rows[list(indices)]
        posterior = unpacked(self._bytes(index, int(side)) for index, side in zip(indices, flipped, strict=True))
        labels = torch.from_numpy(rows["label"].astype(np.int64)) if self.num_classes else None
        return LatentBatch(posterior.mean, posterior.logvar, labels, tuple(f"{key:08d}" for key in rows["key"]))

    def _bytes(self, index: int, side: int) -> bytes:
        row, path = self._rows[index], self._paths[self._shard_of[index]]
        offset, size, crc32 = int(row["offset"][side]), int(row["bytes"]), int(row["crc32"][side])
        return read_member(path, offset=offset, size=size, crc32=crc32, what=f"the latent of image {row['key']:08d}")


def open_latents(folder: Path | str, *, autoencoder: str | None, data: str | None, stats: StatsKind = "channel") -> LatentShards:
    """Open a latent cache. autoencoder, data: digests it must have been made with (None: any), else DataError.

    stats: a cache knows its statistics per channel and over all channels together ("scalar", the paper's).
    """
    path = Path(folder)
    card = read_latent_card(path)
    refuse_stale(path, card, autoencoder=autoencoder, data=data)
    return LatentShards(path, card, stats)
