"""Random access by index to a latent cache; thread-safe."""

from collections.abc import Sequence
from pathlib import Path

from smtool.data.batches import LatentBatch
from smtool.data.cache.reader import CacheShards
from smtool.data.images.reader import ImageShards
from smtool.data.latents.card import LatentCard, read_latent_card, refuse_stale_latents
from smtool.data.latents.statistics import StatsKind


class LatentShards:
    """A latent cache. Threads and forks may share it.

    stats: statistics for normalization, of the kind chosen when the cache was opened.
    """

    def __init__(self, folder: Path, card: LatentCard, stats: StatsKind) -> None:
        self.folder, self.card = folder, card
        self.stats = card.measured.stats(stats, data=card.data)
        self.shards = CacheShards(folder, card)

    def __len__(self) -> int:
        return len(self.shards)

    @property
    def digest(self) -> str:
        return self.card.digest

    @property
    def autoencoder(self) -> str:
        """Digest of the autoencoder that made the latents."""
        return self.card.autoencoder

    @property
    def data(self) -> str:
        """Digest of the images of the latents."""
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
        """Whether the moments of the flipped images are stored too."""
        return self.card.flip

    def check_flip(self) -> None:
        """Raise DataError if the cache has no latents of flipped images."""
        self.shards.check_flip()

    def check_images(self, images: ImageShards) -> None:
        """Raise DataError unless these are the images of the latents, so that both can be joined by index."""
        refuse_stale_latents(self.folder, self.card, autoencoder=None, data=images.digest)

    def read(self, indices: Sequence[int], flipped: Sequence[bool]) -> LatentBatch:
        """The moments at these indices, in this order, float32; flipped: those of the flipped image."""
        return self.read_stored(indices, flipped).in_float32()

    def read_stored(self, indices: Sequence[int], flipped: Sequence[bool]) -> LatentBatch:
        """As `read`, with the dtype of the cache."""
        moments = self.shards.read(indices, flipped)
        return LatentBatch(moments["mean"], moments["logvar"], self.shards.labels(indices), self.shards.ids(indices))


def open_latents(folder: Path | str, *, autoencoder: str | None, data: str | None, stats: StatsKind = "channel") -> LatentShards:
    """Open a latent cache. Raises DataError if its autoencoder or data digest differs from the given one (None: any).

    stats: normalize by mean and std per channel, by one std over all channels ("scalar", as in the paper), or per channel with a
    recolouring (`Spectral`).
    """
    path = Path(folder)
    card = read_latent_card(path)
    refuse_stale_latents(path, card, autoencoder=autoencoder, data=data)
    return LatentShards(path, card, stats)
