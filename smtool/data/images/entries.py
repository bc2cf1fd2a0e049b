"""One image of a source and the place of its bytes. No torch: entries are sent to the worker processes of `prepare`."""

import functools
import zipfile
from dataclasses import dataclass
from typing import Protocol

from smtool.data.images.decoding import Decoded, Reading, UnusableImage, decode
from smtool.data.images.transform import Rule, encode, to_size

MAX_BYTES = 2**28  # encoded images above 256 MiB are not read


class Place(Protocol):
    """Where an image is read from. `decoded` raises UnusableImage if it cannot be read or decoded."""

    def decoded(self, reading: Reading) -> Decoded: ...


class Stored(Place, Protocol):
    """A file or the member of an archive. `head` gives the first bytes, `read` all. Both raise UnusableImage."""

    @property
    def size(self) -> int: ...

    def head(self, count: int) -> bytes: ...

    def read(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class FileRange:
    """A file, or a member of an uncompressed tar: `size` bytes that begin at `offset`."""

    path: str
    offset: int
    size: int

    def decoded(self, reading: Reading) -> Decoded:
        return decode(self.read(), reading)

    def read(self) -> bytes:
        _refuse_giant(self.size)
        return self.head(self.size)

    def head(self, count: int) -> bytes:
        try:
            with open(self.path, "rb") as file:
                file.seek(self.offset)
                return file.read(min(count, self.size))
        except OSError as error:
            raise UnusableImage(f"cannot be read: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class ZipMember:
    """A member of a zip archive."""

    path: str
    name: str
    size: int

    def decoded(self, reading: Reading) -> Decoded:
        return decode(self.read(), reading)

    def read(self) -> bytes:
        _refuse_giant(self.size)
        return self.head(self.size + 1)  # the checksum is compared at the end of the data

    def head(self, count: int) -> bytes:
        try:
            with _archive(self.path).open(self.name) as file:
                return file.read(count)
        except Exception as error:  # damaged members raise BadZipFile, zlib.error, NotImplementedError, RuntimeError ...
            raise UnusableImage(f"cannot be unpacked: {error}") from error


@dataclass(frozen=True, slots=True)
class Entry:
    """An image to prepare. id: its path in the source; group: the photograph it was cut from, or None."""

    id: str
    place: Place
    label: int | None = None
    split: str | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """A prepared image: its encoded bytes, its width and height in the source, and the remarks of its decoding."""

    entry: Entry
    data: bytes
    width: int
    height: int
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Skipped:
    """An image that was left out, and the reason."""

    entry: Entry
    reason: str


def make_samples(entries: list[Entry], rule: Rule) -> list[Sample | Skipped]:
    """Read, crop and encode each entry's image. Each result depends only on the entry and the rule."""
    return [_make_sample(entry, rule) for entry in entries]


def _make_sample(entry: Entry, rule: Rule) -> Sample | Skipped:
    try:
        decoded = entry.place.decoded(rule.reading)
        prepared = to_size(decoded.image, rule, entry.id)
    except UnusableImage as error:
        return Skipped(entry, str(error))
    return Sample(entry, encode(prepared, rule.image_format), *decoded.image.size, decoded.remarks)


def _refuse_giant(size: int) -> None:
    if size > MAX_BYTES:
        raise UnusableImage(f"{size} bytes, above the limit of {MAX_BYTES} for one image")


@functools.lru_cache(maxsize=2)
def _archive(path: str) -> zipfile.ZipFile:
    """The open archive, cached so that its directory is parsed once per process."""
    return zipfile.ZipFile(path)
