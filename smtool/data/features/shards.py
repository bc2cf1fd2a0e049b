"""A cache of a teacher's features, read by index in any order and from any thread."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from smtool.data.cache.reader import CacheShards
from smtool.data.features.card import FeatureCard, read_feature_card, refuse_stale_features
from smtool.data.images.reader import ImageShards
from smtool.features.teachers import Teacher


class FeatureShards:
    """Features of every image of a split, and of every mirrored one. Threads and forks may share it."""

    def __init__(self, folder: Path, card: FeatureCard) -> None:
        self.folder, self.card = folder, card
        self.shards = CacheShards(folder, card)

    def __len__(self) -> int:
        return len(self.shards)

    def check_flip(self) -> None:
        """DataError if features of mirrored images are wanted and there are none."""
        self.shards.check_flip()

    def read(self, indices: Sequence[int], flipped: Sequence[bool]) -> Tensor:
        """(B, D, h, w) float32: the features of the images at these indices, or of the mirrored images, in this order."""
        return self.shards.read(indices, flipped)["features"]


def open_features(folder: Path | str, *, teacher: Teacher, images: ImageShards) -> FeatureShards:
    """Open a cache of features, which must be this teacher's and of these images, else DataError."""
    path = Path(folder)
    card = read_feature_card(path)
    refuse_stale_features(path, card, teacher=teacher, images=images)
    return FeatureShards(path, card)
