"""`smtool prepare`: make a prepared folder out of any source of images."""

import os
from collections.abc import Callable
from pathlib import Path

from smtool.data.images.card import CARD_NAME, Split, read_card
from smtool.data.images.open import open_images
from smtool.data.images.prepare import IMAGES_PER_SHARD, VAL_FRACTION, Preparation, prepare_images
from smtool.data.images.reader import ImageShards
from smtool.data.images.sources import find_source
from smtool.data.images.transform import Crop, Rule
from smtool.errors import RecipeError


def prepare(
    source: str,
    *,
    out: Path | None,
    size: int,
    crop: Crop = "center",
    image_format: str = "png",
    val_fraction: float = VAL_FRACTION,
    workers: int = 0,
    max_bad: float = 0.01,
    seed: int = 0,
    report: Callable[[int, int], object] | None = None,
    images_per_shard: int = IMAGES_PER_SHARD,
) -> Path:
    """Prepare `source` in `out` (data/NAME-SIZE when None) and return that folder; read_card(folder) is the summary.

    val_fraction counts where the source has no validation images of its own. workers: processes, 0 for one per core.
    report(done, total) is called per image. A run that was cut short is taken up by the same call; a finished one is verified.
    """
    for name, share in (("--split", val_fraction), ("--max-bad", max_bad)):
        if not 0 <= share <= 1:
            raise RecipeError(f"{name} is a share between 0 and 1, but is {share}.")
    found = find_source(source)
    folder = out or Path("data") / f"{found.name}-{size}"
    preparation = Preparation(found, Rule(size, crop, image_format, seed), val_fraction, images_per_shard)
    prepare_images(preparation, folder, workers=workers or os.cpu_count() or 1, max_bad=max_bad, report=report)
    return folder


def open_split(data: str, split: Split, image_size: int | None) -> ImageShards:
    """A split of a prepared folder, or of any source with image_size (prepared on first use)."""
    if image_size is None:
        if not (Path(data) / CARD_NAME).is_file():
            raise RecipeError(f"{data} is not prepared yet, so the size of its images is not known.", hint="Give it: --size 256")
        image_size = read_card(Path(data)).image_size
    return open_images(data, split, image_size=image_size)
