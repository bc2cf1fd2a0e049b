"""The card fields that all caches share: images, precision, mirrored images; and the check that a cache is not stale."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

from smtool.config import Config
from smtool.data.images.card import UNFINISHED, Shard, Split
from smtool.errors import DataError
from smtool.image_shape import ImageSize

CacheDtype = Literal["bf16", "fp32"]


class CacheCard(Config):
    """The card of a cache: outputs of a network for every image of a split and, with flip, for every mirrored image."""

    noun: ClassVar[str]
    """Name of one output in messages, such as "latent"."""
    format: str
    data: str
    """Digest of the images: one split of a prepared folder."""
    images_folder: str
    """Folder of the images when the cache was made."""
    split: Split
    image_size: ImageSize
    dtype: CacheDtype
    flip: bool
    """Whether the outputs for mirrored images are stored too."""
    num_classes: int
    shards: tuple[Shard, ...]

    @property
    def count(self) -> int:
        """Number of images; with flip, twice as many outputs are stored."""
        return sum(shard.images for shard in self.shards)

    @property
    def digest(self) -> str:
        """sha256 over every shard's name and sha256."""
        return hashlib.sha256(json.dumps([(shard.name, shard.sha256) for shard in self.shards]).encode()).hexdigest()

    def command(self) -> str:
        """The `smtool prepare` command that makes such a cache with mirrored images."""
        raise NotImplementedError


class Origin(NamedTuple):
    """One input of a cache, and the one that is requested now (None: any). where: the path of the input."""

    name: str
    made_of: str
    asked: str | None
    where: str = ""


def departures(*, flip: bool, dtype: CacheDtype) -> str:
    """Suffix of a cache's folder name for settings other than the defaults (bf16, with mirrored images)."""
    return ("" if flip else "-noflip") + ("" if dtype == "bf16" else f"-{dtype}")


def refuse_stale(folder: Path, card: CacheCard, origins: Iterable[Origin], *, hint: str) -> None:
    """Raise DataError if an input of the cache differs from the requested one; the message names both."""
    differing = [origin for origin in origins if origin.asked not in (None, origin.made_of)]
    if differing:
        found = [f"{each.name} {_short(each.made_of)}" + (f" ({each.where})" if each.where else "") for each in differing]
        asked = [f"{each.name} {_short(each.asked or '')}" for each in differing]
        raise DataError(
            f"{folder} is a stale {card.noun} cache: made with {' and '.join(found)}, not with {' and '.join(asked)}.", hint=hint
        )


def absent(folder: Path, *, noun: str, card_name: str, option: str, command: str) -> DataError:
    """The error for a folder without a card: it is no cache, or its preparation was interrupted."""
    if (folder / UNFINISHED).is_dir():
        hint = f"Its preparation was interrupted; run the same `smtool prepare ... {option}` command again to finish it."
    else:
        hint = f"Make one: {command}"
    return DataError(f"{folder} is not a {noun} cache: it has no {card_name}.", hint=hint)


def _short(value: str) -> str:
    """The first 8 digits of a digest; any other text unchanged."""
    return value[:8] if len(value) == 64 else value
