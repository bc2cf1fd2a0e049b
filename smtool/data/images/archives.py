"""Members of tar and zip archives, compressed or not. Damaged archives and member paths outside the archive are errors."""

import bz2
import gzip
import lzma
import posixpath
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from smtool.data.images.entries import FileRange, Stored, ZipMember
from smtool.data.images.kinds import LeftOut
from smtool.errors import DataError
from smtool.storage import replacing

_MAX_EXPANSION = 100
_BLOCK = 512  # bytes; members of a tar begin at multiples
_LONGEST_LINK = 4096  # bytes


@dataclass(frozen=True)
class Members:
    """The files inside an archive: the place of each by name, and members that are not used, with reasons."""

    places: dict[str, Stored]
    left_out: tuple[LeftOut, ...]


def tar_members(path: Path, name: str, within: FileRange | None = None) -> Members:
    """The files of an uncompressed tar, links to its own files included; of members of the same name, the last one.

    within: position of the tar inside another tar. Raises DataError for a tar that does not end with the blocks of zeros that end
    every complete one: it was cut off between two members.
    """
    start = within.offset if within else 0
    members = _Collected()
    try:
        with path.open("rb") as file:
            file.seek(start)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    if member.isdir():
                        continue
                    _refuse_climbing(name, member.name)
                    clean = member.name.removeprefix("./")
                    if member.isreg() and not member.issparse():
                        members.add(clean, FileRange(str(path), member.offset_data, member.size))
                    elif target := _link_target(member):
                        members.links[clean] = target
                    else:
                        members.left_out.append(LeftOut(clean, "sparse file" if member.issparse() else "not a regular file"))
                _refuse_cut_off(name, file, tar.offset)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(
            f"{name}: not a complete tar archive ({error}).", hint="It may be truncated; download or copy it again."
        ) from error
    return members.resolved()


def zip_members(path: Path) -> Members:
    """The files of a zip archive, symbolic links to its own files included. Backslashes in names (Windows) become slashes."""
    members = _Collected()
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.is_dir():
                    continue
                _refuse_climbing(path.name, info.filename)
                name = info.filename.replace("\\", "/")
                if stat.S_ISLNK(info.external_attr >> 16) and info.file_size <= _LONGEST_LINK:
                    target = archive.read(info).decode("utf-8", "surrogateescape")
                    members.links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
                else:
                    members.add(name, ZipMember(str(path), info.filename, info.file_size))
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError, zlib.error, lzma.LZMAError) as error:
        raise DataError(
            f"{path}: not a complete zip archive ({error}).", hint="It may be truncated; download or copy it again."
        ) from error
    return members.resolved()


@dataclass
class _Collected:
    places: dict[str, Stored] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)

    def add(self, name: str, place: Stored) -> None:
        if not PurePosixPath(name).name:
            self.left_out.append(LeftOut(name, "member without a name"))
            return
        if name in self.places:
            self.left_out.append(LeftOut(name, "replaced by a later member of the same name"))
        self.places[name] = place

    def resolved(self) -> Members:
        """Add the links that lead, perhaps over other links, to a file or folder. Links may stand before what they lead to."""
        files, links = dict(self.places), {link: target for link, target in self.links.items() if link not in self.places}
        to_files: dict[str, Stored] = {}
        while found := {link: place for link, target in links.items()
                        if link not in to_files and (place := files.get(target) or to_files.get(target))}:
            to_files.update(found)
        below = {
            link: {name: place for name, place in files.items() if name.startswith(f"{target}/")}
            for link, target in links.items()
            if link not in to_files
        }
        linked = {link + name[len(links[link]) :]: place for link, inside in below.items() for name, place in inside.items()}
        self.left_out += [LeftOut(link, "link to nothing in the archive") for link, inside in below.items() if not inside]
        return Members({**linked, **to_files, **files}, tuple(sorted(self.left_out)))


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


def unpacked(path: Path, scratch: Path, name: str) -> Path:
    """The path itself, or for a compressed tar the path of a decompressed copy in `scratch`. name: of the copy."""
    if path.name.lower().endswith(".tar"):
        return path
    target = scratch / (name.replace("/", "-") + ".tar")
    if not target.is_file():
        with replacing(target) as aside:
            _decompress(path, aside)
    return target


def _decompress(path: Path, target: Path) -> None:
    openers: dict[str, Callable[..., Any]] = {".bz2": bz2.open, ".xz": lzma.open}
    limit, total = _MAX_EXPANSION * max(path.stat().st_size, 2**20), 0
    try:
        with openers.get(path.suffix.lower(), gzip.open)(path, "rb") as packed, target.open("wb") as plain:
            while block := _read(packed, path):
                if (total := total + len(block)) > limit:
                    raise DataError(f"{path}: expands to more than {_MAX_EXPANSION} times its size: a decompression bomb?")
                plain.write(block)
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path}: cannot be decompressed ({error}).", hint="It may be truncated; download or copy it again."
        ) from error


def _read(packed: BinaryIO, path: Path) -> bytes:
    try:
        return packed.read(2**20)
    except OSError as error:  # a damaged .bz2; errors of writing are the disk's
        raise EOFError(str(error)) from error


def _refuse_climbing(archive: str, name: str) -> None:
    if name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name) or re.match(r"[A-Za-z]:", name):
        raise DataError(
            f"{archive}: the path of member {name!r} leads outside the archive.",
            hint="Do not trust this file; pack the images again.",
        )
