"""State of a folder during preparation: a lock, and in `.unfinished/` the plan and one note per finished shard.

A shard with a note is final, so a killed run resumes after the last note. `.unfinished/` is removed at the end.
"""

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from smtool.config import Config
from smtool.data.images.card import UNFINISHED, Shard
from smtool.errors import DataError, DiskError
from smtool.storage import file_digest, write_json


class ShardNote(Config):
    """Record of a finished shard, stored until the card is written."""

    shard: Shard


_REFUSED = "refused"
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK}
Note = TypeVar("Note", bound=ShardNote)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Create the folder if it is missing and hold its lock; the system releases the lock if this process dies.

    On file systems without locks (many Lustre mounts) none is taken: two runs write the same bytes.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise DiskError(f"{folder}: cannot be used as a folder ({error.strerror}).", hint="Choose another --out.") from error
    try:
        _lock(handle)
        yield
    finally:
        os.close(handle)


def _lock(handle: int) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


def begin(folder: Path, plan: dict[str, Any]) -> None:
    """Write the plan into an empty folder, or resume an interrupted run of the same plan.

    An interrupted run with another plan is a DataError if it finished a shard. It is discarded if it finished none, or if it
    ended because of unusable images (`refuse`), which have been repaired since.
    """
    path = folder / UNFINISHED / "plan.json"
    refused = path.with_name(_REFUSED).is_file()
    ours = {f"{note.stem}{suffix}" for note in path.parent.glob("*.json") for suffix in (".tar", ".npy")} if refused else set()
    foreign = sorted(item.name for item in folder.iterdir() if item.name != UNFINISHED)
    if not path.is_file() and foreign:
        raise DataError(f"{folder} is not empty ({foreign[0]}) and not a prepared folder.", hint="Choose another --out.")
    if path.is_file() and _plan(path) != plan:
        if any(note != path for note in path.parent.glob("*.json")) and not refused:
            raise DataError(
                f"{folder} holds an unfinished preparation of other data or with other settings.",
                hint="Choose another --out, or delete that folder first.",
            )
        for name in ours:
            (folder / name).unlink(missing_ok=True)
        end(folder)
    write_json(path, plan)
    path.with_name(_REFUSED).unlink(missing_ok=True)
    for aside in [*folder.glob(".*.part"), *(folder / UNFINISHED).glob(".*.part")]:  # left by a run killed while writing
        aside.unlink()


def _plan(path: Path) -> Any:
    """The plan of the interrupted run; None if its file is damaged, which no plan equals."""
    try:
        return json.loads(path.read_bytes())
    except ValueError:
        return None


def write_note(folder: Path, name: str, note: ShardNote) -> None:
    write_json(_note_path(folder, name), note.model_dump(mode="json"))


def read_note(folder: Path, name: str, kind: type[Note]) -> Note | None:
    """The note of a shard that an earlier run finished, if shard and index are still there as recorded, else None."""
    path = _note_path(folder, name)
    if not path.is_file():
        return None
    try:
        note = kind.model_validate_json(path.read_bytes())
    except ValueError:      # damaged: the shard is written again
        return None
    shard, index = folder / note.shard.name, folder / note.shard.index_name
    whole = shard.is_file() and shard.stat().st_size == note.shard.bytes
    return note if whole and index.is_file() and file_digest(index) == note.shard.index_sha256 else None


def refuse(folder: Path) -> None:
    """Note that the run ended because too many images are unusable."""
    (folder / UNFINISHED / _REFUSED).touch()


def end(folder: Path) -> None:
    shutil.rmtree(folder / UNFINISHED, ignore_errors=True)


def _note_path(folder: Path, name: str) -> Path:
    return folder / UNFINISHED / f"{name}.json"
