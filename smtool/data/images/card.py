"""dataset.json, the card of a prepared folder: what the folder holds and how it was made."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError, field_validator

from smtool.config import Config
from smtool.errors import DataError
from smtool.image_shape import CHANNELS, LARGEST_SIDE, ImageMode, ImageSize
from smtool.storage import file_digest

CARD_NAME = "dataset.json"
UNFINISHED = ".unfinished"
_FORMAT = b'"smtool dataset '
_STYLEGAN = re.compile(rb'\s*\{\s*"labels"\s*:')  # its first key
_HEAD = 256  # bytes; a card begins with its format
_LARGEST_CARD = 2**24  # bytes
Split = Literal["train", "val"]
Card = TypeVar("Card", bound=Config)


class Shard(Config):
    """One tar file and its index."""

    name: str = Field(pattern=r"^[\w.-]+\.tar$", max_length=200)
    images: int = Field(ge=0, strict=True)
    bytes: int = Field(ge=0, strict=True)
    sha256: str
    index_sha256: str

    @property
    def index_name(self) -> str:
        return self.name.removesuffix(".tar") + ".npy"


class SourceNote(Config):
    """Where the images came from: the source's base name, kind and digest (names and sizes; for archives also the content)."""

    name: str
    kind: str
    digest: str
    images: int


class MeanSpectrum(Config):
    """Ring means of the PHYSICAL power spectrum, averaged over channels and images; frequency in cycles per pixel.

    Source: spectrum.md#power-spectrum.
    """

    images: int
    frequency: tuple[float, ...]
    power: tuple[float, ...]


class JpegPrice(Config):
    """The same images as PNG and as JPEG: mean bytes of an image, and the PSNR in dB of JPEG (None: it loses nothing)."""

    format: str
    images: int
    png_bytes: int
    jpeg_bytes: int
    psnr: float | None


class DatasetCard(Config):
    """The contents of dataset.json."""

    format: Literal["smtool dataset 1"] = "smtool dataset 1"
    source: SourceNote
    image_size: ImageSize
    """Height and width of the images in pixels: a number for squares, else both."""
    mode: ImageMode = "RGB"
    """Channels of the images, by Pillow's name."""
    crop: str
    crop_rule: str
    image_format: str
    seed: int
    split_rule: str
    train: tuple[Shard, ...]
    val: tuple[Shard, ...]
    num_classes: int
    """0 for images without labels."""
    class_names: tuple[str, ...]
    """Names by label, where the source has them."""
    unlabelled: str = ""
    """Why images that lie in several folders have no labels."""
    group_names: tuple[str, ...]
    """Names of the photographs from which images were cut, by group number; () when each image is a photograph of its own."""
    skipped: int
    """Number of images of the source that cannot be used."""
    left_out: dict[str, int] = Field(default_factory=dict)
    """Number of files, members and samples of the source that are not used, by reason; skipped.jsonl lists each."""
    remarks: dict[str, int] = Field(default_factory=dict)
    """Number of images by what is unusual about their files and what was done, such as a conversion to sRGB."""
    icc: str = "ignore"
    """Whether color profiles were converted to sRGB ("convert") or ignored."""
    white: int = 65535
    """Level of 16-bit images that became 255."""
    upscaled: int
    """Number of images with a side below that of image_size, which were enlarged: their highest frequencies are empty."""
    upsample: str = "bicubic"
    """How those were enlarged."""
    spectrum: MeanSpectrum | None
    jpeg: JpegPrice | None = None
    """Measured on the first training images; None for images with alpha, and in cards of earlier versions."""
    plan: str
    """Digest of all inputs and settings that determine the contents; a repeated `prepare` compares it."""

    @field_validator("image_size")
    @classmethod
    def _is_preparable(cls, size: ImageSize) -> ImageSize:
        if max(size) > LARGEST_SIDE:
            raise ValueError(f"must be at most {LARGEST_SIDE} pixels a side, but is {size.words}")
        return size

    @property
    def photographs(self) -> int | None:
        """Number of distinct photographs; None when each image is a photograph of its own."""
        return len(self.group_names) or None

    @property
    def channels(self) -> int:
        """Number of channels of the images, alpha included."""
        return CHANNELS[self.mode]

    def shards(self, split: Split) -> tuple[Shard, ...]:
        return self.train if split == "train" else self.val

    def count(self, split: Split) -> int:
        return sum(shard.images for shard in self.shards(split))

    @property
    def digest(self) -> str:
        """sha256 over the image size and each shard's name and sha256; the card's other fields do not enter."""
        return _digest(self.image_size.stored, *((shard.name, shard.sha256) for shard in self.train + self.val))

    def split_digest(self, split: Split) -> str:
        """sha256 over the image size and one split's shards."""
        return _digest(self.image_size.stored, *((shard.name, shard.sha256) for shard in self.shards(split)))


def is_prepared(folder: Path) -> bool:
    """Whether a folder has a card. StyleGAN's data sets have a file of labels of the same name, which is not one."""
    path = folder / CARD_NAME
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if _FORMAT in head:
        return True
    if path.stat().st_size > _LARGEST_CARD or _STYLEGAN.match(head):
        return False
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):  # a damaged card: its shards are there
        return any(folder.glob("train-*.npy"))
    keys = content.keys() if isinstance(content, dict) else set()
    return {"source", "image_size"} <= keys or ("format" in keys and str(content["format"]).startswith("smtool"))


def read_card(folder: Path) -> DatasetCard:
    """The card of a prepared folder. Raises DataError if it is missing or invalid."""
    path = folder / CARD_NAME
    if not is_prepared(folder):
        raise DataError(f"{folder} is not a prepared folder: it has no {CARD_NAME} of smtool.", hint=_unprepared_hint(folder))
    return parse_card(path, DatasetCard)


def parse_card(path: Path, kind: type[Card]) -> Card:
    """A card's JSON file as a `kind`. Raises DataError that names the first invalid field."""
    try:
        return kind.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (ValidationError, ValueError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise DataError(f"{path}: {where}: {first['msg']}.", hint=f"Delete {path.parent} and prepare it again.") from error


def verify(folder: Path, card: DatasetCard) -> None:
    """Compare every shard and index with the card's sha256. Raises DataError that names the first file that differs."""
    verify_shards(folder, card.train + card.val)


def verify_shards(folder: Path, shards: tuple[Shard, ...]) -> None:
    for shard in shards:
        for name, expected in ((shard.name, shard.sha256), (shard.index_name, shard.index_sha256)):
            check_present(folder, shard)
            if file_digest(folder / name) != expected:
                raise damaged(folder / name, "its sha256 differs from the card's")


def check_present(folder: Path, shard: Shard) -> None:
    """Check, without reading data, that shard and index exist and the shard has the length in the card; else DataError."""
    path = folder / shard.name
    for name in (shard.name, shard.index_name):
        if not (folder / name).is_file():
            raise damaged(folder / name, "it is missing")
    if (found := path.stat().st_size) != shard.bytes:
        raise damaged(path, f"it has {found} bytes, but the card says {shard.bytes}")


def damaged(path: Path, reason: str) -> DataError:
    """The error for a shard that does not agree with its card."""
    return DataError(
        f"{path}: damaged shard: {reason}.",
        hint=f"Copy {path.name} again from an intact folder, or delete {path.parent} and run `smtool prepare` again.",
    )


def _unprepared_hint(folder: Path) -> str:
    if (folder / UNFINISHED).is_dir():
        return "Its preparation was interrupted; run the same `smtool prepare` command again to finish it."
    return f"Prepare it first: smtool prepare {folder} --size 64"


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
