"""The contents of a cache of features: a teacher's feature map of every image and of every mirrored image."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch

from smtool.data.batches import ImageBatch
from smtool.data.cache.card import CacheDtype
from smtool.data.cache.shards import packed
from smtool.data.cache.write import shared_fields
from smtool.data.features.card import FEATURE_CARD_NAME, FeatureCard, Grid, features_folder, read_feature_card
from smtool.data.images.card import Shard
from smtool.data.images.prepare import IMAGES_PER_SHARD
from smtool.data.images.reader import ImageShards
from smtool.data.images.unfinished import ShardNote
from smtool.devices import ReadLater, to_device
from smtool.errors import DataError
from smtool.features.teachers import Teacher


@dataclass(frozen=True)
class FeaturePreparation:
    """All inputs and settings that determine the contents of a cache of features, which `write_cache` writes.

    tokens: rows and columns of the transformer's tokens for which the teacher's input size was chosen.
    """

    teacher: Teacher
    images: ImageShards
    tokens: Grid
    flip: bool = True
    dtype: CacheDtype = "bf16"
    images_per_shard: int = IMAGES_PER_SHARD
    what: ClassVar[str] = "features"
    card_name: ClassVar[str] = FEATURE_CARD_NAME
    note: ClassVar[type[ShardNote]] = ShardNote

    def plan(self) -> dict[str, Any]:
        return {
            "format": "smtool teacher features 1",
            "teacher": self.teacher.name,
            "weights": self.teacher.digest,
            "input_size": list(self.teacher.size),
            "grid": list(self.teacher.grid),
            "data": self.images.digest,
            "flip": self.flip,
            "dtype": self.dtype,
            "images_per_shard": self.images_per_shard,
        }

    @property
    def folder(self) -> Path:
        """Default folder of the cache."""
        data = self.images.folder.resolve().name
        return features_folder(data, self.teacher, data=self.images.digest, flip=self.flip, dtype=self.dtype)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"features": (self.teacher.dim, *self.teacher.grid)}

    @property
    def device(self) -> torch.device:
        return self.teacher.device

    def outputs(self, batch: ImageBatch, *, flipped: bool) -> "Features":
        pictures = to_device(batch.images, self.device)
        features = self.teacher(pictures.flip(-1) if flipped else pictures)
        return Features(ReadLater(features.isfinite().flatten(1).all(1)), ReadLater(features))

    def begin_shard(self) -> "FeatureContents":
        return FeatureContents(self.teacher, self.dtype)

    def card(self, notes: Sequence[ShardNote]) -> FeatureCard:
        teacher = self.teacher
        return FeatureCard(
            teacher=teacher.name,
            weights=teacher.digest,
            tokens=self.tokens,
            input_size=teacher.size,
            grid=teacher.grid,
            dim=teacher.dim,
            **shared_fields(self, notes),
        )

    def finished(self, folder: Path) -> tuple[FeatureCard, dict[str, Any]]:
        card = read_feature_card(folder)
        stated = {"teacher", "weights", "input_size", "grid", "data", "flip", "dtype"}
        return card, card.model_dump(mode="json", include=stated)


class Features(NamedTuple):
    """Features (B, D, h, w) of a batch on their way to the host, and whether those of each image are finite."""

    finite: ReadLater
    features: ReadLater


@dataclass(frozen=True)
class FeatureContents:
    """A shard of features while it is written."""

    teacher: Teacher
    dtype: CacheDtype

    def members(self, piece: range, batch: ImageBatch, outputs: Features, *, flipped: bool) -> list[bytes]:
        finite = outputs.finite.value.tolist()
        if not all(finite):
            raise DataError(
                f"The features of {self.teacher.name} for image {batch.ids[finite.index(False)]} are not finite.",
                hint="Its weights are damaged, or this image makes them overflow: check the image, or use another teacher.",
            )
        return packed({"features": outputs.features.value}, self.dtype)

    def note(self, shard: Shard) -> ShardNote:
        return ShardNote(shard=shard)
