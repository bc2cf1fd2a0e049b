"""The files below a folder. Links are followed; what cannot be followed or read is left out, with a reason."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from smtool.data.images.entries import FileRange, Stored
from smtool.data.images.kinds import HIDDEN, LeftOut, is_hidden, pick_images
from smtool.data.images.label_files import is_label_file
from smtool.errors import DataError

Found = tuple[str, Stored] | LeftOut


def folder_images(folder: Path) -> tuple[list[tuple[str, Stored]], list[LeftOut]]:
    """All images in a folder and its subfolders as (path in the folder, place), sorted by path; and all that is not used.

    Symbolic links count as files and folders at the place of the link; a link to a folder that contains it is not followed. A
    hidden folder is left out as a whole. Raises DataError for a folder that cannot be read.
    """
    files: list[tuple[str, Stored]] = []
    others: list[LeftOut] = []
    for item in _below(folder, "", frozenset()):
        if isinstance(item, LeftOut):
            others.append(item)
        else:
            files.append(item)
    images, not_images = pick_images(sorted(files, key=lambda file: file[0].split("/")))
    return images, sorted(others + not_images)


def label_files(folder: Path, others: Iterable[LeftOut]) -> dict[str, Stored]:
    """The label files of a folder among its files that are no images, by path in the folder."""
    names = sorted(id for id, reason in others if is_label_file(id) and reason != HIDDEN)
    return {name: FileRange(str(folder / name), 0, (folder / name).stat().st_size) for name in names if (folder / name).is_file()}


def _below(folder: Path, prefix: str, above: frozenset[tuple[int, int]]) -> Iterator[Found]:
    """prefix: path of the folder in the source; above: device and inode of the folders that lead to it, so that circles end."""
    try:
        status = folder.stat()
        items = list(os.scandir(folder))
    except OSError as error:
        raise DataError(
            f"{folder}: the folder cannot be read ({error.strerror}).", hint="Change its permissions, or move it away."
        ) from error
    here = (status.st_dev, status.st_ino)
    if here in above:
        yield LeftOut(prefix.removesuffix("/"), "link to a folder that contains it")
        return
    for item in items:
        name = prefix + item.name
        if item.is_dir():
            if is_hidden(item.name):
                yield LeftOut(name, "hidden folder")
            else:
                yield from _below(folder / item.name, f"{name}/", above | {here})
        elif item.is_file():
            yield name, FileRange(os.path.join(folder, item.name), 0, item.stat().st_size)
        else:
            yield LeftOut(name, "link to nothing" if item.is_symlink() else "not a regular file")
