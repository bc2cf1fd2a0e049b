"""Images in the files of a folder or archive, used as they are: their order, sizes and digest, and what is not used."""

import hashlib
import io
import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from smtool.data.images.columns import LabelRule
from smtool.data.images.decoding import AS_STORED, FIRST_FRAME, FORMATS, Reading, UnusableImage, decode
from smtool.data.images.entries import Entry, FileRange, ZipMember
from smtool.data.images.listing import Listing, list_entries
from smtool.data.images.loading import prefetched
from smtool.data.images.progress import without_numbers
from smtool.data.images.sources import Source, find_source
from smtool.errors import DataError
from smtool.features.pictures import ALPHA, Pictures
from smtool.image_shape import CHANNELS, MODES, ImageSize
from smtool.inference.sampling import SAMPLING_FILE, Sampling

_READERS = 4
_AT_ONCE = 16
_REASONS = 5      # largest number of reasons in an error
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)      # EXIF
ON_WHITE = "alpha, composited on white"
_OF_SAMPLES = (      # files that `smtool sample` writes beside samples
    SAMPLING_FILE, "grid.png", "labels.json", "trace.json", "trace.png", "trace.svg", "traces.png", "traces.svg"
)
Result = TypeVar("Result")


@dataclass(frozen=True)
class Survey:
    """What one file says before its pixels are decoded. digest: sha256 of its bytes; size: upright; unusable: why it has none;
    channels: those of the file."""

    digest: str
    size: ImageSize | None = None
    remarks: tuple[str, ...] = ()
    unusable: str = ""
    channels: int = 3


class LooseImages:
    """All images of a folder or archive. digest: of everything that decides their pixels and order.

    sizes: of each image; channels: of all; remarks: what is unusual about images, with their number; left_out: why files are not
    used, with their number.
    Raises DataError if any image cannot be read; the message counts all of them by reason.
    """

    def __init__(self, what: str, drawn: Sampling, *, channels: int = 3) -> None:
        """drawn: how `smtool sample` wrote the files. These keep their order and channels; images of unknown origin are put in a
        fixed random order, and read with this number of channels."""
        self.what = what
        self._scratch = tempfile.TemporaryDirectory(prefix="smtool-")      # for compressed tars; kept as long as this object
        source = _samples_source(Path(what)) if drawn.known else find_source(what)
        listing = _listing(what, source, Path(self._scratch.name))
        self._entries, others = _samples(listing, drawn) if drawn.known else _shuffled(listing)
        surveys = [survey for part in self._each(_survey, self._entries) for survey in part]
        if any(survey.unusable for survey in surveys):
            raise self._unreadable()
        self.sizes = tuple(survey.size for survey in surveys if survey.size is not None)
        self.channels = surveys[0].channels if drawn.known else channels
        self._reading = replace(AS_STORED, mode=MODES[self.channels])
        flattened = 0 if self.channels in ALPHA else sum(survey.channels in ALPHA for survey in surveys)
        self.remarks = _counted(remark for survey in surveys for remark in survey.remarks)
        self.remarks |= {ON_WHITE: flattened} if flattened else {}
        self.left_out = _counted(others)
        self.digest = _loose_digest(source, self._entries, [survey.digest for survey in surveys])

    def __len__(self) -> int:
        return len(self._entries)

    def read(self, positions: range, batch: int) -> Iterator[Pictures]:
        """The images at these positions as uint8 (B, C, H, W), in order; a batch with several sizes as a list of (C, H, W)."""
        try:
            for pixels in self._each(partial(_pixels, self._reading), self._entries[positions.start : positions.stop], batch):
                yield torch.stack(pixels) if len({image.shape for image in pixels}) == 1 else pixels
        except UnusableImage:
            raise self._unreadable() from None

    def _each(self, read: Callable[[Entry], Result], entries: Sequence[Entry], batch: int = _AT_ONCE) -> Iterator[list[Result]]:
        parts = (entries[start : start + batch] for start in range(0, len(entries), batch))
        yield from prefetched(lambda part: [read(entry) for entry in part], parts, _READERS)

    def _unreadable(self) -> DataError:
        """Decode all images, and count those that cannot be decoded by reason."""
        reasons = [reason for part in self._each(_damage, self._entries) for reason in part]
        bad = [(without_numbers(reason), entry.id) for reason, entry in zip(reasons, self._entries, strict=True) if reason]
        firsts = dict(reversed(bad))
        counts = Counter(reason for reason, _ in bad).most_common()
        listed = [f"{count:,} {reason} (first: {firsts[reason]})" for reason, count in counts[:_REASONS]]
        listed += [f"{len(counts) - _REASONS:,} other reasons"] if len(counts) > _REASONS else []
        return DataError(
            f"{self.what}: {len(bad):,} of {len(self._entries):,} images cannot be read: {'; '.join(listed)}.",
            hint=f"Repair or remove them, or leave them out: smtool prepare {self.what} --size SIZE --max-bad SHARE",
        )


def _samples_source(folder: Path) -> Source:
    """A folder of `smtool sample`: its shards, or its images."""
    shards = tuple(sorted(folder.glob("*.tar")))
    return Source(folder.resolve().name, "tar", shards) if shards else find_source(str(folder))


def _listing(what: str, source: Source, scratch: Path) -> Listing:
    try:
        return list_entries(source, size=0, scratch=scratch, labels=LabelRule("none"))
    except DataError as error:
        if error.hint is None or "--" not in error.hint:
            raise
        raise DataError(error.message, hint=f"Prepare {what} first, and pass the prepared folder. {error.hint}") from error


def _samples(listing: Listing, drawn: Sampling) -> tuple[tuple[Entry, ...], list[str]]:
    """The samples in their order, and why other files are not used; files that `smtool sample` adds are not among these."""
    others = [other.reason for other in listing.left_out if other.id not in _OF_SAMPLES]
    images = [entry for entry in listing.entries if entry.id not in _OF_SAMPLES]
    suffix = {"png": "png", "jpeg:75": "jpg", "jpeg:95": "jpg"}.get(drawn.format or "")      # of single files
    chosen = tuple(entry for entry in images if suffix is None or re.fullmatch(rf"\d{{6,}}\.{suffix}", entry.id))
    return chosen, others + ["not written by `smtool sample`"] * (len(images) - len(chosen))


def _shuffled(listing: Listing) -> tuple[tuple[Entry, ...], list[str]]:
    """The images in the order of a hash of their names, because in that of the names the first images would be of a few classes;
    and why other files are not used."""
    entries = sorted(listing.entries, key=lambda entry: hashlib.sha256(_encoded(entry.id)).digest())
    return tuple(entries), [other.reason for other in listing.left_out]


def _survey(entry: Entry) -> Survey:
    if not isinstance(entry.place, FileRange | ZipMember):      # a row of a table without an image
        return Survey("", unusable=_damage(entry))
    try:
        data = entry.place.read()
    except UnusableImage as error:
        return Survey("", unusable=str(error))
    digest = hashlib.sha256(data).hexdigest()
    try:
        return _header(digest, data) or _decoded_header(digest, data)
    except UnusableImage as error:
        return Survey(digest, unusable=str(error))


def _header(digest: str, data: bytes) -> Survey | None:
    """A survey from the header; None if only decoding can tell."""
    if data.startswith(b"\x89PNG") and (b"eXIf" in data or b"XML:com.adobe.xmp" in data):
        return None      # these may come after the pixels
    try:
        image = _opened(data)
        turned = image.format != "PNG" and image.getexif().get(_ORIENTATION) in _TURNED
        remarks = [FIRST_FRAME] if image.format != "MPO" and getattr(image, "n_frames", 1) > 1 else []
        channels = _channels(image)
    except Exception:      # parsers raise exceptions of many types; `decode` gives the reason
        return None
    if image.mode.startswith("I") or (image.format == "PNG" and data[24:25] == b"\x10") or image.format == "TIFF":
        return None      # of 16 bits, the levels in use are stated; Pillow turns a TIFF when it is decoded
    size = ImageSize(image.width, image.height) if turned else ImageSize(image.height, image.width)
    return Survey(digest, size, tuple(remarks), channels=channels)


def _decoded_header(digest: str, data: bytes) -> Survey:
    decoded = decode(data, AS_STORED)
    size = ImageSize(decoded.image.height, decoded.image.width)
    try:
        channels = _channels(_opened(data))
    except Exception:      # of a header that `decode` repairs
        channels = len(decoded.image.getbands())
    return Survey(digest, size, decoded.remarks, channels=channels)


def _opened(data: bytes) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Image.open(io.BytesIO(data), formats=FORMATS)


def _channels(image: Image.Image) -> int:
    return 4 if image.has_transparency_data and image.mode != "LA" else CHANNELS.get(image.mode, 3)


def _pixels(reading: Reading, entry: Entry) -> Tensor:
    """(C, H, W) uint8."""
    image = entry.place.decoded(reading).image
    return torch.from_numpy(np.array(image).reshape(image.height, image.width, -1)).permute(2, 0, 1).contiguous()


def _damage(entry: Entry) -> str:
    """Why an image cannot be decoded; "" if it can."""
    try:
        entry.place.decoded(AS_STORED)
    except UnusableImage as error:
        return str(error)
    return ""


def _counted(words: Iterable[str]) -> dict[str, int]:
    return dict(Counter(words).most_common())


def _loose_digest(source: Source, entries: Sequence[Entry], digests: Sequence[str]) -> str:
    """Digest of the names and bytes of a folder's images, or of an archive's bytes, and of the order of the images."""
    names = [entry.id for entry in entries]
    loose = source.kind in ("folder", "table")      # a table may name files
    parts = (list(zip(names, digests, strict=True)),) if loose else (source.digest(), names)
    return hashlib.sha256(_encoded(repr(parts))).hexdigest()


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
