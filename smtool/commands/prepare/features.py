"""`smtool prepare --features`: compute a teacher's features of images once and cache them for later trainings."""

import os
from collections.abc import Callable
from pathlib import Path

from smtool.commands.prepare.open_split import open_split
from smtool.data.cache.card import CacheDtype
from smtool.data.cache.write import estimated_bytes, write_cache
from smtool.data.features.card import FEATURE_CARD_NAME, Grid, features_folder
from smtool.data.features.prepare import FeaturePreparation
from smtool.data.features.shards import FeatureShards, open_features
from smtool.data.images.card import Split
from smtool.data.images.prepare import IMAGES_PER_SHARD
from smtool.data.images.progress import Report
from smtool.data.images.reader import ImageShards
from smtool.errors import RecipeError
from smtool.features.teachers import Teacher, load_teacher
from smtool.image_shape import SizeLike

TEACHER_BATCH = 32


def prepare_features(
    teacher: str,
    *,
    data: str,
    tokens: Grid,
    split: Split = "train",
    image_size: SizeLike | None = None,
    out: Path | None = None,
    flip: bool = True,
    dtype: CacheDtype = "bf16",
    batch: int = TEACHER_BATCH,
    workers: int = 0,
    device: str = "cpu",
    weights_dir: Path | None = None,
    announce: Callable[[Path, int], object] | None = None,
    report: Report | None = None,
    images_per_shard: int = IMAGES_PER_SHARD,
) -> Path:
    """Cache the features of `teacher` for a split of `data`, and return the cache's folder.

    tokens: rows and columns of the transformer's tokens; the teacher's input is resized to give one feature per token. Other
    arguments: see `prepare_latents`.
    """
    images = open_split(data, split, image_size)
    network = load_teacher(teacher, token_grid=tokens, weights_dir=weights_dir).to(device)
    preparation = FeaturePreparation(network, images, tokens, flip, dtype, images_per_shard)
    folder = out or preparation.folder
    if announce:
        announce(folder, estimated_bytes(preparation))
    write_cache(preparation, folder, batch=batch, workers=workers or os.cpu_count() or 1, report=report)
    return folder


def cached_features(teacher: Teacher, images: ImageShards, *, flip: bool) -> FeatureShards | None:
    """Open the cache of this teacher's features of these images in its default folder; None if there is none.

    fp32 is preferred to bf16. flip: whether mirrored images are needed; without, a cache that has them is also accepted.
    """
    for dtype in ("fp32", "bf16"):
        for mirrored in (True,) if flip else (False, True):
            name = images.folder.resolve().name
            folder = features_folder(name, teacher, data=images.digest, flip=mirrored, dtype=dtype)
            if (folder / FEATURE_CARD_NAME).is_file():
                return open_features(folder, teacher=teacher, images=images)
    return None


def token_grid(text: str) -> Grid:
    """Parse --tokens: 16, 16x16 or 8x16 (rows x columns). Raises RecipeError for other text."""
    rows, separator, columns = text.lower().partition("x")
    try:
        grid = int(rows), int(columns if separator else rows)
    except ValueError:
        grid = 0, 0
    if min(grid) < 1:
        raise RecipeError(f"--tokens {text}: expected the tokens per side, such as 16, or rows x columns, such as 8x16.")
    return grid
