"""Color profiles: conversion of an image's pixels to sRGB by Pillow's ImageCms (Little CMS)."""

import functools
import io
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from PIL.ImageCms import ImageCmsProfile, ImageCmsTransform

CONVERTED = "another color profile, converted to sRGB"
UNUSABLE = "a color profile that cannot be used, ignored"


def to_srgb(image: Image.Image) -> tuple[Image.Image, str]:
    """The image in sRGB, and a remark, or "" if it has no profile or one that equals sRGB within one level of 255.

    Transparency is kept. Gray and CMYK images with a profile become RGB.
    """
    profile = image.info.get("icc_profile")
    if not profile:
        return image, ""
    picture = _plain(image)
    alpha = picture.getchannel("A") if picture.mode in ("LA", "RGBA") else None
    colors = picture.convert(picture.mode.removesuffix("A")) if alpha else picture
    convert = _conversion(profile, colors.mode)
    if convert is None:
        return image, UNUSABLE
    if convert == "sRGB":
        return image, ""
    converted = convert.apply(colors)
    if alpha:
        converted.putalpha(alpha)
    return converted, CONVERTED


def _plain(image: Image.Image) -> Image.Image:
    """The image without palette and with transparency as a channel, in a mode that profiles describe."""
    if image.has_transparency_data:
        return image if image.mode in ("LA", "RGBA") else image.convert("RGBA")
    return image.convert("RGB") if image.mode == "P" else image.convert("L") if image.mode == "1" else image


@functools.lru_cache(maxsize=64)
def _conversion(profile: bytes, mode: str) -> "ImageCmsTransform | Literal['sRGB'] | None":
    """The transform of images of this mode, "sRGB" if it changes no color by more than a level, None if there is none."""
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, _srgb(), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):  # a damaged profile, or one of another color space than the pixels
        return None
    probe = _probe(mode)
    if probe is None:
        return transform
    same = np.abs(np.asarray(transform.apply(probe), np.int16) - np.asarray(probe.convert("RGB"), np.int16)).max() <= 1
    return "sRGB" if same else transform


def _probe(mode: str) -> Image.Image | None:
    """Colors from all parts of the space; None for CMYK, which never equals sRGB."""
    levels = np.linspace(0, 255, 17).round().astype(np.uint8)
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    if mode == "RGB":
        cube = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1)
        return Image.fromarray(cube.reshape(17, 17 * 17, 3))
    return None


@functools.lru_cache(maxsize=1)
def _srgb() -> "ImageCmsProfile":
    from PIL import ImageCms

    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
