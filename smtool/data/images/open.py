"""`open_images`: the one door to images, whether they are prepared already or not."""

import os
from pathlib import Path

from smtool.data.images.card import Split, is_prepared, read_card
from smtool.data.images.decoding import Reading
from smtool.data.images.prepare import MAX_BAD, Preparation, prepare_images
from smtool.data.images.progress import Report
from smtool.data.images.reader import ImageShards
from smtool.data.images.sources import Source, find_source
from smtool.data.images.transform import Rule
from smtool.errors import DataError
from smtool.image_shape import CHANNELS, MODES, ImageSize, SizeLike, in_channels


def open_images(
    source: str, split: Split, *, image_size: SizeLike, channels: int | None = None, root: Path = Path("data"),
    max_bad: float = MAX_BAD, report: Report | None = None,
) -> ImageShards:
    """Open one split of a prepared folder; any other source is prepared on first use as `root/NAME-SIZE` and then reused.

    image_size: a number for squares, or height and width. channels: of the images, 1 to 4; None: those of a prepared folder, and
    RGB for any other source. max_bad: see prepare_images. report(done, total) is called during preparation. Raises DataError if
    size or channels differ or the split is empty.
    """
    image_size = ImageSize.of(image_size)
    folder = Path(source)
    if not is_prepared(folder):
        rule = Rule(image_size, reading=Reading(mode=MODES[channels or 3]))
        folder = _prepared(find_source(source), source, rule, root, max_bad, report)
    card = read_card(folder)
    if card.image_size != image_size:
        raise DataError(
            f"{folder} holds images of {card.image_size.words}, but {image_size.words} are asked for.",
            hint=f"Set image_size = {card.image_size.stored}, or prepare again: "
            f"smtool prepare {card.source.name} --size {image_size}",
        )
    if channels not in (None, card.channels):
        raise DataError(
            f"{folder} holds images of {in_channels(card.channels)}, but {in_channels(channels)} are asked for.",
            hint=f"Use an autoencoder of {in_channels(card.channels)}, in a recipe model.image_channels = {card.channels}, or "
            f"prepare again: smtool prepare {card.source.name} --size {image_size} --mode {MODES[channels]}",
        )
    if card.count(split) == 0:
        raise DataError(
            f"{folder} has no {'training' if split == 'train' else 'validation'} images.",
            hint="Prepare it with a part held out, for example --split 0.05.",
        )
    return ImageShards(folder, card, split)


def known_channels(source: str) -> int:
    """Number of channels of the images of a prepared folder; 3 for any other source, which is prepared as RGB."""
    return read_card(Path(source)).channels if is_prepared(Path(source)) else CHANNELS["RGB"]


def _prepared(source: Source, text: str, rule: Rule, root: Path, max_bad: float, report: Report | None) -> Path:
    preparation = Preparation(source, rule)
    folder = root / preparation.folder_name
    if is_prepared(folder):
        if read_card(folder).source.digest != source.digest():
            raise DataError(
                f"{folder} was prepared from another source than {text}.",
                hint=f"Prepare it elsewhere and use that folder: smtool prepare {text} --size {rule.size} --out OTHER",
            )
        return folder
    workers = 1 if source.builtin else os.cpu_count() or 1
    prepare_images(preparation, folder, workers=workers, max_bad=max_bad, report=report)
    return folder
