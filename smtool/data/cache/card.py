"""What the cards of all caches say: of which images, in which precision, with or without mirrored ones, and when one is stale."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

from smtool.config import Config
from smtool.data.images.card import UNFINISHED, Shard, Split
from smtool.errors import DataError

CacheDtype = Literal["bf16", "fp32"]


class CacheCard(Config):
    """A cache: numbers that a network made of every image of a split, and of every mirrored one."""

    noun: ClassVar[str]
    """What the numbers are called."""
    format: str
    data: str
    """Digest of the images: of one split of a prepared folder."""
    images_folder: str
    """Where the images lay."""
    split: Split
    image_size: int
    dtype: CacheDtype
    flip: bool
    """Whether the mirrored images' numbers are there too."""
    num_classes: int
    shards: tuple[Shard, ...]

    @property
    def count(self) -> int:
        """Number of images; with flip there are numbers for twice as many."""
        return sum(shard.images for shard in self.shards)

    @property
    def digest(self) -> str:
        """sha256 over every shard's name and sha256."""
        return hashlib.sha256(json.dumps([(shard.name, shard.sha256) for shard in self.shards]).encode()).hexdigest()

    def command(self) -> str:
        """The `smtool prepare` line that makes such a cache with mirrored images."""
        raise NotImplementedError


class Origin(NamedTuple):
    """One thing that a cache was made of, and what is asked for in its place (None: anything). where: the path it had."""

    name: str
    made_of: str
    asked: str | None
    where: str = ""


def departures(*, flip: bool, dtype: CacheDtype) -> str:
    """How a cache's folder says that it is not in bf16 with mirrored images."""
    return ("" if flip else "-noflip") + ("" if dtype == "bf16" else f"-{dtype}")


def refuse_stale(folder: Path, card: CacheCard, origins: Iterable[Origin], *, hint: str) -> None:
    """DataError that names both sides of everything in which the cache is not what is asked for."""
    differing = [origin for origin in origins if origin.asked not in (None, origin.made_of)]
    if differing:
        found = [f"{each.name} {_short(each.made_of)}" + (f" ({each.where})" if each.where else "") for each in differing]
        asked = [f"{each.name} {_short(each.asked or '')}" for each in differing]
        raise DataError(
            f"{folder} is a stale {card.noun} cache: made with {' and '.join(found)}, not with {' and '.join(asked)}.", hint=hint
        )


def absent(folder: Path, *, noun: str, card_name: str, option: str, command: str) -> DataError:
    """The error for a folder that has no card: never a cache, or one whose preparation was cut short."""
    if (folder / UNFINISHED).is_dir():
        hint = f"Its preparation was interrupted; run the same `smtool prepare ... {option}` command again to finish it."
    else:
        hint = f"Make one: {command}"
    return DataError(f"{folder} is not a {noun} cache: it has no {card_name}.", hint=hint)


def _short(value: str) -> str:
    """A digest's first 8 digits; anything else whole."""
    return value[:8] if len(value) == 64 else value
