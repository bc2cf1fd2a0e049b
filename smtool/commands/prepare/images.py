"""`smtool prepare`: write any source of images as a prepared folder of shards."""

import os
from collections.abc import Callable
from pathlib import Path

from smtool.data.images.columns import LabelRule, LabelSource
from smtool.data.images.decoding import WHITE, Profiles, Reading
from smtool.data.images.prepare import IMAGES_PER_SHARD, VAL_FRACTION, Preparation, prepare_images
from smtool.data.images.samples import KeyEnd, SampleRule
from smtool.data.images.sources import find_source
from smtool.data.images.transform import Crop, Rule, Upsample
from smtool.errors import RecipeError
from smtool.image_shape import ImageMode, ImageSize, SizeLike


def prepare(
    source: str,
    *,
    out: Path | None,
    size: SizeLike,
    crop: Crop = "center",
    image_format: str = "png",
    val_fraction: float = VAL_FRACTION,
    workers: int = 0,
    max_bad: float = 0.01,
    seed: int = 0,
    icc: Profiles = "convert",
    white: int = WHITE,
    sample_key: KeyEnd = "first-dot",
    member: str | None = None,
    labels: LabelSource = "auto",
    label_column: str | None = None,
    image_column: str | None = None,
    mode: ImageMode = "RGB",
    upsample: Upsample = "bicubic",
    report: Callable[[int, int], object] | None = None,
    images_per_shard: int = IMAGES_PER_SHARD,
) -> Path:
    """Prepare `source` in `out` and return that folder; read_card(folder) gives a summary.

    out: default data/NAME-SIZE, or data/NAME-SIZE-MODE for other modes than RGB. size: height and width in pixels, a number for
    squares. val_fraction: in [0, 1], used if the source has no validation images. workers: processes, 0 for one per core.
    max_bad: largest fraction of unreadable images, in [0, 1]. icc, white, mode: as in `Reading`; upsample: as in `Rule`;
    sample_key, member: as in `SampleRule`, for webdataset shards; labels, label_column, image_column: as in `LabelRule`.
    report(done, total) is called after each image. The same call resumes an unfinished preparation and verifies a finished one.
    """
    for name, share in (("--split", val_fraction), ("--max-bad", max_bad)):
        if not 0 <= share <= 1:
            raise RecipeError(f"{name} must be between 0 and 1, but is {share}.")
    found = find_source(source)
    rule = Rule(ImageSize.of(size), crop, image_format, seed, Reading(icc, white, mode), upsample)
    columns = LabelRule(labels, label_column, image_column)
    if found.builtin and (icc != "convert" or white != WHITE or columns != LabelRule() or upsample != "bicubic"):
        raise RecipeError(
            f"{source}: --icc, --white, --upsample and the options for labels have no effect on built-in images.",
            hint="Leave them out.",
        )
    preparation = Preparation(found, rule, val_fraction, images_per_shard, SampleRule(sample_key, member), columns)
    folder = out or Path("data") / preparation.folder_name
    prepare_images(preparation, folder, workers=workers or os.cpu_count() or 1, max_bad=max_bad, report=report)
    return folder
