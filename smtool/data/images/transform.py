"""Make a decoded image a square of one size, and encode it for a shard.

Imports only Pillow and numpy, so that the worker processes of `prepare` start in a fraction of a second.
"""

import hashlib
import io
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from smtool.data.images.decoding import CONVERTED, MAX_PIXELS, Reading, UnusableImage
from smtool.errors import RecipeError

Crop = Literal["center", "random", "none"]

CROP_RULES = {
    "center": "2x2 box halving while the short side is at least twice the size, bicubic to the size, middle square (ADM)",
    "random": "as center, to a random short side of 1 to 1.25 sizes, then a random square, both seeded by the image's id (ADM)",
    "none": "the whole picture squeezed to the square, bilinear with antialiasing",
}


@dataclass(frozen=True)
class Rule:
    """How each image is prepared: side of the square in pixels, crop, file format, seed of random crops, reading of the files."""

    size: int
    crop: Crop = "center"
    image_format: str = "png"
    seed: int = 0
    reading: Reading = CONVERTED

    def __post_init__(self) -> None:
        if not 8 <= self.size <= 8192:
            raise RecipeError(f"size must lie between 8 and 8192 pixels, but is {self.size}.")
        if self.crop not in CROP_RULES:
            raise RecipeError(f"unknown crop {self.crop!r}.", hint="Use center, random or none.")
        _quality(self.image_format)

    @property
    def suffix(self) -> str:
        return "png" if self.image_format == "png" else "jpg"


def to_square(image: Image.Image, rule: Rule, sample: str) -> Image.Image:
    """Crop or resize an RGB image of any shape to size x size. sample: the image's id, which seeds a random crop."""
    if rule.crop == "none":
        return image.resize((rule.size, rule.size), Image.Resampling.BILINEAR, reducing_gap=None)
    if rule.crop == "center":
        return _center_crop(image, rule.size)
    return _random_crop(image, rule.size, f"{rule.seed}/{sample}")


def encode(image: Image.Image, image_format: str) -> bytes:
    """Deterministic file bytes: PNG at zlib level 6, or JPEG at the given quality with Pillow's defaults (4:2:0)."""
    file = io.BytesIO()
    if image_format == "png":
        image.save(file, "PNG", optimize=False, compress_level=6)
    else:
        image.save(file, "JPEG", quality=_quality(image_format), optimize=False, progressive=False)
    return file.getvalue()


def _quality(image_format: str) -> int:
    if image_format == "png":
        return 100
    name, _, quality = image_format.partition(":")
    if name != "jpeg" or not quality.isdecimal() or not 1 <= int(quality) <= 100:
        raise RecipeError(f"unknown image format {image_format!r}.", hint="Use png, or jpeg with a quality such as jpeg:95.")
    return int(quality)


def _center_crop(image: Image.Image, size: int) -> Image.Image:
    """The crop of ADM (Dhariwal & Nichol 2021): `_shrink`, then the middle square (released-code.md#images)."""
    image = _shrink(image, size)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


def _random_crop(image: Image.Image, size: int, key: str) -> Image.Image:
    """ADM's random crop: shrink the short side to a random length from 1 to 1.25 times `size`, then cut a random square."""
    draws = np.frombuffer(hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest(), dtype="<u8")
    short = size + int(draws[0]) % (math.ceil(size / 0.8) - size + 1)
    image = _shrink(image, short)
    left, top = int(draws[1]) % (image.width - size + 1), int(draws[2]) % (image.height - size + 1)
    return image.crop((left, top, left + size, top + size))


def _shrink(image: Image.Image, short: int) -> Image.Image:
    """Halve by 2x2 box averages while the short side is at least twice `short`, then resize bicubically to `short`."""
    while min(image.size) >= 2 * short:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = short / min(image.size)
    width, height = round(image.width * scale), round(image.height * scale)
    if width * height > MAX_PIXELS:
        raise UnusableImage(f"{image.width}x{image.height} pixels is too elongated for a square crop")
    return image.resize((width, height), Image.Resampling.BICUBIC)
