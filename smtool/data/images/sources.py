"""Sources of `prepare`, recognized by content: a folder, archives, shards, ImageNet's tars, tables, or a built-in name."""

import glob
import hashlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Literal

from smtool.data.images.builtin import Builtin, parse_builtin
from smtool.data.images.card import UNFINISHED, is_prepared, read_card
from smtool.data.images.columns import AUTO, LabelRule
from smtool.data.images.folders import folder_images, label_files
from smtool.data.images.kinds import LeftOut, is_hidden
from smtool.data.images.table_files import TABLE_SUFFIXES
from smtool.data.images.table_sources import (
    DESCRIBING,
    NOT_NAMED,
    has_images,
    holds_tables,
    is_table,
    relative_names,
    tables_in,
)
from smtool.data.images.tables import named_files
from smtool.errors import DataError
from smtool.storage import file_digest

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_WHOLE = 2**28  # files up to 256 MiB are hashed in full, larger ones by 256 blocks of 1 MiB
_BLOCK = 2**20
_MAX_NAMES = 100_000  # in a pattern


@dataclass(frozen=True)
class Source:
    """A recognized source. files: its archives or tables, or its one folder; beside: files beside them, which are not used.

    folder: the folder that was given, in which `beside` are paths.
    """

    name: str
    kind: Literal["folder", "zip", "tar", "imagenet", "table", "builtin"]
    files: tuple[Path, ...] = ()
    builtin: Builtin | None = None
    beside: tuple[LeftOut, ...] = ()
    folder: Path | None = None

    def digest(self, rule: LabelRule = AUTO) -> str:
        """sha256 over names and sizes (a folder), names and content (archives, tables), or options (a built-in).

        The content of label files in a folder, and names and sizes of image files that tables name, are part of it.
        """
        total = hashlib.sha256(self.kind.encode())
        if self.builtin:
            total.update(repr((self.builtin.name, sorted(self.builtin.options.items()))).encode())
        for name, said in self._parts(rule):
            total.update(f"{name}\0{said}\n".encode("utf-8", "surrogateescape"))
        return total.hexdigest()

    def _parts(self, rule: LabelRule) -> Iterator[tuple[str, int | str]]:
        """What the digest is made of: names of files, each with its size or the digest of its content."""
        if self.kind == "folder":
            images, others = folder_images(self.files[0])
            yield from ((name, place.size) for name, place in images)
            if rule.labels in ("auto", "file"):
                yield from ((name, file_digest(self.files[0] / name)) for name in label_files(self.files[0], others))
        elif self.kind == "table":
            tables = relative_names(self.files)
            yield from ((name, _sampled_digest(path)) for name, path in tables.items())
            yield from ((name, path.stat().st_size) for name, path in named_files(tables, rule) if path.is_file())
        else:
            yield from ((path.name, _sampled_digest(path)) for path in self.files)


def find_source(text: str) -> Source:
    """Recognize a source. Raises DataError, with what was found and what is possible, if it is none."""
    if text.startswith("builtin:"):
        builtin = parse_builtin(text)
        return Source(builtin.slug, "builtin", builtin=builtin)
    if re.match(r"[a-z0-9]+://|pipe:", text):
        raise DataError(
            f"{text}: remote sources cannot be prepared.",
            hint="Download it first, or stream it with smtool.data.images.streaming.stream_images.",
        )
    if re.search(r"[*?{]", text) and not Path(text).exists():
        return _from_pattern(text)
    path = Path(text)
    if path.is_dir():
        return _from_folder(path)
    if not path.is_file():
        raise DataError(f"{text}: no such file or folder.", hint=_offer(path))
    if path.suffix.lower() == ".zip":
        return Source(_stem(path), "zip", (path,))
    if is_tar(path):
        return Source(_stem(path), "tar", (path,))
    if is_table(path):
        return Source(_stem(path), "table", (path,))
    raise DataError(
        f"{text}: not a known kind of source.",
        hint="Pass a folder, .zip, .tar, .tar.gz, .parquet, a shard pattern or builtin:photos.",
    )


def is_tar(path: Path) -> bool:
    return path.name.lower().endswith(TAR_SUFFIXES)


def _from_pattern(text: str) -> Source:
    from braceexpand import braceexpand

    ranges = re.findall(r"\{(-?\d{1,18})\.\.(-?\d{1,18})[.}]", text)
    numbers = math.prod(abs(int(last) - int(first)) + 1 for first, last in ranges)  # braceexpand holds all of them in memory
    pieces = list(islice(braceexpand(text), _MAX_NAMES + 1)) if numbers <= _MAX_NAMES else []
    if not pieces or len(pieces) > _MAX_NAMES:
        raise DataError(f"{text}: the pattern names more than {_MAX_NAMES:,} files.", hint="Pass the folder of the archives.")
    paths = sorted({Path(match) for piece in pieces for match in glob.glob(piece) or [piece]})
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise DataError(f"{text}: {missing[0]} does not exist ({len(missing)} of {len(paths)} files are missing).")
    tables = all(map(is_table, paths))
    if wrong := [path for path in paths if not (tables or is_tar(path))]:
        raise DataError(
            f"{wrong[0]}: a pattern must name tar files or tables.", hint="Pass the folder to prepare loose images."
        )
    if is_prepared(paths[0].parent):
        raise DataError(f"{text}: these shards belong to a prepared folder.", hint=f"Pass the folder itself: {paths[0].parent}")
    name = re.sub(r"[^A-Za-z0-9]+", "-", _stem(Path(re.sub(r"\{.*\}|[*?]+|\[.*\]", "", text)))).strip("-")
    return Source(name or paths[0].parent.name, "table" if tables else "tar", tuple(paths))


def _from_folder(path: Path) -> Source:
    name = path.resolve().name
    if is_prepared(path) or (path / UNFINISHED).is_dir():
        card = read_card(path)  # raises for an unfinished folder; the hint says how to finish it
        return Source(name, "tar", tuple(path / shard.name for shard in card.train + card.val))
    archives = tuple(sorted(file for file in path.iterdir() if file.is_file() and is_tar(file) and not is_hidden(file.name)))
    if not archives:
        return _from_tables(path, name) if holds_tables(path) else Source(name, "folder", (path,))
    images, others = folder_images(path)
    if images:
        raise DataError(
            f"{path} holds {len(archives):,} tar files and {len(images):,} images, the first {images[0][0]}.",
            hint=f"Prepare the archives alone with a pattern, {path}/*.tar, or move them out of the folder.",
        )
    names = {archive.name for archive in archives}
    beside = tuple(other for other in others if other.id not in names)
    return Source(name, "imagenet" if all(map(is_synset_tar, names)) else "tar", archives, beside=beside)


def _from_tables(path: Path, name: str) -> Source:
    """A folder that holds tables: a source of tables, or one of images if there are images and the tables hold none."""
    images, others = folder_images(path)
    tables, unused = tables_in(path, (other.id for other in others))
    if not tables or (images and not has_images(path, tables)):
        return Source(name, "folder", (path,))
    known = {*tables, *(other.id for other in unused)}
    rest = (other for other in others if other.id not in known and PurePosixPath(other.id).name not in DESCRIBING)
    beside = tuple(sorted([*unused, *(LeftOut(name, NOT_NAMED) for name, _ in images), *rest]))
    return Source(name, "table", tuple(path / table for table in tables), beside=beside, folder=path)


def is_synset_tar(name: str) -> bool:
    """Whether a name is that of an ImageNet per-class tar, such as n01440764.tar."""
    return re.fullmatch(r"n\d{8}\.tar", name.rsplit("/", 1)[-1]) is not None


def _stem(path: Path) -> str:
    for suffix in (*TAR_SUFFIXES, ".zip", *TABLE_SUFFIXES):
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.name


def _sampled_digest(path: Path) -> str:
    """sha256 of a file's size and bytes; for a large file, of 256 evenly spaced blocks."""
    size = path.stat().st_size
    total = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        if size <= _WHOLE:
            while block := file.read(_BLOCK):
                total.update(block)
        else:
            for number in range(256):
                file.seek((size - _BLOCK) * number // 255)
                total.update(file.read(_BLOCK))
    return total.hexdigest()


def _offer(path: Path) -> str:
    near = sorted(item.name for item in path.parent.glob(f"{path.name[:3]}*")) if path.parent.is_dir() and path.name else []
    return (
        f"In {path.parent} there is {', '.join(near[:4])}."
        if near
        else "Pass a folder, an archive, a shard pattern or builtin:photos."
    )
