"""Decode the bytes of an image file. Only Pillow and numpy, so that the worker processes of `prepare` start quickly."""

import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

from smtool.data.images.profiles import to_srgb
from smtool.errors import RecipeError
from smtool.image_shape import CHANNELS, ImageMode

Profiles = Literal["convert", "ignore"]
FORMATS = (
    "PNG", "JPEG", "WEBP", "AVIF", "JPEG2000", "BMP", "DIB", "TIFF", "GIF", "PPM", "PSD", "QOI", "DDS", "ICO", "PCX", "SGI",
)  # fmt: skip
"""Pillow's formats of pixels that it decodes by itself: no vector graphics, which it gives to other programs, and no video."""
MAX_PIXELS = 2**27  # 134 megapixels; an image whose header states more is treated as a decompression bomb
WHITE = 65535
FIRST_FRAME = "several frames or pages, the first is used"
_PNG = b"\x89PNG\r\n\x1a\n"
_TIFF_BITS = 258  # number of the tag BitsPerSample


class UnusableImage(Exception):
    """An image that cannot be used for training; the message is the reason written to skipped.jsonl."""


@dataclass(frozen=True)
class Reading:
    """How bytes become pixels.

    icc: what happens to color profiles; white: the level of 16-bit images that becomes 255; mode: channels of the result.
    """

    icc: Profiles = "convert"
    white: int = WHITE
    mode: ImageMode = "RGB"

    def __post_init__(self) -> None:
        if self.icc not in ("convert", "ignore"):
            raise RecipeError(f"unknown treatment of color profiles {self.icc!r}.", hint="Use convert or ignore.")
        if not 1 <= self.white <= WHITE:
            raise RecipeError(f"white must lie between 1 and {WHITE}, but is {self.white}.")
        if self.mode not in CHANNELS:
            raise RecipeError(f"unknown image mode {self.mode!r}.", hint=f"Use {', '.join(CHANNELS)}.")


CONVERTED = Reading()
AS_STORED = Reading(icc="ignore")
"""Color profiles ignored, as torchvision, clean-fid and torch-fidelity read images."""


@dataclass(frozen=True)
class Decoded:
    """An upright 8-bit image. remarks: what is unusual about its file and what was done, for counting over images."""

    image: Image.Image
    remarks: tuple[str, ...] = ()


def decode(data: bytes, reading: Reading) -> Decoded:
    """Decode bytes to an upright 8-bit image of the mode of the Reading. Raises UnusableImage.

    EXIF orientation is applied; of several frames or pages the first is used. Gray is repeated over three channels, or colors
    become their luma; 16-bit pixels are rounded to 8 bits, CMYK is converted. LA and RGBA keep alpha; otherwise transparent parts
    are composited on white.
    """
    if not data:
        raise UnusableImage("empty file")
    try:
        return _decoded(data, reading)
    except UnusableImage:
        raise
    except ValueError as error:  # Pillow refuses large text and color profiles, which say nothing about the pixels
        bare = _without_text(data) if "MAX_TEXT" in str(error) and data.startswith(_PNG) else data
        if len(bare) == len(data):
            raise UnusableImage(f"cannot be decoded: {error}") from error
        return decode(bare, reading)
    except Image.UnidentifiedImageError as error:  # its message contains a memory address
        raise UnusableImage("not an image of a known format") from error
    except OSError as error:
        raise UnusableImage(f"cannot be decoded: {error}") from error
    except Exception as error:  # decoders raise exceptions of many types on damaged files
        raise UnusableImage(f"cannot be decoded: {type(error).__name__}: {error}") from error


def is_image(data: bytes) -> bool:
    """Whether the bytes begin as an image of one of FORMATS."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception:  # besides UnidentifiedImageError, parsers raise exceptions of many types on other files
        return False
    return True


def _decoded(data: bytes, reading: Reading) -> Decoded:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of large images, which are checked below, and of damaged metadata
        image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise UnusableImage(f"{image.width}x{image.height} pixels, above {MAX_PIXELS}: a decompression bomb?")
        several = image.format != "MPO" and getattr(image, "n_frames", 1) > 1
        image.load()
        remarks = [FIRST_FRAME] if several else []
        if image.mode.startswith("I") or _has_16_bits(image, data):
            image, bits = _in_8_bits(image, data, reading.white)
            remarks.append(depth_remark(bits))
        ImageOps.exif_transpose(image, in_place=True)
        if reading.icc == "convert":
            image, remark = to_srgb(image)
            remarks += [remark] if remark else []
            image.info.pop("icc_profile", None)  # Pillow would write it into the shard
        return Decoded(to_mode(image, reading.mode), tuple(remarks))


def depth_remark(bits: int) -> str:
    """The remark about an image of 16 bits a channel whose highest level has this number of bits."""
    return f"16 bits a channel, {bits} of them used"


def used_bits(remarks: Mapping[str, int], white: int) -> int:
    """Number of bits that the images of 16 bits a channel use, if they reach less than a quarter of `white`; else 0."""
    bits = [bits for bits in range(17) if remarks.get(depth_remark(bits))]
    return bits[-1] if bits and 4 * 2 ** bits[-1] <= white + 1 else 0


def _without_text(data: bytes) -> bytes:
    """A PNG without its chunks of text and color profile."""
    kept, start = [_PNG], len(_PNG)
    while start + 12 <= len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        if data[start + 4 : start + 8] not in (b"tEXt", b"zTXt", b"iTXt", b"iCCP"):
            kept.append(data[start:end])
        start = end
    return b"".join(kept)


def _has_16_bits(image: Image.Image, data: bytes) -> bool:
    """Whether the file has 16 bits a channel; of most of these Pillow reads the upper 8 bits."""
    if image.format == "PNG":
        return data[24:25] == b"\x10"
    bits = getattr(image, "tag_v2", {}).get(_TIFF_BITS, ())
    return 16 in (bits if isinstance(bits, tuple) else (bits,))


def _in_8_bits(image: Image.Image, data: bytes, white: int) -> tuple[Image.Image, int]:
    """The image in 8 bits a channel, and the number of bits of its highest level. Levels above `white` become 255."""
    levels = np.asarray(image).astype(np.int64)
    if not image.mode.startswith("I"):  # only the upper bytes
        colors = levels[..., :-1] if image.mode in ("LA", "RGBA") else levels
        bits = 8 + int(colors.max(initial=0)).bit_length()
        if white == WHITE:
            return image, bits
        levels = 256 * levels + np.asarray(_lower_bytes(image, data))
    if levels.min(initial=0) < 0 or levels.max(initial=0) > WHITE:
        raise UnusableImage("integer pixels outside 0..65535")
    colors = levels[..., :-1] if image.mode in ("LA", "RGBA") else levels
    scaled = (levels * 255 + WHITE // 2) // WHITE
    scaled[..., : colors.shape[-1]] = np.minimum((colors * 255 + white // 2) // white, 255)
    made = Image.fromarray(scaled.astype(np.uint8))
    made.info = image.info
    return made, int(colors.max(initial=0)).bit_length()


def _lower_bytes(image: Image.Image, data: bytes) -> Image.Image:
    """The lower bytes of a color PNG of 16 bits a channel: Pillow unpacks them if told that they are the upper ones."""
    again = Image.open(io.BytesIO(data), formats=FORMATS)
    if [tile.args for tile in again.tile] not in (["RGB;16B"], ["RGBA;16B"]):
        raise UnusableImage(f"16-bit {image.format} of mode {image.mode}, of which only the upper 8 bits can be read")
    again.tile = [tile._replace(args=str(tile.args).replace("16B", "16L")) for tile in again.tile]
    again.load()
    return again


def to_mode(image: Image.Image, mode: ImageMode) -> Image.Image:
    """The image with the channels of `mode`. Gray is ITU-R 601 luma, as Pillow computes it; images without alpha are opaque."""
    if image.mode == "F":
        raise UnusableImage("floating-point pixels, whose range is unknown")
    if mode in ("LA", "RGBA"):
        return image.convert("RGBA").convert(mode)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image if image.mode == "RGB" else image.convert("RGB")
    return image if mode == "RGB" else image.convert(mode)
