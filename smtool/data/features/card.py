"""features.json, the card of a cache of a teacher's features: its contents, the teacher's weights and the images."""

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
    """Name of the teacher, as in recipes."""
    weights: str
    """Digest of the teacher's weights."""
    tokens: Grid
    """Rows and columns of the transformer's tokens for which the input size was chosen."""
    input_size: Grid
    """Height and width to which images were resized: after normalization, bicubic without antialias."""
    grid: Grid
    """Rows and columns of the features: equal to those of the tokens if the teacher can produce as many."""
    dim: int

    def command(self) -> str:
        return prepare_command(self.images_folder, self.teacher, self.tokens)


def features_folder(data_name: str, teacher: Teacher, *, data: str, flip: bool, dtype: CacheDtype) -> Path:
    """Default folder of a cache; data is a digest. The name states dtype and flip only if they are not bf16 and true."""
    name = re.sub(r"[^A-Za-z0-9._-]", "-", teacher.name)
    rest = f"{teacher.digest[:8]}-{data[:8]}-{by(teacher.grid)}{departures(flip=flip, dtype=dtype)}"
    return Path("data") / "teacher-features" / f"{data_name}-{name}-{rest}"


def read_feature_card(folder: Path) -> FeatureCard:
    """The card of a cache of features. Raises DataError if it is missing or invalid."""
    path = folder / FEATURE_CARD_NAME
    if path.is_file():
        return parse_card(path, FeatureCard)
    command = f"{prepare_command('IMAGES', 'TEACHER', (16, 16))} --out {folder}"
    raise absent(folder, noun="feature", card_name=FEATURE_CARD_NAME, option="--features", command=command)


def refuse_stale_features(folder: Path, card: FeatureCard, *, teacher: Teacher, images: ImageShards) -> None:
    """Raise DataError unless this teacher made the cache, with the same weights and sizes, from these images."""
    origins = [
        Origin("teacher", card.teacher, teacher.name),
        Origin("weights", card.weights, teacher.digest, card.teacher),
        Origin("input", by(card.input_size), by(teacher.size)),
        Origin("grid", by(card.grid), by(teacher.grid)),
        Origin("images", card.data, images.digest, card.images_folder),
    ]
    command = prepare_command(images.folder, teacher.name, teacher.grid)
    hint = f"Make a new cache: {command}, or remove alignment.features from the recipe."
    refuse_stale(folder, card, origins, hint=hint)


def prepare_command(images: Path | str, teacher: str, tokens: Grid) -> str:
    return f"smtool prepare {images} --features {teacher} --tokens {by(tokens)}"


def by(grid: Grid) -> str:
    return f"{grid[0]}x{grid[1]}"
