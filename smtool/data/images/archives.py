"""Members of tar and zip archives, compressed or not. Damaged archives and member paths outside the archive are errors."""

import bz2
import gzip
import lzma
import posixpath
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from smtool.data.images.entries import FileRange, ZipMember
from smtool.errors import DataError
from smtool.storage import replacing

_MAX_EXPANSION = 100
_BLOCK = 512  # bytes; members of a tar begin at multiples


@dataclass(frozen=True, slots=True)
class TarMember:
    """A file inside a tar: its name and the position of its data."""

    name: str
    data: FileRange


def tar_members(path: Path, name: str, within: FileRange | None = None) -> list[TarMember]:
    """The files of an uncompressed tar, links to its own files included; for equal names, the last one.

    within: position of the tar inside another tar. Raises DataError for a tar that does not end with the blocks of zeros that end
    every complete one: it was cut off between two members.
    """
    start = within.offset if within else 0
    members: dict[str, TarMember] = {}
    links: dict[str, str] = {}
    try:
        with path.open("rb") as file:
            file.seek(start)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    clean = member.name.removeprefix("./")
                    if member.isreg():
                        _refuse_climbing(name, member.name)
                        members[clean] = TarMember(clean, FileRange(str(path), member.offset_data, member.size))
                    elif target := _link_target(member):
                        _refuse_climbing(name, member.name)
                        links[clean] = target
                _refuse_cut_off(name, file, tar.offset)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(
            f"{name}: not a complete tar archive ({error}).", hint="It may be truncated; download or copy it again."
        ) from error
    _resolve(links, members)
    return list(members.values())


def _resolve(links: dict[str, str], members: dict[str, TarMember]) -> None:
    """Add the links that lead, perhaps over other links, to a member. Links may stand before what they lead to."""
    while found := {link: members[target] for link, target in links.items() if target in members and link not in members}:
        members.update({link: TarMember(link, member.data) for link, member in found.items()})


def _link_target(member: tarfile.TarInfo) -> str:
    """Name of the member that a hard or symbolic link leads to; "" for other members."""
    if member.islnk():
        return member.linkname.removeprefix("./")
    if member.issym():
        return posixpath.normpath(posixpath.join(posixpath.dirname(member.name), member.linkname))
    return ""


def _refuse_cut_off(name: str, file: BinaryIO, end: int) -> None:
    """end: where the member after the last one would begin."""
    file.seek(end)
    if file.read(_BLOCK) != bytes(_BLOCK):
        raise DataError(
            f"{name}: not a complete tar archive (it ends without the block of zeros that ends every tar).",
            hint="It may be truncated; download or copy it again. If it is whole, pack its files again with tar.",
        )


def zip_members(path: Path) -> list[tuple[str, ZipMember]]:
    """The files of a zip archive: (name, member) pairs. Names that were written with backslashes (Windows) get slashes."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise DataError(
            f"{path}: not a complete zip archive ({error}).", hint="It may be truncated; download or copy it again."
        ) from error
    for member in members:
        _refuse_climbing(path.name, member.filename)
    return [
        (member.filename.replace("\\", "/"), ZipMember(str(path), member.filename, member.file_size)) for member in members
    ]


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
