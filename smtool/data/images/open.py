"""`open_images`: the one door to images, whether they are prepared already or not."""

import os
from pathlib import Path

from smtool.data.images.card import CARD_NAME, Split, read_card
from smtool.data.images.prepare import MAX_BAD, Preparation, prepare_images
from smtool.data.images.progress import Report
from smtool.data.images.reader import ImageShards
from smtool.data.images.sources import Source, find_source
from smtool.data.images.transform import Rule
from smtool.errors import DataError


def open_images(
    source: str,
    split: Split,
    *,
    image_size: int,
    root: Path = Path("data"),
    max_bad: float = MAX_BAD,
    report: Report | None = None,
) -> ImageShards:
    """Open one split of a prepared folder; any other source is prepared on first use as `root/NAME-SIZE` and then reused.

    max_bad: see prepare_images; report(done, total) is called during preparation. Raises DataError if the image size differs or
    the split is empty.
    """
    folder = Path(source)
    if not (folder / CARD_NAME).is_file():
        folder = _prepared(find_source(source), source, image_size, root, max_bad, report)
    card = read_card(folder)
    if card.image_size != image_size:
        raise DataError(
            f"{folder} holds images of {card.image_size} px, but {image_size} px are asked for.",
            hint=f"Set image_size = {card.image_size}, or prepare again: smtool prepare {card.source.name} --size {image_size}",
        )
    if card.count(split) == 0:
        raise DataError(
            f"{folder} has no {'training' if split == 'train' else 'validation'} images.",
            hint="Prepare it with a part held out, for example --split 0.05.",
        )
    return ImageShards(folder, card, split)


def _prepared(source: Source, text: str, image_size: int, root: Path, max_bad: float, report: Report | None) -> Path:
    folder = root / f"{source.name}-{image_size}"
    if (folder / CARD_NAME).is_file():
        if read_card(folder).source.digest != source.digest():
            raise DataError(
                f"{folder} was prepared from another source than {text}.",
                hint=f"Prepare it elsewhere and use that folder: smtool prepare {text} --size {image_size} --out OTHER",
            )
        return folder
    workers = 1 if source.builtin else os.cpu_count() or 1
    prepare_images(Preparation(source, Rule(image_size)), folder, workers=workers, max_bad=max_bad, report=report)
    return folder
