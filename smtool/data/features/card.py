"""features.json: what a cache of a teacher's features holds, which weights made it and of which images."""

import re
from pathlib import Path
from typing import ClassVar, Literal

from smtool.data.cache.card import CacheCard, CacheDtype, Origin, absent, departures, refuse_stale
from smtool.data.images.card import parse_card
from smtool.data.images.reader import ImageShards
from smtool.features.teachers import Teacher

FEATURE_CARD_NAME = "features.json"
Grid = tuple[int, int]


class FeatureCard(CacheCard):
    """The contents of features.json."""

    noun: ClassVar[str] = "feature"
    format: Literal["smtool teacher features 1"] = "smtool teacher features 1"
    teacher: str
    """Its name, as recipes give it."""
    weights: str
    """Digest of its weights."""
    tokens: Grid
    """The transformer's tokens that it was sized for: rows and columns."""
    input_size: Grid
    """What images were resized to, height and width; after normalization, bicubic without antialias."""
    grid: Grid
    """Rows and columns of features; the tokens' where the teacher can have as many."""
    dim: int

    def command(self) -> str:
        return prepare_command(self.images_folder, self.teacher, self.tokens)


def features_folder(data_name: str, teacher: Teacher, *, data: str, flip: bool, dtype: CacheDtype) -> Path:
    """Where a cache lies by default; data is a digest. Only what departs from flip and bf16 is spelled out."""
    name = re.sub(r"[^A-Za-z0-9._-]", "-", teacher.name)
    rest = f"{teacher.digest[:8]}-{data[:8]}-{by(teacher.grid)}{departures(flip=flip, dtype=dtype)}"
    return Path("data") / "teacher-features" / f"{data_name}-{name}-{rest}"


def read_feature_card(folder: Path) -> FeatureCard:
    """The card of a cache of features. Raises DataError when there is none, or when it cannot be understood."""
    path = folder / FEATURE_CARD_NAME
    if path.is_file():
        return parse_card(path, FeatureCard)
    command = f"{prepare_command('IMAGES', 'TEACHER', (16, 16))} --out {folder}"
    raise absent(folder, noun="feature", card_name=FEATURE_CARD_NAME, option="--features", command=command)


def refuse_stale_features(folder: Path, card: FeatureCard, *, teacher: Teacher, images: ImageShards) -> None:
    """DataError unless this teacher made the cache, with these weights and sizes, of these images."""
    origins = [
        Origin("teacher", card.teacher, teacher.name),
        Origin("weights", card.weights, teacher.digest, card.teacher),
        Origin("input", by(card.input_size), by(teacher.size)),
        Origin("grid", by(card.grid), by(teacher.grid)),
        Origin("images", card.data, images.digest, card.images_folder),
    ]
    command = prepare_command(images.folder, teacher.name, teacher.grid)
    hint = f"Make another one, by {command}, or leave alignment.features out."
    refuse_stale(folder, card, origins, hint=hint)


def prepare_command(images: Path | str, teacher: str, tokens: Grid) -> str:
    return f"smtool prepare {images} --features {teacher} --tokens {by(tokens)}"


def by(grid: Grid) -> str:
    return f"{grid[0]}x{grid[1]}"
