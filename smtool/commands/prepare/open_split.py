"""The images that a cache of latents or features is made of."""

from pathlib import Path

from smtool.data.images.card import Split, is_prepared, read_card
from smtool.data.images.open import open_images
from smtool.data.images.reader import ImageShards
from smtool.errors import RecipeError
from smtool.image_shape import ImageSize, SizeLike


def size_of(data: str, image_size: SizeLike | None) -> ImageSize:
    """The size of the images: that of a prepared folder unless it is given. Raises RecipeError if it is unknown."""
    if image_size is not None:
        return ImageSize.of(image_size)
    if not is_prepared(Path(data)):
        raise RecipeError(f"{data} is not prepared yet, so its image size is unknown.", hint="Give the size: --size 256")
    return read_card(Path(data)).image_size


def open_split(data: str, split: Split, image_size: SizeLike | None, channels: int | None = None) -> ImageShards:
    """Open a split of a prepared folder, or of any source if image_size is given; a source is prepared on first use."""
    return open_images(data, split, image_size=size_of(data, image_size), channels=channels)
