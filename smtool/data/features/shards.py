"""Random access by index to a cache of a teacher's features; thread-safe."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from smtool.data.cache.reader import CacheShards
from smtool.data.features.card import FeatureCard, read_feature_card, refuse_stale_features
from smtool.data.images.reader import ImageShards
from smtool.features.teachers import Teacher


class FeatureShards:
    """Features of every image of a split and, with flip, of every mirrored image. Threads and forks may share it."""

    def __init__(self, folder: Path, card: FeatureCard) -> None:
        self.folder, self.card = folder, card
        self.shards = CacheShards(folder, card)

    def __len__(self) -> int:
        return len(self.shards)

    def check_flip(self) -> None:
        """Raise DataError if the cache has no features of mirrored images."""
        self.shards.check_flip()

    def read(self, indices: Sequence[int], flipped: Sequence[bool]) -> Tensor:
        """Features (B, D, h, w), float32, at these indices, in this order; flipped: those of the mirrored image."""
        return self.read_stored(indices, flipped).float()

    def read_stored(self, indices: Sequence[int], flipped: Sequence[bool]) -> Tensor:
        """As `read`, with the dtype of the cache."""
        return self.shards.read(indices, flipped)["features"]


def open_features(folder: Path | str, *, teacher: Teacher, images: ImageShards) -> FeatureShards:
    """Open a cache of features. Raises DataError unless this teacher made it from these images."""
    path = Path(folder)
    card = read_feature_card(path)
    refuse_stale_features(path, card, teacher=teacher, images=images)
    return FeatureShards(path, card)
