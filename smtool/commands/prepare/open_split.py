"""The images that a cache of latents or features is made of."""

from pathlib import Path

from smtool.data.images.card import CARD_NAME, Split, read_card
from smtool.data.images.open import open_images
from smtool.data.images.reader import ImageShards
from smtool.errors import RecipeError


def open_split(data: str, split: Split, image_size: int | None) -> ImageShards:
    """Open a split of a prepared folder, or of any source if image_size is given; a source is prepared on first use."""
    if image_size is None:
        if not (Path(data) / CARD_NAME).is_file():
            raise RecipeError(f"{data} is not prepared yet, so its image size is unknown.", hint="Give the size: --size 256")
        image_size = read_card(Path(data)).image_size
    return open_images(data, split, image_size=image_size)
