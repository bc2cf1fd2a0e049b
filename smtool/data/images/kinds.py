"""Which files of a source are images: by suffix, or by content where the suffix is unknown; and why the others are left out."""

from collections.abc import Iterable
from typing import NamedTuple

from smtool.data.images.decoding import UnusableImage, is_image
from smtool.data.images.entries import MAX_BYTES, Stored

IMAGE_SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".jp2", ".j2k", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm",
)  # fmt: skip
UNREADABLE_SUFFIXES = (".heic", ".heif", ".jxl", ".svg", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".exr", ".eps")
"""Images that Pillow cannot read: they count as images of the source that cannot be used."""
OTHER_SUFFIXES = (
    ".cls", ".json", ".jsonl", ".txt", ".csv", ".tsv", ".md", ".rst", ".html", ".xml", ".yaml", ".yml", ".toml", ".ini", ".log",
    ".py", ".ipynb", ".sh", ".js", ".css", ".npy", ".npz", ".mat", ".pt", ".pth", ".pkl", ".safetensors", ".h5", ".hdf5", ".lmdb",
    ".parquet", ".arrow", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zip", ".7z", ".rar", ".pdf", ".mp4", ".avi", ".mov", ".webm",
    ".mkv", ".wav", ".mp3", ".part", ".lock", ".db",
)  # fmt: skip
"""Files that are not opened to find out what they are."""
HIDDEN = "hidden"
_LONGEST = 12  # longest part behind the last dot that is named as a suffix


class LeftOut(NamedTuple):
    """A file, member or sample of a source that is not used. id: its path in the source, as of an image."""

    id: str
    reason: str


def pick_images(files: Iterable[tuple[str, Stored]]) -> tuple[list[tuple[str, Stored]], list[LeftOut]]:
    """The images among files, given as (name, place) pairs, and the others with the reasons."""
    images, others = [], []
    for name, place in files:
        if reason := why_left_out(name, place):
            others.append(LeftOut(name, reason))
        else:
            images.append((name, place))
    return images, others


def why_left_out(name: str, place: Stored) -> str:
    """Why a file is not used, "" for an image."""
    if is_hidden(name):
        return HIDDEN
    suffix = suffix_of(name)
    if suffix in IMAGE_SUFFIXES or suffix in UNREADABLE_SUFFIXES:
        return ""
    if suffix in OTHER_SUFFIXES:
        return f"not an image ({suffix})"
    return "" if _holds_image(place) else f"not an image that can be read ({suffix or 'without a suffix'})"


def suffix_of(name: str) -> str:
    """The file name from its last dot, in lower case; "" where that is no suffix."""
    stem, dot, end = name.rpartition("/")[2].rpartition(".")
    return f".{end.lower()}" if stem and dot and 0 < len(end) <= _LONGEST and end.isalnum() else ""


def is_hidden(name: str) -> bool:
    """Whether a path inside a source is a hidden or system file (.DS_Store, __MACOSX/._a.jpg)."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _holds_image(place: Stored) -> bool:
    try:
        return place.size <= MAX_BYTES and is_image(place.read())
    except UnusableImage:
        return False
