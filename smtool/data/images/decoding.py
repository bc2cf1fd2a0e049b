"""Decode the bytes of an image file. Only Pillow and numpy, so that the worker processes of `prepare` start quickly."""

import io
import warnings

import numpy as np
from PIL import Image, ImageOps

_PNG = b"\x89PNG\r\n\x1a\n"
MAX_PIXELS = 2**27  # 134 megapixels; an image whose header states more is treated as a decompression bomb


class UnusableImage(Exception):
    """An image that cannot be used for training; the message is the reason written to skipped.jsonl."""


def decode(data: bytes) -> Image.Image:
    """Decode bytes to an upright 8-bit RGB image. Raises UnusableImage.

    EXIF orientation is applied; an animation gives its first frame. Gray is repeated over three channels, 16-bit gray is
    rounded to 8 bits, CMYK is converted, transparent parts are composited on white. Color profiles are ignored.
    """
    if not data:
        raise UnusableImage("empty file")
    try:
        return _decoded(data)
    except UnusableImage:
        raise
    except ValueError as error:  # Pillow refuses large text and color profiles, which say nothing about the pixels
        bare = _without_text(data) if "MAX_TEXT" in str(error) and data.startswith(_PNG) else data
        if len(bare) == len(data):
            raise UnusableImage(f"{type(error).__name__}: {error}") from error
        return decode(bare)
    except Image.UnidentifiedImageError as error:  # its message contains a memory address
        raise UnusableImage("not an image of a known format") from error
    except Exception as error:  # decoders raise exceptions of many types on damaged files
        raise UnusableImage(f"{type(error).__name__}: {error}") from error


def _decoded(data: bytes) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(io.BytesIO(data))
        if image.width * image.height > MAX_PIXELS:
            raise UnusableImage(f"{image.width}x{image.height} pixels, above {MAX_PIXELS}: a decompression bomb?")
        image.load()
        return _to_rgb(ImageOps.exif_transpose(image))


def _without_text(data: bytes) -> bytes:
    """A PNG without its chunks of text and color profile."""
    kept, start = [_PNG], len(_PNG)
    while start + 12 <= len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        if data[start + 4 : start + 8] not in (b"tEXt", b"zTXt", b"iTXt", b"iCCP"):
            kept.append(data[start:end])
        start = end
    return b"".join(kept)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        levels = np.asarray(image).astype(np.int64)
        if levels.size and (levels.min() < 0 or levels.max() > 65535):
            raise UnusableImage("integer pixels outside 0..65535")
        image = Image.fromarray(((levels * 255 + 32767) // 65535).astype(np.uint8))
    elif image.mode == "F":
        raise UnusableImage("floating-point pixels, whose range is unknown")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
