"""Make a decoded image one of a given size, and encode it for a shard.

Imports only Pillow and numpy, so that the worker processes of `prepare` start in a fraction of a second.
"""

import hashlib
import io
import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from PIL import Image

from smtool.data.images.decoding import CONVERTED, MAX_PIXELS, Reading, UnusableImage
from smtool.errors import RecipeError
from smtool.image_shape import LARGEST_SIDE, ImageMode, ImageSize

Crop = Literal["center", "random", "none"]
Upsample = Literal["bicubic", "dct"]

_BLOCK = 4

CROP_RULES = {
    "center": "2x2 box halving while the short side is at least twice the size, bicubic to the size, middle square (ADM)",
    "random": "as center, to a random short side of 1 to 1.25 sizes, then a random square, both seeded by the image's id (ADM)",
    "none": "the whole picture squeezed to the square, bilinear with antialiasing",
}
RECTANGLE_RULES = {
    "center": "2x2 box halving while both sides are at least twice the size, bicubic to cover the size, middle rectangle",
    "random": "as center, to cover 1 to 1.25 sizes, then a random rectangle, both seeded by the image's id",
    "none": "the whole picture squeezed to the size, bilinear with antialiasing",
}


@dataclass(frozen=True)
class Rule:
    """How each image is prepared: size (a number is a square), crop, file format, seed of random crops, reading of the files.

    upsample: how smaller images are enlarged. "dct" (`smtool.spectrum.dct_upsample`) enlarges to exactly twice the size only.
    """

    size: ImageSize
    crop: Crop = "center"
    image_format: str = "png"
    seed: int = 0
    reading: Reading = CONVERTED
    upsample: Upsample = "bicubic"

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", ImageSize.of(self.size))
        if not 8 <= min(self.size) <= max(self.size) <= LARGEST_SIDE:
            raise RecipeError(f"size must lie between 8 and {LARGEST_SIDE} pixels, but is {self.size}.")
        if self.crop not in CROP_RULES:
            raise RecipeError(f"unknown crop {self.crop!r}.", hint="Use center, random or none.")
        if self.upsample == "dct" and self.crop != "center":
            raise RecipeError(
                f"--upsample dct enlarges exactly twice, which --crop {self.crop} does not.", hint="Use --crop center."
            )
        _quality(self.image_format)
        if self.mode in ("LA", "RGBA") and self.image_format != "png":
            raise RecipeError(f"{self.image_format} cannot store the alpha of mode {self.mode}.", hint="Use --format png.")

    @property
    def mode(self) -> ImageMode:
        """Mode of the prepared images, which decides the number of their channels."""
        return self.reading.mode

    @property
    def crop_rule(self) -> str:
        """The crop in words."""
        return (CROP_RULES if self.size.is_square else RECTANGLE_RULES)[self.crop]

    def lossless(self) -> "Rule":
        """The same rule with PNG."""
        return replace(self, image_format="png")

    @property
    def suffix(self) -> str:
        return "png" if self.image_format == "png" else "jpg"


def to_size(image: Image.Image, rule: Rule, sample: str) -> Image.Image:
    """Crop or resize an image of any shape to the rule's size. sample: the image's id, which seeds a random crop."""
    if rule.crop == "none":
        return image.resize((rule.size.width, rule.size.height), Image.Resampling.BILINEAR, reducing_gap=None)
    if rule.crop == "center":
        return _center_crop(image, rule.size, rule.upsample)
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


def _center_crop(image: Image.Image, size: ImageSize, upsample: Upsample) -> Image.Image:
    """The crop of ADM (Dhariwal & Nichol 2021), also for rectangles: `_shrink`, then the middle (released-code.md#images).

    Smaller images are enlarged by `_shrink` too, or doubled by the DCT.
    """
    smaller = image.width < size.width or image.height < size.height
    image = _doubled(image, size) if smaller and upsample == "dct" else _shrink(image, size)
    left, top = (image.width - size.width) // 2, (image.height - size.height) // 2
    return image.crop((left, top, left + size.width, top + size.height))


def _random_crop(image: Image.Image, size: ImageSize, key: str) -> Image.Image:
    """ADM's random crop: shrink to cover a random multiple of `size`, from 1 to 1.25, then cut at a random position.

    The multiple is drawn as a whole number of pixels of the shorter side.
    """
    draws = np.frombuffer(hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest(), dtype="<u8")
    side = min(size)
    drawn = side + int(draws[0]) % (math.ceil(side / 0.8) - side + 1)
    image = _shrink(image, ImageSize(*(round(length * drawn / side) for length in size)))
    left, top = int(draws[1]) % (image.width - size.width + 1), int(draws[2]) % (image.height - size.height + 1)
    return image.crop((left, top, left + size.width, top + size.height))


def _shrink(image: Image.Image, size: ImageSize) -> Image.Image:
    """Halve by 2x2 box averages while both sides are at least twice those of `size`, then resize bicubically to cover `size`."""
    while image.width >= 2 * size.width and image.height >= 2 * size.height:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = max(size.width / image.width, size.height / image.height)
    width, height = round(image.width * scale), round(image.height * scale)
    if width * height > MAX_PIXELS:
        raise UnusableImage(f"{image.width}x{image.height} pixels is too elongated to be cropped")
    return image.resize((width, height), Image.Resampling.BICUBIC)


def _doubled(image: Image.Image, size: ImageSize) -> Image.Image:
    """The image at twice its size by `smtool.spectrum.dct_upsample`, here in numpy, rounded to 256 levels.

    Raises UnusableImage unless that covers `size` exactly in one direction, and blocks of 4 tile the image.
    """
    if max(size.width / image.width, size.height / image.height) != 2 or image.width % _BLOCK or image.height % _BLOCK:
        raise UnusableImage(
            f"{image.width}x{image.height} pixels cannot be enlarged by the DCT, which doubles sides in multiples of {_BLOCK}"
        )
    pixels = np.asarray(image, dtype=np.float64)
    for _ in range(2):      # rows, then columns
        rows = np.tensordot(_doubling(), pixels.reshape(-1, _BLOCK, *pixels.shape[1:]), axes=(1, 1))      # (8, blocks, ...)
        pixels = np.swapaxes(np.swapaxes(rows, 0, 1).reshape(-1, *pixels.shape[1:]), 0, 1)
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8), image.mode)


def _doubling() -> np.ndarray:
    """(8, 4): the pixels of a block of 4 as those of a block of 8, whose averages of neighbours they are."""
    frequency = np.arange(_BLOCK)[:, None]
    small, large = (np.cos(np.pi * frequency * (2 * np.arange(side) + 1) / (2 * side)) for side in (_BLOCK, 2 * _BLOCK))
    power = np.where(frequency == 0, 1, 2) / _BLOCK
    doubled: np.ndarray = (large * power / np.cos(np.pi * frequency / (4 * _BLOCK))).T @ small
    return doubled
