"""Members of tar and zip archives, compressed or not. Damaged archives and member paths outside the archive are errors."""

import bz2
import gzip
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smtool.data.images.entries import FileRange, ZipMember
from smtool.errors import DataError
from smtool.storage import replacing

_MAX_EXPANSION = 100


@dataclass(frozen=True, slots=True)
class TarMember:
    """A file inside a tar: its name and the position of its data."""

    name: str
    data: FileRange


def tar_members(path: Path, name: str, within: FileRange | None = None) -> list[TarMember]:
    """The regular files of an uncompressed tar; for equal names, the last one. within: position of the tar inside another tar."""
    start = within.offset if within else 0
    members = {}
    try:
        with path.open("rb") as file:
            file.seek(start)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    if member.isreg():
                        _refuse_climbing(name, member.name)
                        clean = member.name.removeprefix("./")
                        members[clean] = TarMember(clean, FileRange(str(path), member.offset_data, member.size))
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(
            f"{name}: not a complete tar archive ({error}).", hint="It may be truncated; download or copy it again."
        ) from error
    return list(members.values())


def zip_members(path: Path) -> list[tuple[str, ZipMember]]:
    """The files of a zip archive: (name, member) pairs."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise DataError(
            f"{path}: not a complete zip archive ({error}).", hint="It may be truncated; download or copy it again."
        ) from error
    for member in members:
        _refuse_climbing(path.name, member.filename)
    return [(member.filename, ZipMember(str(path), member.filename, member.file_size)) for member in members]


def unpacked(path: Path, scratch: Path) -> Path:
    """The path itself, or for a compressed tar the path of a decompressed copy in `scratch`."""
    if path.name.lower().endswith(".tar"):
        return path
    target = scratch / f"{path.name}.tar"
    if not target.is_file():
        with replacing(target) as aside:
            _decompress(path, aside)
    return target


def _decompress(path: Path, target: Path) -> None:
    openers: dict[str, Callable[..., Any]] = {".bz2": bz2.open, ".xz": lzma.open}
    limit, total = _MAX_EXPANSION * max(path.stat().st_size, 2**20), 0
    try:
        with openers.get(path.suffix.lower(), gzip.open)(path, "rb") as packed, target.open("wb") as plain:
            while block := packed.read(2**20):
                if (total := total + len(block)) > limit:
                    raise DataError(f"{path}: expands to more than {_MAX_EXPANSION} times its size: a decompression bomb?")
                plain.write(block)
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path}: cannot be decompressed ({error}).", hint="It may be truncated; download or copy it again."
        ) from error


def _refuse_climbing(archive: str, name: str) -> None:
    if name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name) or re.match(r"[A-Za-z]:", name):
        raise DataError(
            f"{archive}: the path of member {name!r} leads outside the archive.",
            hint="Do not trust this file; pack the images again.",
        )
