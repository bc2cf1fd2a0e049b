"""Webdataset shards: plain tar files of `NNNNNNNN.png .cls .json` members, each with an index of image offsets.

The bytes depend only on the samples: time, owner and worker count do not enter.
"""

import hashlib
import io
import json
import os
import tarfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from smtool.data.images.card import Shard, damaged
from smtool.data.images.entries import Sample
from smtool.storage import file_digest, replacing, write_bytes

INDEX = np.dtype([("key", "<u4"), ("offset", "<u8"), ("bytes", "<u4"), ("crc32", "<u4"), ("label", "<i4"), ("group", "<i4")])
"""One row per image: its number, offset, size and checksum of its bytes in the tar; label and group (-1: none)."""


def write_shard(path: Path, samples: Iterable[tuple[int, Sample]], *, suffix: str, groups: Mapping[str | None, int]) -> Shard:
    """Write (key, sample) pairs to a tar, then its index as .npy, both atomically. groups: number by name."""
    rows = []
    with replacing(path) as aside, tarfile.open(aside, "w", format=tarfile.USTAR_FORMAT) as tar:
        for key, sample in samples:
            offset = _add_sample(tar, f"{key:08d}", sample, suffix)
            label = -1 if sample.entry.label is None else sample.entry.label
            rows.append((key, offset, len(sample.data), zlib.crc32(sample.data), label, groups.get(sample.entry.group, -1)))
    index = path.with_suffix(".npy")
    write_bytes(index, index_bytes(np.array(rows, dtype=INDEX)))
    return Shard(
        name=path.name, images=len(rows), bytes=path.stat().st_size, sha256=file_digest(path), index_sha256=file_digest(index)
    )


def read_index(folder: Path, shard: Shard, dtype: np.dtype = INDEX) -> np.ndarray:
    """The rows of a shard's index, (images,), checked against the card: its sha256, one row per image, all inside the shard."""
    path = folder / shard.index_name
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != shard.index_sha256:
        raise damaged(path, "its sha256 differs from the card's")
    try:
        rows = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # the header is parsed as Python: errors of many types
        raise damaged(path, f"it is not an index ({type(error).__name__})") from error
    if not isinstance(rows, np.ndarray) or rows.dtype != dtype or rows.shape != (shard.images,):
        raise damaged(path, f"it does not hold the {shard.images} rows of an index")
    last = shard.bytes - rows["bytes"].astype(np.int64)  # the largest offset from which these bytes can be read
    if (last < 0).any() or (last.astype(np.uint64) < rows["offset"].T).any():
        raise damaged(path, "it has a row that lies outside the shard")
    return rows


def read_member(path: Path, *, offset: int, size: int, crc32: int, what: str) -> bytes:
    """Read `size` bytes of a shard at `offset`; thread-safe, keeps no file open. Raises DataError, naming `what`, on damage."""
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            data = os.pread(handle, size, offset)
        finally:
            os.close(handle)
    except OSError as error:
        raise damaged(path, f"it cannot be read ({error.strerror})") from error
    if zlib.crc32(data) != crc32:
        raise damaged(path, f"the bytes of {what} have changed since they were written")
    return data


def _add_sample(tar: tarfile.TarFile, key: str, sample: Sample, suffix: str) -> int:
    """Append a sample's members; returns the offset of the image's bytes."""
    entry = sample.entry
    note = {"id": entry.id, "width": sample.width, "height": sample.height}
    if entry.group is not None:
        note["group"] = entry.group
    offset = add_member(tar, f"{key}.{suffix}", sample.data)
    if entry.label is not None:
        add_member(tar, f"{key}.cls", str(entry.label).encode())
    add_member(tar, f"{key}.json", json.dumps(note, sort_keys=True).encode())
    return offset


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> int:
    """Append a member whose header has only name, size and mode; returns the offset of its data."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o444
    offset = tar.offset + tarfile.BLOCKSIZE
    tar.addfile(member, io.BytesIO(data))
    return offset


def index_bytes(rows: np.ndarray) -> bytes:
    """The bytes of an .npy file that holds an index."""
    file = io.BytesIO()
    np.save(file, rows, allow_pickle=False)
    return file.getvalue()
