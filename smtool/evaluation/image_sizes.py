"""Sizes of images, counted, and in words."""

from collections.abc import Mapping

from smtool.image_shape import ImageSize

_NAMED = 3


def one_size(counts: Mapping[ImageSize, int]) -> ImageSize | None:
    """The size of all images; None if there are several sizes or no images."""
    return next(iter(counts)) if len(counts) == 1 else None


def described(counts: Mapping[ImageSize, int]) -> str:
    """The size of all images, or how many images have each of the three commonest sizes; "" without images."""
    if len(counts) <= 1:
        return "".join(map(_written, counts))
    common = sorted(counts.items(), key=lambda item: (-item[1], *item[0]))[:_NAMED]
    parts = [f"{count:,} of {_written(size)}" for size, count in common]
    if more := len(counts) - len(common):
        rest = sum(counts.values()) - sum(count for _, count in common)
        parts.append(f"{rest:,} of {more:,} other {'size' if more == 1 else 'sizes'}")
    return f"mixed sizes ({', '.join(parts)})"


def compared(images: Mapping[ImageSize, int], reference: Mapping[ImageSize, int], *, resized: bool) -> str:
    """A warning about images of several sizes, or of two sets that differ in size; "" if all have one size.

    reference: {} for a score without a reference. resized: whether the features are of resized images.
    """
    if len({*images, *reference}) <= 1:
        return ""
    sets = [f"images of {described(images)}"] + ([f"reference of {described(reference)}"] if reference else [])
    done = "each image is resized by itself" if resized else "images are not resized, so their sizes change these features"
    return f"{', '.join(sets)} (height x width in px): {done}"


def _written(size: ImageSize) -> str:
    return f"{size.height}x{size.width}"
